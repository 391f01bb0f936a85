"""The layers of a config and what is refused before any data is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from unetpp_cli.config import TrainConfig, describe, read_config_file, read_recipe, recipe_names, resolve
from unetpp_cli.data.augment import Augmentation
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_resolves_and_its_transforms_exist(name: str) -> None:
    config = resolve((name, read_recipe(name)))
    Augmentation(config.augment, config.seed)


def test_blog_is_the_articles_recipe() -> None:
    config = resolve(("blog", read_recipe("blog")))
    assert (config.width, config.size, config.optimizer, config.lr) == (64, "stretch 224x224", "sgd", 0.1)
    assert (config.momentum, config.schedule, config.step_epochs, config.epochs) == (0.0, "step", 50, 50)
    assert (config.batch_size, config.seed, config.save_every, config.drop_last) == (8, 17, 5, True)
    assert [next(iter(entry)) for entry in config.augment] == ["HorizontalFlip", "VerticalFlip"]


def test_later_layers_win() -> None:
    config = resolve(
        ("recipe", {"epochs": 1, "width": 16, "lr": 0.5}),
        ("file", {"epochs": 2, "width": 8}),
        ("", {"epochs": 3}),
    )
    assert (config.epochs, config.width, config.lr, config.depth) == (3, 8, 0.5, TrainConfig().depth)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"epoch": 3}, "no key 'epoch'. Did you mean 'epochs'?"),
        ({"lr": "fast"}, "lr must be a number, not 'fast'"),
        ({"lr": -1}, "lr is -1, but must be at least 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": 0}, "lr is 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"width": 4096}, "width is 4096, but must be 1 to 1024"),
        ({"drop_last": 3}, "drop_last must be true or false"),
        ({"loss": "ce+dicee"}, "Did you mean 'ce+dice'?"),
        ({"augment": "HorizontalFlip"}, "augment must be a list"),
        ({"size": "big"}, "'big' is no size"),
        ({"size": "0x4"}, "'0x4' is no size"),
        ({"channels": 2}, "channels is 2"),
        ({"channels": 1}, "mean has 3 values for 1 channels"),
        ({"std": [0, 1, 1]}, "std is"),
        ({"class_weights": "enett"}, "class_weights cannot be 'enett'"),
        ({"head_weights": "1,2"}, "4 numbers"),
        ({"head_weights": "1,1,1,0"}, "the last above 0"),
        ({"nesterov": True}, "nesterov belongs to SGD"),
    ],
)
def test_refusals_name_the_key(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(("--set", keys))
    assert message in str(caught.value)


def test_yaml_spellings_are_understood() -> None:
    keys = yaml.safe_load("{lr: 1e-3, size: 360, cache: on, class_weights: [1, 2.5], gpus: 0, epochs: 4.0}")
    config = resolve(("file", keys))
    assert config.lr == 0.001
    assert config.size == "360"
    assert (config.cache, config.class_weights, config.gpus, config.epochs) == ("on", "1,2.5", "0", 4)


@pytest.mark.parametrize("name", recipe_names())
def test_config_yaml_repeats_the_run(name: str, tmp_path: Path) -> None:
    config = resolve((name, read_recipe(name)), ("flags", {"data": "demo", "seed": 3, "cache": "off"}))
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(name))
    keys = read_config_file(file)
    assert keys.pop("recipe") == name
    assert resolve(("file", keys)) == config


def test_the_recipe_in_the_weights_names_no_places() -> None:
    recipe = resolve(("", {"data": "/home/me", "out": "x", "gpus": "0", "workers": 3})).to_recipe()
    assert not {"data", "out", "gpus", "workers", "cache"} & recipe.keys()
    assert recipe["epochs"] == TrainConfig().epochs


def test_unreadable_config_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot read"):
        read_config_file(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("lr: [1\nx: 2")
    with pytest.raises(UserError, match="no valid YAML"):
        read_config_file(bad)
    bad.write_text("- 1\n- 2")
    with pytest.raises(UserError, match="key: value"):
        read_config_file(bad)
    with pytest.raises(UserError, match="Did you mean 'quick'"):
        read_recipe("quik")


def test_every_key_is_described() -> None:
    for key in TrainConfig.__dataclass_fields__:
        assert len(describe(key)) > 8, key


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 800))
def test_fit_keeps_the_aspect(height: int, width: int, side: int) -> None:
    assume(side * max(height, width) / min(height, width) < 2**16)
    assume(side**2 / min(height, width) ** 2 < 64)
    new_height, new_width = Geometry.parse(f"fit {side}").size(height, width)
    assert min(new_height, new_width) == side
    assert abs(new_height / new_width - height / width) <= (height / width) / min(new_height, new_width)


@pytest.mark.parametrize(
    ("size", "height", "width", "seen"),
    [
        ("fit 96", 1, 3000, "288000x96"),  # a side is too long
        ("fit 96", 3000, 1, "96x288000"),
        ("fit 5000", 600, 600, "5000x5000"),  # 69 times its pixels
        ("fit 5000", 640, 640, None),  # 61 times
        ("fit 4000", 2, 2, None),  # below 16 megapixels
        ("fit 32", 1, 2048, None),  # exactly MAX_SIDE
        ("stretch 5000x5000", 2, 2, None),
        ("native", 1, 300_000, None),
    ],
)
def test_fit_does_not_make_a_tiny_picture_enormous(
    size: str, height: int, width: int, seen: str | None
) -> None:
    geometry = Geometry.parse(size)
    if seen is None:
        geometry.size(height, width)
    else:
        with pytest.raises(UserError, match=f"{width}x{height} .* at {seen}: .*--size native"):
            geometry.size(height, width)


@given(st.sampled_from(["native", "fit {}", "stretch {}x{}"]), st.integers(1, 5000), st.integers(1, 5000))
def test_geometry_text_round_trips(form: str, width: int, height: int) -> None:
    geometry = Geometry.parse(form.format(width, height))
    assert Geometry.parse(str(geometry)) == geometry
