"""The article's .pth files: an independent network of its kind, saved as in its training loop."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import class_set, randomise, trained
from torch import Tensor, nn

from unetpp_cli.data.classes import CAMVID11, CAMVID33, palette
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError
from unetpp_cli.jobs.convert import convert, read_names
from unetpp_cli.network.blog import load_blog
from unetpp_cli.network.header import file_hash, read_header
from unetpp_cli.network.pruning import prune, verify
from unetpp_cli.network.weights import load_model


class Block(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.Conv_forward = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.Conv_forward(x)
        return y


class Article(nn.Module):
    """The article's network from its description alone: column by column, each node a Sequential."""

    def __init__(self, classes: int = 11, channels: int = 3, width: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.depth = depth
        c = [width * 2**i for i in range(depth + 1)]
        for i in range(depth + 1):
            encoder = (
                *(nn.Conv2d(c[i - 1] if i else channels, c[i], 3, 1, 1), nn.BatchNorm2d(c[i]), nn.ReLU()),
                *(nn.Conv2d(c[i], c[i], 3, 1, 1), nn.BatchNorm2d(c[i]), nn.ReLU()),
            )
            self.add_module(f"stage_{i}", Block(*encoder))
            for j in range(1, depth - i + 1):
                both = c[i] * (j + 1)
                decoder = (
                    *(nn.BatchNorm2d(both), nn.ReLU(), nn.Conv2d(both, c[i], 3, 1, 1)),
                    *(nn.BatchNorm2d(c[i]), nn.ReLU(), nn.Conv2d(c[i], c[i], 3, 1, 1)),
                )
                self.add_module(f"CONV{i}_{j}", Block(*decoder))
                self.add_module(f"upsample_{i}_{j}", nn.ConvTranspose2d(c[i + 1], c[i], 4, 2, 1))
        for d in range(1, depth + 1):
            head = (nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, classes, 3, 1, 1))
            self.add_module(f"final_super_0_{d}", nn.Sequential(*head))

    def forward(self, image: Tensor, heads: tuple[int, ...] | None = None) -> list[Tensor]:
        part = dict(self.named_children())
        x = {(0, 0): part["stage_0"](image)}
        for i in range(1, self.depth + 1):
            x[i, 0] = part[f"stage_{i}"](nn.functional.max_pool2d(x[i - 1, 0], 2, 2))
        for j in range(1, self.depth + 1):
            for i in range(self.depth + 1 - j):
                up = part[f"upsample_{i}_{j}"](x[i + 1, j - 1])
                x[i, j] = part[f"CONV{i}_{j}"](torch.cat([up] + [x[i, k] for k in range(j)], 1))
        depths = heads or tuple(range(1, self.depth + 1))
        return [part[f"final_super_0_{d}"](x[0, d]) for d in depths]


def article(heads: tuple[int, ...] | None = None, **size: int) -> Article:
    """The network as a training leaves it that used only these heads."""
    return copy.deepcopy(_article(heads, **size))


@functools.cache
def _article(heads: tuple[int, ...] | None, **size: int) -> Article:
    torch.manual_seed(3)
    network = Article(**size)
    randomise(network, lambda image: network(image, heads), size.get("channels", 3))
    if heads is not None:  # an optimiser moves nothing in a head without a loss
        for d in {1, 2, 3, 4} - {*heads}:
            part = network.get_submodule(f"final_super_0_{d}.0")
            assert isinstance(part, nn.BatchNorm2d)
            part.reset_parameters()
    return network


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    return tmp_path / "old.pth"


def test_names_and_places_of_the_tensors(pth: Path) -> None:
    """Spelled out where encoder, decoder and heads order their layers differently."""
    state = article().state_dict()
    torch.save(state, pth)
    ours = load_blog(pth, None)[0].state_dict()
    assert len(ours) == len(state)
    for mine, theirs in {
        "nodes.0.0.conv1.weight": "stage_0.Conv_forward.0.weight",
        "nodes.0.0.norm1.weight": "stage_0.Conv_forward.1.weight",
        "nodes.2.0.conv2.bias": "stage_2.Conv_forward.3.bias",
        "nodes.4.0.norm2.running_var": "stage_4.Conv_forward.4.running_var",
        "nodes.0.3.norm1.weight": "CONV0_3.Conv_forward.0.weight",
        "nodes.0.3.conv1.weight": "CONV0_3.Conv_forward.2.weight",
        "nodes.1.2.norm2.running_mean": "CONV1_2.Conv_forward.3.running_mean",
        "nodes.3.1.conv2.weight": "CONV3_1.Conv_forward.5.weight",
        "nodes.1.3.up.weight": "upsample_1_3.weight",
        "head.2.norm.num_batches_tracked": "final_super_0_2.0.num_batches_tracked",
        "head.4.conv.bias": "final_super_0_4.2.bias",
    }.items():
        assert torch.equal(ours[mine], state[theirs]), mine


@pytest.mark.parametrize(
    "size",
    [{}, {"classes": 33, "width": 2}, {"depth": 2, "channels": 1}, {"depth": 1}, {"depth": 5, "width": 2}],
)
def test_every_head_answers_as_in_the_article(pth: Path, size: dict[str, int]) -> None:
    theirs = article(**size)
    torch.save(theirs.state_dict(), pth)
    ours, header = load_blog(pth, None)
    image = torch.randn(2, size.get("channels", 3), 64, 32)
    with torch.inference_mode():
        for one, other in zip(ours.heads(image), theirs(image), strict=True):
            assert other.std() > 0.05
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert not ours.training
    a = header.architecture
    assert (a.num_classes, a.in_channels) == (size.get("classes", 11), size.get("channels", 3))
    assert (a.width, a.depth, a.trained_depth) == (size.get("width", 4), theirs.depth, theirs.depth)
    assert a.heads == tuple(range(1, theirs.depth + 1))


def test_the_header_says_what_is_known(pth: Path) -> None:
    torch.save(article().state_dict(), pth)
    header = load_blog(pth, None)[1]
    assert header.geometry == Geometry("stretch", 224, 224)
    assert header.mean == (0.485, 0.456, 0.406)
    assert header.std == (0.229, 0.224, 0.225)
    assert header.origin == {"converted_from": file_hash(pth)}
    assert header.classes.names[:2] == ("class_0", "class_1")
    assert header.classes.colors == palette(11)
    assert header.classes.void == ()
    assert load_blog(pth, CAMVID11)[1].classes == CAMVID11


def test_another_number_of_channels_is_not_normalised_by_guess(pth: Path) -> None:
    torch.save(article(channels=1).state_dict(), pth)
    header = load_blog(pth, None)[1]
    assert (header.mean, header.std) == ((0.0,), (1.0,))


WAYS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "checkpoint": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: torch.ones(1)}}},
    "under model": lambda state: {
        "model": {f"module.{name}": value for name, value in state.items()},
        "acc": 0.5,
    },
    "double": lambda state: {name: value.double() for name, value in state.items()},
    "torch 0.4.0": lambda state: {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_ways_in_which_it_was_saved(pth: Path, way: str, zipped: bool) -> None:
    state = article().state_dict()
    torch.save(WAYS[way](state), pth, _use_new_zipfile_serialization=zipped)
    converted = load_blog(pth, None)[0].state_dict()
    torch.save(state, pth)
    for name, value in load_blog(pth, None)[0].state_dict().items():
        assert converted[name].dtype == value.dtype
        if name.endswith("num_batches_tracked"):
            assert converted[name] == (0 if way == "torch 0.4.0" else 1)
        else:
            assert torch.equal(converted[name], value)


@pytest.mark.parametrize(
    ("heads", "depth", "untrained"),
    [((4,), 4, [1, 2, 3]), ((1, 2, 3), 3, [4]), ((2,), 2, [1, 3, 4]), ((1, 4), 4, [2, 3])],
)
def test_heads_that_were_never_trained_are_left_out(
    pth: Path, heads: tuple[int, ...], depth: int, untrained: list[int]
) -> None:
    theirs = article(heads)
    torch.save(theirs.state_dict(), pth)
    ours, header = load_blog(pth, None)
    assert header.architecture.heads == ours.head_depths == heads
    assert header.architecture.depth == ours.depth == depth
    assert header.origin["untrained_heads"] == untrained
    # The article's net saw images whose sides are multiples of 16, whatever its heads.
    assert (header.architecture.pad_multiple, header.architecture.trained_depth) == (16, 4)
    image = torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        for one, other in zip(ours.heads(image), theirs(image, heads), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_one_moved_statistic_makes_a_head_trained(pth: Path) -> None:
    state = article((4,)).state_dict()
    state["final_super_0_2.0.running_mean"][1] = 1e-6
    torch.save(state, pth)
    assert load_blog(pth, None)[0].head_depths == (2, 4)


def test_a_converted_network_can_be_pruned(pth: Path) -> None:
    torch.save(article().state_dict(), pth)
    network, header = load_blog(pth, None)
    pruned, after = prune((network, header), 2)
    assert verify(network, pruned, 2).heads == (1, 2)
    assert after.origin["parent"] == header.origin


def without(*names: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {name: value for name, value in state.items() if name not in names}


def untrained(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, value in state.items():
        if name.startswith("final_super"):
            value.fill_(1.0 if name.endswith("running_var") else 0.0)
    return state


def with_nan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state["CONV0_1.Conv_forward.2.weight"][0, 0, 0, 0] = float("nan")
    return state


BIAS = "CONV0_1.Conv_forward.2.bias"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without(BIAS), rf"1 missing \({BIAS}\)"),
        (lambda s: {**s, "total_ops": torch.zeros(1)}, r"1 unknown \(total_ops\)"),
        (lambda s: {**s, "stage_7.Conv_forward.0.bias": torch.zeros(1)}, "1 unknown"),
        (lambda s: {**s, "final_super_0_5.2.weight": torch.zeros(11, 4, 3, 3)}, "1 unknown"),
        (lambda s: {**s, BIAS: torch.zeros(5)}, rf"1 of another shape \({BIAS}\)"),
        (lambda s: {**s, "final_super_0_1.2.weight": torch.zeros(12, 4, 3, 3)}, "1 of another shape"),
        (lambda s: {n: v for n, v in s.items() if "stage_2" not in n}, "unknown"),
        (lambda s: {n: v for n, v in s.items() if "stage_0" not in n}, "not the article's UNet"),
        (lambda s: {n: v for n, v in s.items() if "final" not in n}, "not the article's UNet"),
        (lambda s: {**s, "stage_0.Conv_forward.0.weight": torch.zeros(4)}, "not the article's UNet"),
        (lambda _: trained(width=1).state_dict(), "not the article's UNet"),
        (lambda _: {"fc.weight": torch.zeros(3)}, r"tensors are called fc\.weight"),
        (untrained, "was never trained"),
        (with_nan, r"not finite, in nodes\.0\.1\.conv1\.weight"),
        (lambda _: [1, 2], "holds no state dict"),
        (lambda _: {}, "holds no state dict"),
        (
            lambda s: {"epoch": 3, "weights_of_mine": s},
            r"holds no state dict \(it holds epoch, weights_of_mine\)",
        ),
        (lambda _: torch.zeros(3), "holds no state dict"),
    ],
)
def test_what_is_not_the_articles_network_is_refused(
    pth: Path, change: Callable[[dict[str, Tensor]], Any], problem: str
) -> None:
    torch.save(change(article().state_dict()), pth)
    with pytest.raises(UserError, match=problem) as caught:
        load_blog(pth, None)
    assert str(pth) in caught.value.problem
    assert caught.value.cure
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrap", [lambda network: network, nn.DataParallel, lambda network: {"model": network}]
)
def test_a_pickled_module_is_refused_with_the_cure(pth: Path, wrap: Callable[[nn.Module], Any]) -> None:
    torch.save(wrap(article()), pth)
    with pytest.raises(UserError, match="could run code when read") as caught:
        load_blog(pth, None)
    assert "torch.save(model.state_dict()" in caught.value.cure


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_the_file_is_executed(pth: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    for save in (torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))):
        save(Bomb(), pth)
        with pytest.raises(UserError):
            load_blog(pth, None)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"hello, no weights", bytes(1000), b"PK\x03\x04" + bytes(99)])
def test_files_that_are_no_pth_are_refused(pth: Path, content: bytes) -> None:
    pth.write_bytes(content)
    with pytest.raises(UserError, match="is damaged, or no file that"):
        load_blog(pth, None)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_file_cut_off_is_refused(pth: Path, zipped: bool, share: float) -> None:
    torch.save(article().state_dict(), pth, _use_new_zipfile_serialization=zipped)
    data = pth.read_bytes()
    pth.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match="is damaged, or no file that"):
        load_blog(pth, None)


@pytest.mark.parametrize("name", ["missing.pth", "."])
def test_unreadable_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="Cannot read"):
        load_blog(tmp_path / name, None)


def test_another_number_of_classes_is_refused_with_both(pth: Path) -> None:
    torch.save(article(classes=12).state_dict(), pth)
    with pytest.raises(UserError, match="has 12 classes, but camvid11 names 11"):
        load_blog(pth, CAMVID11)
    with pytest.raises(UserError, match="has 12 classes, but custom names 13"):
        load_blog(pth, class_set(13))


# The command.


def test_the_command_writes_a_file_that_needs_nothing_else(
    pth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = article((4,), classes=33)
    torch.save(theirs.state_dict(), pth)
    written = convert(pth, output=tmp_path / "new.safetensors", classes="camvid33")
    model = load_model(written)
    assert model.header.classes == CAMVID33
    assert model.header.origin == {"converted_from": file_hash(pth), "untrained_heads": [1, 2, 3]}
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model.network(image), theirs(image)[-1], rtol=1e-5, atol=1e-6)
    shown = capsys.readouterr().out
    for text in (
        "width 4 and depth 4, head 4, 33 classes",
        "never trained: head 1, 2, 3",
        f"Wrote {written}",
    ):
        assert text in shown
    assert "class_0" not in shown


def test_without_classes_the_command_says_so(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(article().state_dict(), pth)
    written = convert(pth)
    assert written == pth.with_suffix(".safetensors")
    assert read_header(written)[0].classes.names[10] == "class_10"
    shown = capsys.readouterr().out
    assert "class_0, class_1" in shown
    assert "heads 1, 2, 3, 4" in shown
    assert "never trained" not in shown


def test_the_command_replaces_only_its_own_outcome(pth: Path, tmp_path: Path) -> None:
    torch.save(article().state_dict(), pth)
    target = tmp_path / "new.safetensors"
    target.write_text("precious")
    with pytest.raises(UserError, match="exists, and was not converted from"):
        convert(pth, output=target)
    assert target.read_text() == "precious"
    first = convert(pth, output=target, overwrite=True).read_bytes()
    assert convert(pth, output=target).read_bytes() == first
    convert(pth, output=target, classes="camvid11")
    assert read_header(target)[0].classes == CAMVID11


@pytest.mark.parametrize(
    ("output", "classes", "problem"),
    [
        ("new.pth", None, "safetensors only"),
        ("new.safetensors", "camvid12", "neither a built-in class set nor a file. Did you mean 'camvid"),
        ("new.safetensors", "camvid33", "has 11 classes, but camvid33 names 33"),
    ],
)
def test_the_command_writes_nothing_when_it_refuses(
    pth: Path, tmp_path: Path, output: str, classes: str | None, problem: str
) -> None:
    torch.save(article().state_dict(), pth)
    with pytest.raises(UserError) as caught:
        convert(pth, output=tmp_path / output, classes=classes)
    assert problem in caught.value.problem
    assert list(tmp_path.iterdir()) == [pth]


@pytest.mark.parametrize(
    ("text", "names", "colors"),
    [
        ("road\nsky\n", ("road", "sky"), palette(2)),
        ("# mine\n\n  traffic light \r\nlane 2\n", ("traffic light", "lane 2"), palette(2)),
        ("\ufeffroad 1 2 3\nside walk\t0  128 255", ("road", "side walk"), ((1, 2, 3), (0, 128, 255))),
        ("Straße", ("Straße",), palette(1)),
        ("1 2 3", ("1 2 3",), palette(1)),
    ],
)
def test_class_names_from_a_file(
    tmp_path: Path, text: str, names: tuple[str, ...], colors: tuple[tuple[int, int, int], ...]
) -> None:
    file = tmp_path / "names.txt"
    file.write_text(text, encoding="utf-8")
    classes = read_names(file)
    assert (classes.name, classes.names, classes.colors, classes.void) == ("custom", names, colors, ())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "names no class"),
        (b"# nothing\n", "names no class"),
        (b"road\nroad\n", "road more than once"),
        (b"road 1 2 3\nsky\n", "line 2"),
        (b"road\nsky 1 2 3\n", "line 2"),
        (b"road 1 2 256\n", "line 1: a colour is three numbers 0..255"),
        (b"\xff\xfe\x00", "Cannot read the class names"),
    ],
)
def test_class_names_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=problem):
        read_names(file)


def test_the_command_takes_names_from_a_file(pth: Path, tmp_path: Path) -> None:
    torch.save(article(classes=2).state_dict(), pth)
    names = tmp_path / "names.txt"
    names.write_text("road 1 2 3\nrest 4 5 6\n")
    assert read_header(convert(pth, classes=str(names)))[0].classes.names == ("road", "rest")
