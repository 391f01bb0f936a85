"""The commands from end to end, on real files, in this process: what they write, say and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import layouts
import networks
import numpy as np
import pytest
from conftest import TINY, unetpp
from PIL import Image

from unetpp_cli.cli.app import SPINS, main
from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.masks import read_mask
from unetpp_cli.network.header import read_header
from unetpp_cli.network.weights import load_model
from unetpp_cli.report.history import read_history


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- train


def test_train_leaves_a_run(run: Path) -> None:
    weights = {f"weights/{name}.safetensors" for name in ("best", "last", "epoch-0001", "epoch-0002")}
    pictures = {f"{name}.png" for name in ("augment", "classes", "confusion", "curves", "samples")}
    kept = {"config.yaml", "history.csv", "history.jsonl", "run.json", "state.safetensors"}
    first = {path for path in tree(run) if path.startswith("samples/") and path.endswith("-epoch-1.png")}
    assert len(first) == 2, "both val frames"
    assert tree(run) == {*kept, *pictures, *weights, *first}
    records = read_history(run / "history.csv")
    assert [record.epoch for record in records] == [1, 2]
    assert all(set(record.val) == {1, 2} for record in records)
    best = max(records, key=lambda record: record.val[2].miou)
    header, _ = read_header(run / "weights/best.safetensors")
    assert header.metrics["epoch"] == best.epoch
    assert header.metrics["val"]["2"]["miou"] == best.val[2].miou
    assert header.classes == CAMVID11
    assert header.architecture.heads == (1, 2)
    assert str(header.geometry) == "fit 48"
    assert header.data["train"] == 5
    assert header.recipe["epochs"] == 2
    for name in pictures:
        with Image.open(run / name) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10


def test_equal_runs_give_equal_bytes_whatever_the_workers(run: Path, camvid: Path) -> None:
    result = unetpp("train", "--data", camvid, "--workers", 2, "--cache", "off", *TINY)
    assert result.exit_code == 0, result.output
    again = Path("runs/camvid-quick/weights/last.safetensors")
    assert again.read_bytes() == (run / "weights/last.safetensors").read_bytes()
    other = unetpp("train", "--data", camvid, "--seed", 18, *TINY)
    assert other.exit_code == 0, other.output
    assert Path("runs/camvid-quick-2/weights/last.safetensors").read_bytes() != again.read_bytes()


def test_config_yaml_repeats_a_run(run: Path, tmp_path: Path) -> None:
    result = unetpp("train", "--config", run / "config.yaml", "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    last = "weights/last.safetensors"
    assert (tmp_path / "again" / last).read_bytes() == (run / last).read_bytes()


def test_a_run_never_overwrites_another(run: Path, camvid: Path) -> None:
    before = {name: (run / name).read_bytes() for name in tree(run)}
    result = unetpp("train", "--data", camvid, "--out", run, *TINY)
    assert result.exit_code == 2
    assert "exists already" in result.output
    assert before == {name: (run / name).read_bytes() for name in tree(run)}


def test_train_says_what_it_found_and_what_comes_next(camvid: Path) -> None:
    result = unetpp("train", "--data", camvid, *TINY)
    assert "SegNet layout, 11 classes + void 11, 5 train / 2 val / 3 test" in result.output
    assert "unetpp eval runs/camvid-quick" in result.output


def test_without_a_recipe_and_a_gpu_it_is_quick_and_says_so(camvid: Path) -> None:
    result = unetpp("train", "--data", camvid, *TINY[2:])
    assert result.exit_code == 0, result.output
    assert "Without a GPU the recipe is 'quick'" in result.output
    assert "--recipe camvid" in result.output


def test_training_on_data_without_val(tmp_path: Path) -> None:
    files, _ = layouts.segnet()
    kept = {name: data for name, data in files.items() if "/val" not in name}
    result = unetpp("train", "--data", layouts.to_folder(kept, tmp_path / "data"), *TINY)
    assert result.exit_code == 0, result.output
    assert "no val split" in result.output
    runs = list(Path("runs").iterdir())
    assert "weights/last.safetensors" in tree(runs[0])
    assert "weights/best.safetensors" not in tree(runs[0])


@pytest.mark.parametrize("layout", sorted(layouts.LAYOUTS))
def test_every_layout_can_be_trained_on(layout: str, tmp_path: Path) -> None:
    """From files to weights with no option but --data: the splits, sizes and classes all fit together."""
    files, expected = layouts.LAYOUTS[layout]()
    data = layouts.to_folder(files, tmp_path / "data")
    result = unetpp("train", "--data", data, "--out", "out", *TINY, "--epochs", 1, "--set", "batch_size=1")
    assert result.exit_code == 0, result.output
    header, _ = read_header("out/weights/last.safetensors")
    assert header.classes.name == expected.classes


def test_grey_images_and_one_head(camvid: Path) -> None:
    settings = ["channels=1", "mean=[0.4]", "std=[0.3]", "deep_supervision=false"]
    extra = [part for setting in settings for part in ("--set", setting)]
    result = unetpp("train", "--data", camvid, "--out", "grey", *TINY, *extra)
    assert result.exit_code == 0, result.output
    architecture = read_header("grey/weights/last.safetensors")[0].architecture
    assert (architecture.in_channels, architecture.heads) == (1, (2,))
    image = next((camvid / "test").glob("*.png"))
    assert unetpp("predict", image, "-o", "m.png", "--model", "grey").exit_code == 0


# --- eval and prune


def scores(*args: object) -> dict[str, object]:
    result = unetpp("eval", *args, "--json", "--no-timing")
    assert result.exit_code == 0, result.output
    parsed: dict[str, object] = json.loads(result.stdout)
    return parsed


def test_eval_prints_a_table_per_depth_and_class(model: Path, camvid: Path) -> None:
    result = unetpp("eval", model, "--data", camvid)
    assert result.exit_code == 0, result.output
    for text in ("L1", "L2", "ensemble", "mIoU", "ms", "Bicyclist", "Split: test, 3 images"):
        assert text in result.output


def test_eval_json_holds_fractions(model: Path, camvid: Path) -> None:
    data = scores(model, "--data", camvid, "--split", "val")
    assert data["split"] == "val"
    depths = data["depths"]
    assert isinstance(depths, dict)
    assert set(depths) == {"1", "2"}
    for row in [*depths.values(), data["ensemble"]]:
        assert 0 <= row["miou"] <= 1
        assert 0 < row["pixel_accuracy"] <= 1
    header, _ = read_header(model)
    assert depths["2"]["miou"] == pytest.approx(header.metrics["val"]["2"]["miou"], abs=1e-12)


def test_the_run_knows_its_data(run: Path, camvid: Path) -> None:
    assert scores(run)["depths"] == scores(run, "--data", camvid)["depths"]


def test_a_pruned_model_scores_exactly_as_before(model: Path, camvid: Path) -> None:
    result = unetpp("prune", "--depth", 1, model, "-o", "small.safetensors")
    assert result.exit_code == 0, result.output
    assert "bit for bit" in result.output
    before, after = scores(model, "--data", camvid), scores("small.safetensors", "--data", camvid)
    assert isinstance(before["depths"], dict)
    assert isinstance(after["depths"], dict)
    # What prune found out stands in the header and was not foreseen: some hundred bytes.
    weighed = [some["depths"]["1"].pop("file_bytes") for some in (before, after)]
    assert 0 < weighed[1] - weighed[0] < 2048
    assert after["depths"] == {"1": before["depths"]["1"]}


def test_prune_names_the_file_by_its_depth(model: Path) -> None:
    copy = Path("m.safetensors")
    copy.write_bytes(model.read_bytes())
    assert unetpp("prune", "--depth", 1, copy).exit_code == 0
    assert load_model("m-L1.safetensors").network.depth == 1


@pytest.mark.parametrize("pack", [layouts.to_zip, layouts.to_tar])
def test_an_archive_is_as_good_as_the_folder(pack: object, model: Path, camvid: Path, tmp_path: Path) -> None:
    name = "camvid.zip" if pack is layouts.to_zip else "camvid.tar"
    archive = pack(layouts.segnet()[0], tmp_path / name)  # type: ignore[operator]
    assert scores(model, "--data", archive)["depths"] == scores(model, "--data", camvid)["depths"]


def test_a_model_of_11_classes_scores_on_data_of_32(model: Path, camvid: Path, tmp_path: Path) -> None:
    original = layouts.to_folder(layouts.original()[0], tmp_path / "original")
    assert scores(model, "--data", original)["depths"] == scores(model, "--data", camvid)["depths"]


# --- predict


@pytest.fixture
def pictures(camvid: Path, tmp_path: Path) -> Path:
    """A folder of three pictures, one of them in a folder below."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    sources = sorted((camvid / "test").glob("*.png"))
    for source, name in zip(sources, ("a.png", "b.jpg", "below/c.png"), strict=True):
        with Image.open(source) as image:
            image.resize((70, 51)).save(folder / name)
    return folder


def test_predict_paints_a_palette_png(model: Path, pictures: Path) -> None:
    wish = ["-o", "out/mask.png", "--model", model, "--precision", "fp32"]
    result = unetpp("predict", pictures / "a.png", *wish)
    assert result.exit_code == 0, result.output
    assert str(model) in result.output
    mask, text = read_mask("out/mask.png")
    with Image.open("out/mask.png") as image:
        assert (image.mode, image.size) == ("P", (70, 51))
        palette = image.getpalette()
    assert palette is not None
    for index in np.unique(mask):
        assert tuple(palette[3 * index : 3 * index + 3]) == CAMVID11.colors[index]
    loaded = load_model(model)
    assert text["Model"] == loaded.hash
    assert (text["Depth"], text["Precision"]) == ("2", "fp32")
    assert "Bicyclist" in str(text)


def test_predict_a_folder_mirrors_its_tree(model: Path, pictures: Path) -> None:
    result = unetpp(
        "predict", pictures, "-o", "masks", "--model", model, "--format", "palette,overlay", "--legend"
    )
    assert result.exit_code == 0, result.output
    names = {"a.png", "b.png", "below/c.png"}
    assert tree(Path("masks")) == names | {name.replace(".png", "_overlay.png") for name in names}


def test_predict_beside_the_image_and_twice(model: Path, pictures: Path) -> None:
    before = tree(pictures)
    for _ in range(2):  # the second time its own masks lie there, too, and are no pictures
        assert unetpp("predict", pictures, "--model", model).exit_code == 0
    assert tree(pictures) == before | {"a_mask.png", "b_mask.png", "below/c_mask.png"}


def test_predict_depth_and_ensemble_differ_and_say_so(model: Path, pictures: Path) -> None:
    image = pictures / "a.png"
    pixels = []
    for number, options in enumerate([[], ["--depth", 1], ["--ensemble"]]):
        assert unetpp("predict", image, "-o", f"{number}.png", "-m", model, *options).exit_code == 0
        mask, text = read_mask(f"{number}.png")
        pixels.append((mask.tobytes(), text["Depth"]))
    assert len(set(pixels)) == 3
    assert [depth for _, depth in pixels] == ["2", "1", "ensemble of 1, 2"]
    unetpp("prune", "--depth", 1, model, "-o", "small.safetensors")
    unetpp("predict", image, "-o", "small.png", "-m", "small.safetensors")
    assert read_mask("small.png")[0].tobytes() == pixels[1][0]


def test_predict_globs_and_broken_images(model: Path, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    result = unetpp("predict", str(pictures / "*.*"), "-o", "masks", "--model", model)
    assert result.exit_code == 1
    assert "broken.png" in result.output
    assert "1 of 3" in result.output
    assert tree(Path("masks")) == {"a.png", "b.png"}


def test_predict_finds_the_newest_run(run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Path("runs/mine/weights")
    weights.mkdir(parents=True)
    (weights / "best.safetensors").write_bytes((run / "weights/best.safetensors").read_bytes())
    result = unetpp("predict", pictures / "a.png")
    assert result.exit_code == 0
    assert "runs/mine/weights/best.safetensors (the newest run)" in result.output
    monkeypatch.setenv("UNETPP_MODEL", str(run / "weights/last.safetensors"))
    assert f"{run}/weights/last.safetensors" in unetpp("predict", pictures / "a.png").output


# --- what is refused: one message that names the thing and the cure, exit code 2, nothing written


REFUSED = [
    (["train"], "--data is missing"),
    (["train", "--data", "nowhere"], "nowhere"),
    (["train", "--data", "{camvid}", "--recipe", "quik"], "Did you mean 'quick'?"),
    (["train", "--data", "{camvid}", "--epoch", "3"], "--epochs"),
    (["train", "--data", "{camvid}", "--set", "epoch=3"], "Did you mean 'epochs'?"),
    (["train", "--data", "{camvid}", "--set", "epochs"], "has no '='"),
    (["train", "--data", "{camvid}", "--lr", "-1"], "lr is -1"),
    (["train", "--data", "{camvid}", "--config", "none.yaml"], "none.yaml"),
    (["train", "--data", "{camvid}", "--classes", "camvid12"], "camvid12"),
    (["train", "--data", "{camvid}", "--classes", "camvid32"], "camvid32"),
    (["train", "--data", "{camvid}", "--gpus", "7"], "--gpus 7"),
    (["train", "--data", "{camvid}", "--gpus", "one"], "--gpus one"),
    (["train", "--data", "{camvid}", "--size", "huge"], "'huge' is no size"),
    (["train", "--data", "{camvid}", "--set", "augment=[Flop]"], "Flop"),
    (["eval", "{model}", "--data", "{camvid}", "--split", "dev"], "dev"),
    (["eval", "{model}", "--data", "{camvid}", "--gpus", "7"], "--gpus 7"),
    (["eval", "none.safetensors", "--data", "{camvid}"], "none.safetensors"),
    (["eval", "{plain}", "--data", "{camvid}"], "no safetensors file"),
    (["predict", "none.png", "--model", "{model}"], "none.png"),
    (["predict", "{image}", "--model", "{model}", "--depth", "4"], "It has 1, 2"),
    (["predict", "{image}", "--model", "{model}", "-o", "mask.jpg"], ".png"),
    (["predict", "{image}", "{image2}", "--model", "{model}", "-o", "mask.png"], "Give a folder"),
    (["predict", "{image}", "--model", "{model}", "-o", "{image}"], "would replace the image"),
    (["prune", "{model}", "--depth", "3"], "3"),
    (["prune", "{model}", "--depth", "0"], "0"),
    (["prune", "{model}"], "--depth"),
    (["info", "none.safetensors"], "none.safetensors"),
    (["info", "{plain}"], "no safetensors file"),
    (["check", "nowhere"], "nowhere"),
    (["convert", "none.pth", "-o", "x.safetensors"], "none.pth"),
    (["demo", "{camvid}"], "not empty"),
    (["trian"], "Did you mean 'train'?"),
]


@pytest.mark.parametrize(("args", "message"), REFUSED, ids=[" ".join(args[:4]) for args, _ in REFUSED])
def test_refusals(args: list[str], message: str, model: Path, camvid: Path, tmp_path: Path) -> None:
    plain = tmp_path / "inputs" / "plain.txt"
    plain.parent.mkdir()
    plain.write_text("hello, this is no model at all")
    image, image2 = sorted((camvid / "test").glob("*.png"))[:2]
    names = {"camvid": camvid, "model": model, "plain": plain, "image": image, "image2": image2}
    (tmp_path / "empty").mkdir()
    result = unetpp(*(arg.format(**names) for arg in args))
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert tree(tmp_path) == {"inputs/plain.txt"}, "nothing may be left behind"


# --- help


COMMANDS = ["train", "eval", "predict", "prune", "check", "info", "convert", "demo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_and_an_explanation_of_everything(command: str) -> None:
    result = unetpp(command, "--help")
    assert result.exit_code == 0
    assert result.output.count(f"unetpp {command} ") >= 3, "the usage line and two examples"


def test_the_front_page_names_every_command() -> None:
    result = unetpp("--help")
    assert all(f"  {command}" in result.output for command in COMMANDS)
    assert unetpp("--version").output.startswith("unetpp 0.")


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["--show-completion"],
        *[[command, "--help"] for command in COMMANDS],
        ["train", "--epoch", "3"],
        ["train", "--data", "demo", "--set", "lr=fast"],
        ["train", "--data", "demo", "--gpus", "one"],
        ["trian"],
        ["info", "{model}"],
        ["info", "{model}", "--json"],
        ["info", "none.safetensors"],
    ],
    ids=" ".join,
)
def test_no_torch_for_answers_that_need_none(args: list[str], model: Path) -> None:
    code = (
        "import sys\n"
        "from unetpp_cli.cli import main\n"
        f"sys.argv = ['unetpp', *{[arg.format(model=model) for arg in args]!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'albumentations', 'matplotlib', 'cv2', 'scipy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, unetpp_cli; print(sorted({'torch', 'numpy', 'PIL', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import unetpp_cli

    for name in unetpp_cli.__all__:
        assert getattr(unetpp_cli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unetpp_cli.nothing


# --- the model card


def test_a_card_says_what_a_hub_wants_to_know(model: Path) -> None:
    import yaml

    result = unetpp("info", model, "--card")
    assert result.exit_code == 0, result.output
    _, front, body = result.stdout.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["pipeline_tag"] == "image-segmentation"
    assert facts["license"] == "other"  # CamVid's
    header = read_header(model)[0]
    for depth in ("1", "2"):
        score = 100 * header.metrics["val"][depth]["miou"]
        assert f"| L{depth} | {score:.1f} |" in body
    for name in header.classes.names:
        assert f"| {name} |" in body
    assert header.data["fingerprint"] in body
    assert "non-commercial" in body
    recipe = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
    assert recipe == dict(header.recipe)
    assert unetpp("info", model, "--card").stdout == result.stdout
    assert unetpp("info", model, "--card", "--json").exit_code == 2
    assert "heads at L1, L2; cut at any of them" in body
    one = networks.saved(Path(), width=2, depth=2, heads=(2,))
    alone = unetpp("info", one, "--card").stdout
    assert "with one head, at L2." in alone
    assert "cut" not in alone


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_that_wait_leave_the_cores_to_others(
    given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "x")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["unetpp", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
