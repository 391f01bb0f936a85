"""How a training runs: one typed object, resolved as defaults < recipe < config file < command line.

Every key is documented once, here; the command line, the recipes and `config.yaml` use the same names.
Imports no torch.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.progression import Progression
from unetpp_cli.errors import UserError, nearest
from unetpp_cli.values import as_number, as_text, numbers, read_names, seconds

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

AUTO_BATCH = 0
"""The `batch_size` of somebody who wrote `auto`."""


def _key(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    run: bool = False,
) -> Any:
    """A documented key. `run` marks what names places and machines: it stays out of the weights file."""
    metadata = {"help": text, "choices": choices, "low": low, "high": high, "run": run}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training. See `describe` for each key's meaning."""

    # What is read
    data: str = _key(
        "", "Folder, .zip or .tar of images and masks, an https:// address, or 'demo'.", run=True
    )
    classes: str = _key("", "Class set: camvid11, camvid32, camvid33; empty = the data's own.")
    split_by: str = _key(
        "", "'segnet': the CamVid benchmark's frame lists; 'random'; empty = the data's own split."
    )
    hold_out: str = _key("", "Sequences, beginnings of names or names that become val: 0001TP, say.")
    channels: int = _key(3, "Channels of the input image: 3 (RGB) or 1 (grey).", low=1, high=3)
    size: str = _key("fit 360", "Size at which images meet the network: 224x224, 360 (short side) or native.")
    mean: list[float] = _key(list(IMAGENET_MEAN), "Mean per channel of pixel values 0..1.")
    std: list[float] = _key(list(IMAGENET_STD), "Standard deviation per channel of pixel values 0..1.")
    augment: list[Any] = _key([], "Albumentations transforms by name, in order, each with its arguments.")
    progressive: str = _key(
        "",
        "Low resolution first: SCALE:SHARE of the epochs, ..., such as 0.5:0.6,0.75:0.2; the rest is at full "
        "size. Empty = full size throughout.",
    )
    # The network
    width: int = _key(32, "Channels of the top row; row i has width * 2^i.", low=1, high=1024)
    depth: int = _key(4, "How often the image is halved; there is a head at each depth.", low=1, high=8)
    deep_supervision: bool = _key(True, "A head, and a loss, at every depth (needed for pruning).")
    # What is optimised
    loss: str = _key(
        "ce",
        "Loss of each head: cross entropy, alone or with Dice or Lovasz-softmax; focal; ohem (hard pixels).",
        choices=("ce", "ce+dice", "focal", "lovasz", "ce+lovasz", "ohem"),
    )
    focal_gamma: float = _key(2.0, "For 'focal': how much sure pixels count less; 0 = cross entropy.", low=0)
    ohem_threshold: float = _key(
        0.7, "For 'ohem': pixels whose class is given less probability than this are hard.", low=0, high=1
    )
    ohem_keep: float = _key(
        0.0625, "For 'ohem': share of the labelled pixels that is kept at least.", low=0, high=1
    )
    label_smoothing: float = _key(0.0, "Share of the target spread over all classes.", low=0, high=0.9)
    class_weights: str = _key(
        "none",
        "Weights against class imbalance: none, enet (1/ln(1.02+p)), median-frequency, or a,b,c,...",
    )
    logit_adjustment: float = _key(
        0.0,
        "With class_weights: how much of the weights' preference for rare classes is left to the training "
        "alone; the network then predicts without it. 1 = all of it, 0 = none.",
        low=0,
        high=2,
    )
    head_weights: str = _key(
        "uniform",
        "Weight of each head's loss: uniform, linear (1,2,3,4), exp (1,2,4,8), or a,b,c,d.",
    )
    distill: float = _key(
        0.0,
        "Share of the shallower heads' loss that is agreement with the deepest one (0.5, say). With a "
        "teacher: of all heads' loss, with the teacher.",
        low=0,
        high=1,
    )
    distill_temperature: float = _key(
        1.0, "For 'distill': logits are divided by this first; above 1 the less likely classes count more."
    )
    teacher: str = _key(
        "", "For 'distill': weights file or run folder of a trained network, wider perhaps.", run=True
    )
    optimizer: str = _key("adamw", "Optimiser.", choices=("adamw", "sgd"))
    lr: float = _key(1e-3, "Learning rate at its highest.", low=0)
    momentum: float = _key(0.9, "Momentum of SGD.", low=0, high=1)
    nesterov: bool = _key(False, "Nesterov momentum for SGD.")
    weight_decay: float = _key(1e-2, "Weight decay; never on norms and biases.", low=0)
    schedule: str = _key(
        "cosine",
        "How the learning rate falls.",
        choices=("constant", "step", "poly", "cosine", "one-cycle"),
    )
    step_epochs: int = _key(50, "For 'step': epochs between falls.", low=1)
    step_factor: float = _key(0.1, "For 'step': factor of each fall.", low=0, high=1)
    warmup_epochs: float = _key(0.0, "Epochs of linear warm-up; at most half the training.", low=0)
    epochs: int = _key(300, "Passes over the training images.", low=1)
    batch_size: int = _key(8, "Images per batch, over all GPUs; 'auto' finds the most that fit.", low=0)
    accumulate: int = _key(1, "Batches whose gradients are added up for one optimiser step.", low=1)
    clip: float = _key(0.0, "Largest norm of the gradient; 0 = no clipping.", low=0)
    ema: float = _key(0.0, "Decay of the averaged weights (0.998, say); 0 = off.", low=0, high=0.99999)
    drop_last: bool = _key(True, "Leave out the last, smaller batch of an epoch.")
    patience: int = _key(
        0, "Stop after so many epochs at full size without a better val mIoU; 0 = never.", low=0
    )
    init_from: str = _key("", "Weights file or run folder to start from; what fits is taken over.", run=True)
    # How it runs
    seed: int = _key(17, "Seed of weights, sample order and augmentation.", low=0)
    precision: str = _key(
        "auto",
        "Arithmetic: auto is bf16 where the hardware has it natively, else fp32.",
        choices=("auto", "fp32", "tf32", "bf16", "fp16"),
    )
    deterministic: bool = _key(
        False, "On CUDA: only kernels that repeat bit for bit, so that resuming is exact there too; slower."
    )
    compile: bool = _key(False, "Compile the network with torch.compile: a slow start, then faster on CUDA.")
    val_every: int = _key(1, "Epochs between validations (the last epoch is always validated).", low=1)
    save_every: int = _key(0, "Keep the weights of every Nth epoch; 0 = only best and last.", low=0, run=True)
    save_minutes: float = _key(
        5.0,
        "Minutes between saves of the training state within an epoch; 0 = only after epochs.",
        low=0,
        run=True,
    )
    time_limit: str = _key("", "End well after this time, to be resumed: 90s, 8m, 1h30m.", run=True)
    tensorboard: bool = _key(False, "Also write TensorBoard event files into the run's folder.", run=True)
    gpus: str = _key(
        "", "GPUs: 0, or 0,1, or all, or cpu; empty = GPU 0 if there is one, else the CPU.", run=True
    )
    max_restarts: int = _key(
        0,
        "With several GPUs: how often a training that lost a process starts again from its state.",
        low=0,
        run=True,
    )
    workers: int = _key(-1, "Processes that decode and augment; -1 chooses.", low=-1, run=True)
    cache: str = _key(
        "auto",
        "Keep decoded images: auto does when they fit well into memory.",
        choices=("auto", "on", "off"),
        run=True,
    )
    out: str = _key("", "The run's folder; empty = runs/NAME, never one that exists.", run=True)

    def to_recipe(self) -> dict[str, Any]:
        """The keys that decide the outcome: no paths, no machine. Stands in the weights file."""
        return {
            spec.name: getattr(self, spec.name)
            for spec in dataclasses.fields(self)
            if not spec.metadata["run"]
        }

    def to_yaml(self, recipe: str) -> str:
        """All keys, in order, as `--config` reads them; `recipe` says what they started from."""
        import yaml

        return yaml.safe_dump(
            {"recipe": recipe, **dataclasses.asdict(self)}, sort_keys=False, allow_unicode=True
        )


_TYPES: Mapping[str, Any] = typing.get_type_hints(TrainConfig)
_FIELDS = {spec.name: spec for spec in dataclasses.fields(TrainConfig)}


def describe(key: str) -> str:
    """The one-line description of a key, with its choices; used as its help text."""
    metadata = _FIELDS[key].metadata
    choices = f" [{'|'.join(metadata['choices'])}]" if metadata["choices"] else ""
    return f"{metadata['help']}{choices}"


def recipe_names() -> list[str]:
    """The recipes inside the package."""
    files = (resources.files("unetpp_cli") / "recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read_recipe(name: str) -> dict[str, Any]:
    """The keys of a recipe inside the package.

    Raises:
        UserError: there is no recipe of that name.
    """
    if name not in recipe_names():
        raise UserError(
            f"There is no recipe '{name}'.{nearest(name, recipe_names())}",
            f"Recipes are {', '.join(recipe_names())}; your own file goes to --config.",
        )
    import yaml

    text = (resources.files("unetpp_cli") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    return _mapping(yaml.safe_load(text), f"recipe {name}")


def read_config_file(path: str | Path) -> dict[str, Any]:
    """The keys of a YAML file given with `--config`; it may name a recipe to start from (`recipe: quick`).

    Raises:
        UserError: the file is missing or no YAML mapping, or names an unknown recipe.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the config file {path}: {error}.", "Check --config.") from error
    try:
        return _mapping(yaml.safe_load(text), str(path))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise UserError(f"{path} is no valid YAML{line}.", "Write one 'key: value' a line.") from error


def resolve(*layers: tuple[str, Mapping[str, Any]]) -> TrainConfig:
    """One config out of layers, each `(where it came from, keys)`, later ones winning.

    Raises:
        UserError: an unknown key (with the nearest known one), a value of the wrong type, out of range, or
            a combination that makes no sense.
    """
    values: dict[str, Any] = {}
    for origin, layer in layers:
        for key, value in layer.items():
            if key not in _FIELDS:
                raise UserError(
                    f"{origin}: there is no key '{key}'.{nearest(key, _FIELDS)}",
                    "" if nearest(key, _FIELDS) else f"Known keys: {', '.join(_FIELDS)}.",
                )
            values[key] = _checked(origin, key, value)
    config = TrainConfig(**values)
    _refuse_bad_combinations(config)
    return config


def _mapping(data: Any, origin: str) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{origin} must be a list of 'key: value' lines.")
    return data


def _checked(origin: str, key: str, value: Any) -> Any:
    """`value` as the type of `key`, or a UserError that names both."""
    metadata, wanted = _FIELDS[key].metadata, _TYPES[key]
    name = f"{origin}: {key}"
    if wanted is bool:
        if isinstance(value, str) and value.lower() in {"true", "false", "yes", "no", "on", "off"}:
            value = value.lower() in {"true", "yes", "on"}
        if not isinstance(value, bool):
            raise UserError(f"{name} must be true or false, not {value!r}.")
        return value
    if wanted in (int, float):
        if key == "batch_size" and value == "auto":
            return AUTO_BATCH
        return as_number(name, value, wanted, metadata["low"], metadata["high"])
    if wanted is str:
        if key == "hold_out" and isinstance(value, (int, float)):
            raise UserError(f"{name} is the number {value}.", "Put the name into quotes: '0016'.")
        text = as_text(value)
        if key == "hold_out":
            text = read_names(text)
        if metadata["choices"] and text not in metadata["choices"]:
            raise UserError(
                f"{name} cannot be '{text}'.{nearest(text, metadata['choices'])}",
                f"Choose one of {', '.join(metadata['choices'])}.",
            )
        return text
    if not isinstance(value, list | tuple):
        raise UserError(f"{name} must be a list, not {value!r}.")
    if key in ("mean", "std"):
        return [as_number(name, part, float, None, None) for part in value]
    return list(value)


def _refuse_bad_combinations(config: TrainConfig) -> None:
    """Everything that can be said before the data is touched."""
    Geometry.parse(config.size)
    seconds(config.time_limit)
    Progression.parse(config.progressive, config.epochs)
    if config.compile and config.deterministic:
        raise UserError(
            "compile and deterministic exclude each other: compiled kernels need not repeat bit for bit.",
            "Leave one of them out.",
        )
    if config.channels == 2:
        raise UserError("channels is 2, but images have 1 (grey) or 3 (RGB) channels.")
    for key in ("mean", "std"):
        if len(getattr(config, key)) != config.channels:
            raise UserError(f"{key} has {len(getattr(config, key))} values for {config.channels} channels.")
    if min(config.std) <= 0:
        raise UserError(f"std is {config.std}, but must be above 0.")
    if config.lr <= 0:
        raise UserError("lr is 0, but must be above 0.")
    if config.class_weights not in ("none", "enet", "median-frequency") and not numbers(config.class_weights):
        raise UserError(
            f"class_weights cannot be '{config.class_weights}'.",
            "Choose none, enet, median-frequency, or a number per class: 1,2,0.5,...",
        )
    if config.head_weights not in ("uniform", "linear", "exp"):
        weights = numbers(config.head_weights)
        heads = config.depth if config.deep_supervision else 1
        if weights is None or len(weights) != heads or min(weights) < 0 or weights[-1] <= 0:
            raise UserError(
                f"head_weights cannot be '{config.head_weights}'.",
                f"Choose uniform, linear, exp, or {heads} numbers, none negative, the last above 0.",
            )
    if config.label_smoothing and config.loss in ("focal", "lovasz", "ohem"):
        raise UserError(
            f"label_smoothing has no meaning for the loss '{config.loss}'.",
            "Leave label_smoothing at 0, or choose --loss ce, ce+dice or ce+lovasz.",
        )
    if config.class_weights != "none" and config.loss == "lovasz":
        raise UserError(
            "class_weights has no meaning for the loss 'lovasz', in which all classes count alike.",
            "Add --class-weights none, or choose --loss ce+lovasz.",
        )
    if config.distill_temperature <= 0:
        raise UserError(f"distill_temperature is {config.distill_temperature:g}, but must be above 0.")
    if config.teacher and not config.distill:
        raise UserError("There is a teacher, but distill is 0.", "Add --distill 0.5, or leave --teacher out.")
    if config.distill and not config.teacher and (config.depth == 1 or not config.deep_supervision):
        raise UserError(
            "distill: the network has no shallower head to teach.", "Leave it out, or name a --teacher MODEL."
        )
    if config.optimizer == "adamw" and config.nesterov:
        raise UserError("nesterov belongs to SGD.", "Add --optimizer sgd, or leave nesterov out.")
    if config.optimizer == "sgd" and config.nesterov and config.momentum == 0:
        raise UserError("nesterov needs a momentum above 0.")
