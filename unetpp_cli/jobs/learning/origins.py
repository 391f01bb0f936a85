"""What a training begins with: its data, weights to start from, a teacher; and what its file will say.

Called by `jobs.train`, in this order.
"""

from __future__ import annotations

from unetpp_cli.config import TrainConfig
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.errors import UserError
from unetpp_cli.jobs.afar import local
from unetpp_cli.jobs.runs import find_model
from unetpp_cli.network.header import Header
from unetpp_cli.network.transfer import transfer
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import architecture_of, load_model
from unetpp_cli.parallel import World
from unetpp_cli.report import console
from unetpp_cli.training.teacher import Teacher


def open_data(config: TrainConfig, world: World) -> Dataset:
    """The data, with what there is to say about it said; from afar they are fetched once per machine."""
    data = open_dataset(
        world.once_per_machine("data", lambda: local(config.data)),
        classes=config.classes or None,
        split_by=config.split_by or None,
        hold_out=config.hold_out or None,
        seed=config.seed,
    )
    console.say(f"Data: {data.name}: {data.summary()}")
    if config.hold_out:
        console.say(f"Split: {data.split_by}")
    if data.classes.name == "camvid32" and not config.classes:
        console.say("All 32 classes are learnt; --classes camvid11 merges them into the benchmark's 11.")
    for text in data.warnings:
        console.warn(text)
    if not data.splits.get("train"):
        raise UserError(f"{config.data} has no training images.", "Look at it: unetpp check " + config.data)
    if not data.splits.get("val"):
        console.warn("There is no val split: no scores, and 'best' stays away. Evaluate on other data.")
    return data


def start_from(source: str, network: UNetPlusPlus, data: Dataset) -> str:
    """Takes over what fits of the weights at `source`; returns the terms that come with them."""
    path, _ = find_model(source)
    model = load_model(path)
    for line in transfer(network, model, data.classes).lines():
        console.say(line)
    return str(model.header.data.get("terms", ""))


def find_teacher(config: TrainConfig, data: Dataset, world: World) -> Teacher | None:
    """The network to learn from, if there is one."""
    if not config.teacher:
        return None
    try:
        model = load_model(find_model(config.teacher)[0])
    except UserError as error:
        raise UserError(f"--teacher {config.teacher}: {error.problem}", error.cure) from error
    return Teacher.of(model, data.classes, config.channels, world.device)


def header_of(
    config: TrainConfig,
    network: UNetPlusPlus,
    data: Dataset,
    fingerprint: str,
    inherited: str,
) -> Header:
    """What the weights file says.

    Args:
        inherited: terms of weights that the training began with or learnt from.
    """
    terms = data.terms or inherited
    return Header(
        architecture=architecture_of(network),
        classes=data.classes,
        mean=tuple(config.mean),
        std=tuple(config.std),
        geometry=Geometry.parse(config.size),
        recipe=config.to_recipe(),
        data={
            "layout": data.layout,
            "split_by": data.split_by,
            **{name: len(pairs) for name, pairs in data.splits.items()},
            "fingerprint": fingerprint,
            **({"terms": terms} if terms else {}),
        },
    )
