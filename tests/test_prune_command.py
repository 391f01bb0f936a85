"""`unetpp prune` on real files: the depth it chooses, half storage, budgets, what it says and refuses.

The masks are the deepest head's own answers, so it scores 100 % and every other depth's loss can be counted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
import torch
from conftest import unetpp
from networks import header_for, trained

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.network.header import file_hash, read_header
from unetpp_cli.network.weights import load_model, save_model


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[int, float]]:
    """A model of depth 3, data whose val masks are its own answers, and its mIoU at each depth on them."""
    folder = tmp_path_factory.mktemp("oracle")
    network = trained(width=8, depth=3)
    model = folder / "model.safetensors"
    save_model(model, network, header_for(network, geometry=Geometry("native")))
    loaded = load_model(model)
    files = dict(layouts.segnet()[0])
    answers: dict[int, list[np.ndarray]] = {1: [], 2: [], 3: []}
    for stem in layouts.VAL:
        for depth, masks in answers.items():
            masks.append(Predictor(loaded, depth=depth).mask(layouts.photo(stem)))
        files[f"CamVid/valannot/{stem}.png"] = layouts.encode(answers[3][-1])
    truth = np.stack(answers[3])
    scores = {}
    for depth, masks in answers.items():
        found = np.stack(masks)
        scores[depth] = np.mean(
            [
                np.sum((truth == index) & (found == index)) / np.sum((truth == index) | (found == index))
                for index in np.unique(truth)
            ]
        )
    return model, layouts.to_folder(files, folder / "data") / "CamVid", scores


def flat(text: str) -> str:
    return " ".join(text.split())


def origin(file: str | Path) -> dict[str, Any]:
    return dict(read_header(file)[0].origin)


def better(scores: dict[int, float]) -> int:
    """Which of the depths 1 and 2 is the more accurate; the tests need a gap that no rounding closes."""
    assert abs(scores[1] - scores[2]) > 0.01
    assert max(scores[1], scores[2]) < 0.995
    return max((1, 2), key=lambda depth: scores[depth])


def prune(*args: object) -> Any:
    return unetpp("prune", "--gpus", "cpu", "--no-timing", *args)


def test_auto_takes_the_smallest_depth_that_keeps_the_promise(
    oracle: tuple[Path, Path, dict[int, float]],
) -> None:
    model, data, scores = oracle
    best = better(scores)
    drop = 100 * (1 - scores[best])
    allowed = f"{drop + 0.01:.4f}"
    result = prune(model, "--depth", "auto", "--data", data, "--max-drop", allowed, "-o", "a.safetensors")
    assert result.exit_code == 0, result.output
    assert f"L{best} is chosen, the smallest that keeps the promise" in result.output
    assert f"L3 would do, but L{best} is smaller." in result.output
    assert "Split: val, 2 images" in result.output
    assert all(text in result.output for text in ("mIoU %", "bit for bit"))
    header, _ = read_header("a.safetensors")
    assert header.architecture.depth == best
    assert header.origin["pruned_from"] == file_hash(model)
    choice = header.origin["choice"]
    assert {key: choice[key] for key in ("max_drop", "split", "images", "precision")} == {
        "max_drop": float(allowed),
        "split": "val",
        "images": 2,
        "precision": "fp32",
    }
    assert choice["miou"] == pytest.approx({str(depth): value for depth, value in scores.items()})
    # A promise that is none lets the smallest through.
    lax = prune(model, "--depth", "auto", "--data", data, "--max-drop", "100", "-o", "b.safetensors")
    assert lax.exit_code == 0, lax.output
    assert read_header("b.safetensors")[0].architecture.depth == 1


def test_auto_writes_nothing_where_the_model_is_the_choice(
    oracle: tuple[Path, Path, dict[int, float]], tmp_path: Path
) -> None:
    model, data, scores = oracle
    allowed = f"{100 * (1 - scores[better(scores)]) - 0.01:.4f}"
    before = {path: path.read_bytes() for path in model.parent.glob("*.safetensors")}
    for options in ((), ("-o", "a.safetensors")):
        result = prune(model, "--depth", "auto", "--data", data, "--max-drop", allowed, *options)
        assert result.exit_code == 0, result.output
        assert "L3 is chosen" in result.stdout
        assert "Nothing was written" in result.stderr
        assert f"{model} as it is, L3" in flat(result.stderr)
    assert list(tmp_path.iterdir()) == []
    assert {path: path.read_bytes() for path in model.parent.glob("*.safetensors")} == before
    # What changes something is written all the same.
    for options in (("--single-head",), ("--half",)):
        result = prune(
            model, "--depth", "auto", "--data", data, "--max-drop", allowed, "-o", "a.safetensors", *options
        )
        assert result.exit_code == 0, result.output
        assert read_header("a.safetensors")[0].architecture.depth == 3


def test_a_budget_of_megabytes_is_kept_by_the_file_itself(
    oracle: tuple[Path, Path, dict[int, float]],
) -> None:
    model, data, _ = oracle
    sizes = {}
    for depth in (1, 2):
        for half in (False, True):
            name = f"{depth}{half}.safetensors"
            result = prune(model, "--depth", depth, "-o", name, *(["--half"] if half else []))
            assert result.exit_code == 0, result.output
            sizes[depth, half] = Path(name).stat().st_size
    auto = (model, "--depth", "auto", "--data", data, "--max-drop", 100)

    def chosen(limit: float, *options: str) -> tuple[Any, Path]:
        file = Path("auto.safetensors")
        file.unlink(missing_ok=True)
        return prune(*auto, "--max-mb", f"{limit / 1e6:.6f}", "-o", file, *options), file

    for half in (False, True):
        options = ["--half"] if half else []
        room = sizes[1, half] + 3000
        result, file = chosen(room, *options)
        assert result.exit_code == 0, result.output
        assert file.stat().st_size <= room
        result, file = chosen(sizes[1, half], *options)  # what auto records comes on top
        assert result.exit_code == 2
        assert "L1 needs" in result.output
        assert not file.exists()
    # Halved, L1 fits where it would not otherwise.
    between = (sizes[1, False] + sizes[1, True]) / 2
    assert chosen(between)[0].exit_code == 2
    result, file = chosen(between, "--half")
    assert result.exit_code == 0, result.output
    assert file.stat().st_size <= between


def test_a_budget_of_milliseconds(oracle: tuple[Path, Path, dict[int, float]], tmp_path: Path) -> None:
    model, data, scores = oracle
    auto = ("prune", model, "--gpus", "cpu", "--depth", "auto", "--data", data)
    result = unetpp(*auto, "--max-ms", "0.0001", "-o", "a.safetensors")
    assert result.exit_code == 2
    for depth in (1, 2, 3):
        assert f"L{depth} takes" in result.output
    assert "Allow more with --max-ms." in result.output
    assert list(tmp_path.iterdir()) == []
    # With all the time in the world the most accurate depth is the model itself.
    result = unetpp(*auto, "--max-ms", "1e9", "-o", "a.safetensors")
    assert result.exit_code == 0, result.output
    assert "L3 is chosen, the most accurate in the budget: mIoU 100.00 %" in result.output
    assert list(tmp_path.iterdir()) == []
    result = unetpp(*auto, "--max-ms", "1e9", "--max-drop", "100", "-o", "a.safetensors")
    assert result.exit_code == 0, result.output
    cost = origin("a.safetensors")["cost"]
    assert cost["ms"] > 0
    assert cost["size"] == "64x48"
    assert (cost["device"], cost["threads"]) == ("CPU", torch.get_num_threads())
    assert "ms per image" in result.output
    assert scores[3] == 1


def test_without_times_equal_runs_write_equal_bytes(oracle: tuple[Path, Path, dict[int, float]]) -> None:
    model, data, _ = oracle
    for name in ("a", "b"):
        auto = ("--depth", "auto", "--data", data, "--max-drop", "100", "--half")
        assert prune(model, *auto, "-o", f"{name}.safetensors").exit_code == 0
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()
    assert set(origin("a.safetensors")["cost"]) == {"parameters", "gmac", "file_bytes", "size"}


def test_choosing_on_another_split_than_val_is_said(oracle: tuple[Path, Path, dict[int, float]]) -> None:
    model, data, _ = oracle
    for split, word in (("test", "flatters"), ("train", "favours the deeper heads")):
        auto = ("--depth", "auto", "--data", data, "--max-drop", "100", "--split", split)
        result = prune(model, *auto, "-o", f"{split}.safetensors")
        assert result.exit_code == 0, result.output
        assert f"Warning: Choosing a depth on {split} {word}" in flat(result.stderr)
        assert origin(f"{split}.safetensors")["choice"]["split"] == split
    result = prune(model, "--depth", "auto", "--data", data, "--max-drop", "100", "-o", "val.safetensors")
    assert "Choosing a depth" not in result.stderr


def test_the_run_knows_its_data_and_its_scores_are_those_of_eval(run: Path) -> None:
    result = prune(run, "--depth", "auto", "--max-drop", "100", "-o", "a.safetensors")
    assert result.exit_code == 0, result.output
    scored = unetpp("eval", run, "--split", "val", "--json", "--no-timing", "--gpus", "cpu")
    depths = json.loads(scored.stdout)["depths"]
    expected = {depth: entry["miou"] for depth, entry in depths.items()}
    assert origin("a.safetensors")["choice"]["miou"] == pytest.approx(expected, abs=1e-12)


# --- half storage


def test_half_says_what_was_cut_and_what_was_changed(oracle: tuple[Path, Path, dict[int, float]]) -> None:
    model, data, scores = oracle
    result = prune(model, "--depth", 2, "--half", "--data", data, "-o", "half.safetensors")
    assert result.exit_code == 0, result.output
    said = flat(result.output)
    assert "bit for bit when cut, before the weights are halved." in said
    assert "Halved, the answers are no longer the same" in said
    header, tensors = read_header("half.safetensors")
    assert {info.dtype for info in tensors.values()} == {"F16", "F32", "I64"}
    assert header.origin["proof"]["identical_logits"]

    exact, halved = load_model(model).network, load_model("half.safetensors").network
    image = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        one, other = exact(image, 2), halved(image)
    change = header.origin["half"]
    assert 0 < change["logits"] < 0.01
    # Another image than the probes: of the same order.
    assert float((one - other).abs().max() / one.abs().max()) < 5 * change["logits"]
    assert 0 <= change["pixels"] < 0.05
    assert (change["split"], change["images"]) == ("val", 2)
    assert change["miou_before"] == pytest.approx(scores[2])
    scored = unetpp("eval", "half.safetensors", "--data", data, "--split", "val", "--json", "--no-timing")
    after = json.loads(scored.stdout)["depths"]["2"]["miou"]
    assert change["miou_after"] == pytest.approx(after)
    assert f"{100 * scores[2]:.2f} % before, {100 * after:.2f} % after" in said

    stored = sum({"F16": 2, "F32": 4, "I64": 8}[info.dtype] * info.count for info in tensors.values())
    assert header.origin["cost"]["file_bytes"] == stored
    assert f"{Path('half.safetensors').stat().st_size / 1e6:.2f} │" in result.output


def test_half_alone_stores_the_whole_model_again(oracle: tuple[Path, Path, dict[int, float]]) -> None:
    model, _, _ = oracle
    copy = Path("model.safetensors")
    copy.write_bytes(model.read_bytes())
    assert prune(copy, "--half", "--depth", 3).exit_code == 0
    header, _ = read_header("model-L3-half.safetensors")
    assert header.architecture == read_header(model)[0].architecture
    assert header.origin["pruned_from"] == file_hash(model)
    assert "miou_before" not in header.origin["half"]

    # A half file stays one, and loses nothing more.
    result = prune("model-L3-half.safetensors", "--depth", 1, "-o", "small.safetensors")
    assert result.exit_code == 0, result.output
    assert "bit for bit." in result.output
    whole, small = (
        load_model(name).network.state_dict() for name in ("model-L3-half.safetensors", "small.safetensors")
    )
    assert all(torch.equal(value, whole[name]) for name, value in small.items())
    assert "F16" in {info.dtype for info in read_header("small.safetensors")[1].values()}
    assert "half" in origin("small.safetensors")["parent"]
    again = prune("model-L3-half.safetensors", "--half", "--depth", 3, "-o", "again.safetensors")
    assert again.exit_code == 2
    assert "nothing would change" in again.output


def test_info_shows_cost_choice_and_half(oracle: tuple[Path, Path, dict[int, float]]) -> None:
    model, data, _ = oracle
    auto = ("--depth", "auto", "--data", data, "--max-drop", "100", "--half", "--gpus", "cpu")
    assert unetpp("prune", model, *auto, "-o", "a.safetensors").exit_code == 0
    shown = flat(unetpp("info", "a.safetensors").output.replace("│", " "))
    cost, change, choice = (origin("a.safetensors")[key] for key in ("cost", "half", "choice"))
    scores = ", ".join(f"L{depth} {100 * score:.2f} %" for depth, score in sorted(choice["miou"].items()))
    for text in (
        "pruned from depth 3 to 1",
        "logits of L1 proven identical before halving",
        f"chosen on val (2 images): max drop 100; mIoU {scores}",
        f"logits change by at most {100 * change['logits']:.3g} %",
        f"costs {cost['parameters']:,} parameters",
        f"and {cost['ms']:,.1f} ms at 64x48 (fp32 on CPU, ",
    ):
        assert text in shown, text


# --- refused: exit code 2, one line and a cure, nothing written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--depth", "three"], "--depth three is neither a number nor 'auto'. Write --depth 3, or"),
        (["--depth", ""], "neither a number"),
        (["--depth", "4", "--half"], "pruned upwards"),
        (["--depth", "2", "--max-ms", "3"], "--max-ms with --depth 2: nothing is left to choose. Write"),
        (["--depth", "2", "--max-drop", "3", "--max-mb", "1"], "--max-drop and --max-mb with"),
        (["--depth", "2", "--data", "{data}"], "a cut is proven and needs no data"),
        (["--depth", "2", "--split", "val"], "--split without --data"),
        (["--depth", "auto"], "--data is missing"),
        (["--depth", "auto", "--data", "{data}", "--max-drop", "-1"], "--max-drop is -1"),
        (["--depth", "auto", "--data", "{data}", "--max-ms", "0"], "--max-ms is 0"),
        (["--depth", "auto", "--data", "{data}", "--max-mb", "nan"], "--max-mb is nan"),
        (["--depth", "auto", "--data", "{data}", "--max-ms", "9", "--no-timing"], "--no-timing takes none"),
        (["--depth", "auto", "--data", "{data}", "--size", "huge"], "'huge' is no size"),
        (["--depth", "auto", "--data", "{data}", "--gpus", "7"], "--gpus 7"),
        (["--depth", "auto", "--data", "{data}", "-o", "a.pth"], "safetensors only"),
        (["--depth", "auto", "--data", "{data}", "-o", "{model}"], "is the model itself"),
        (["--depth", "auto", "--data", "nowhere"], "nowhere"),
        (["--depth", "auto", "--data", "{valless}"], "no val split to measure on. Choose --split train"),
    ],
)
def test_refusals(
    options: list[str],
    message: str,
    oracle: tuple[Path, Path, dict[int, float]],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model, data, _ = oracle
    files = {name: content for name, content in layouts.segnet()[0].items() if "/val" not in name}
    valless = layouts.to_folder(files, tmp_path_factory.mktemp("valless")) / "CamVid"
    before = sorted(model.parent.iterdir())
    names = {"model": model, "data": data, "valless": valless}
    result = unetpp("prune", model, *(option.format(**names) for option in options))
    assert result.exit_code == 2, result.output
    assert message in flat(result.stderr)
    assert len(result.stderr.strip().splitlines()) <= 2, "the problem and the cure"
    assert list(tmp_path.iterdir()) == []
    assert sorted(model.parent.iterdir()) == before


def test_one_head_leaves_nothing_to_choose(oracle: tuple[Path, Path, dict[int, float]]) -> None:
    model, data, _ = oracle
    assert prune(model, "--depth", 2, "--single-head", "-o", "one.safetensors").exit_code == 0
    result = prune("one.safetensors", "--depth", "auto", "--data", data)
    assert result.exit_code == 2
    assert "has one head, at depth 2: there is nothing to choose" in flat(result.output)


def test_weights_too_large_for_half_precision_write_nothing(tmp_path: Path) -> None:
    network = trained(width=4, depth=2)
    with torch.no_grad():
        network.head["1"].conv.weight[0, 0, 0, 0] = 1e6
    save_model("m.safetensors", network, header_for(network))
    result = prune("m.safetensors", "--depth", 1, "--half")
    assert result.exit_code == 2
    assert "beyond fp16's range" in flat(result.output)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
