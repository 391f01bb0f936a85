"""`unetpp relabel`: every layout as every other, bit for bit, or a refusal."""

from __future__ import annotations

from pathlib import Path

import layouts
import numpy as np
import pytest
from conftest import unetpp
from layouts import ALL, FRAMES, TRAIN, VAL, truth11

from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.jobs.relabel import LAYOUTS

SOURCES = {
    "original": layouts.original,
    "segnet": layouts.segnet,
    "kaggle": layouts.kaggle,
    "fastai": layouts.fastai,
    "cvat_colors": layouts.cvat_colors,
    "cvat_default": layouts.cvat_default,
    "plain": layouts.plain,
}


def masks(data: Dataset) -> dict[str, np.ndarray]:
    return {Path(pair.stem).name: data.read_mask(pair) for pair in data.pairs()}


@pytest.mark.parametrize("to", LAYOUTS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_layout_as_every_other(source: str, to: str, tmp_path: Path) -> None:
    files, expected = SOURCES[source]()
    folder = layouts.to_folder(files, tmp_path / "from")
    result = unetpp("relabel", folder, "-o", "made", "--to", to)
    if source == "cvat_colors" and to == "fastai":  # without val.txt its images would be split at random
        assert result.exit_code == 2
        assert "would read back otherwise" in result.output
        assert [path.name for path in Path().iterdir()] == ["from"]
        return
    assert result.exit_code == 0, result.output
    assert "read back equal" in result.output
    before, after = open_dataset(folder), open_dataset("made")
    kept = {split for split in before.splits if split in LAYOUTS[to].splits}
    assert set(after.splits) == kept
    there = masks(after)
    for split in kept:
        stems = [Path(pair.stem).name for pair in before.splits[split]]
        names = [stem.replace(" ", "_") for stem in stems]
        assert sorted(Path(pair.stem).name for pair in after.splits[split]) == sorted(names)
        for stem, name in zip(stems, names, strict=True):
            assert np.array_equal(there[name], expected.mask(stem))
    pair = after.splits["train"][0]
    own = next(
        one for one in before.splits["train"] if Path(one.stem).name.replace(" ", "_") == Path(pair.stem).name
    )
    assert after.source.read(pair.image) == before.source.read(own.image)
    assert sorted(path.name for path in Path().iterdir()) == ["from", "made"]


def test_the_original_becomes_the_benchmark(tmp_path: Path) -> None:
    """32 colours to SegNet's 11 indices, in folders that other programs know."""
    files, _ = layouts.original()
    folder = layouts.to_folder(files, tmp_path / "from")
    result = unetpp("relabel", folder, "-o", "camvid", "--to", "segnet", "--classes", "camvid11")
    assert result.exit_code == 0, result.output
    theirs, _ = layouts.segnet()
    for split, stems in ALL.items():
        assert Path(f"camvid/{split}.txt").read_bytes() == theirs[f"CamVid/{split}.txt"]
        for stem in stems:
            image, mask = (
                open_dataset("camvid").source.read(f"{split}{kind}/{stem}.png") for kind in ("", "annot")
            )
            assert image == theirs[f"CamVid/{split}/{stem}.png"]
            assert np.array_equal(decode(mask), decode(theirs[f"CamVid/{split}annot/{stem}.png"]))
    assert {Path(pair.stem).name for pair in open_dataset("camvid").pairs()} == set(FRAMES)
    assert np.array_equal(masks(open_dataset("camvid"))[TRAIN[0]], truth11(TRAIN[0]))


def decode(data: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


def test_what_a_layout_has_no_place_for_is_said(tmp_path: Path) -> None:
    folder = layouts.to_folder(layouts.segnet()[0], tmp_path / "from")
    result = unetpp("relabel", folder, "-o", "made", "--to", "fastai")
    assert result.exit_code == 0, result.output
    assert "fastai has no test split: 3 images" in result.output
    assert sorted(Path("made/valid.txt").read_text("utf-8").split()) == sorted(f"{stem}.png" for stem in VAL)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["-o", "made", "--to", "segnt"], "Did you mean 'segnet'?"),
        (["-o", "from"], "from exists already"),
        (["-o", "made", "--classes", "camvid32"], "camvid32"),
    ],
)
def test_refusals(args: list[str], named: str, tmp_path: Path) -> None:
    layouts.to_folder(layouts.segnet()[0], tmp_path / "from")
    before = {path: path.stat().st_mtime_ns for path in Path("from").rglob("*")}
    result = unetpp("relabel", "from", *args)
    assert result.exit_code == 2
    assert named in result.output
    assert {path: path.stat().st_mtime_ns for path in Path("from").rglob("*")} == before
    assert [path.name for path in Path().iterdir()] == ["from"]


def test_no_image_is_written_over_another(tmp_path: Path) -> None:
    files, _ = layouts.plain()
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        files[f"{folder}/x y.{suffix}"] = files[f"{folder}/a.{suffix}"]
        files[f"{folder}/x_y.{suffix}"] = files[f"{folder}/b.{suffix}"]
    files["train.txt"] = b"a\nb\nc\nx_y"
    files = {
        name: data for name, data in files.items() if not name.endswith(("train.txt", "val.txt", "test.txt"))
    }
    layouts.to_folder(files, tmp_path / "from")
    result = unetpp("relabel", "from", "-o", "made")
    assert result.exit_code == 2
    assert "Several images would be called x_y" in result.output
    assert [path.name for path in Path().iterdir()] == ["from"]


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    layouts.to_folder(layouts.segnet()[0], tmp_path / "from")
    Path("file").write_bytes(b"")
    result = unetpp("relabel", "from", "-o", "file/made")
    assert result.exit_code == 2
    assert "Cannot write file/made" in result.output
