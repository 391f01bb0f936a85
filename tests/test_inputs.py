"""What predict's arguments mean, where outputs go, and what is refused before a picture is opened."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import layouts
import pytest

from unetpp_cli.errors import UserError
from unetpp_cli.jobs.painting.inputs import Item, Scan
from unetpp_cli.jobs.painting.outputs import Existing, Look, Naming, parse_formats, refuse_collisions

FILES = dict.fromkeys(
    (
        "drive/a.png",
        "drive/b.JPG",
        "drive/below/a.png",
        "drive/below/deep/c.tif",
        "drive/notes.raw",
        "drive/.hidden.png",
        "drive/.git/x.png",
        "drive/__MACOSX/a.png",
        "drive/a_mask.png",  # an earlier predict's, beside a.png
        "drive/below/a_disagreement.png",
        "drive/c_mask.png",  # a picture: there is no c
    ),
    b"a scan opens no picture",
)
WHOLE = ["a.png", "b.JPG", "below/a.png", "below/deep/c.tif", "c_mask.png"]


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """The current folder, with `FILES` in it."""
    return layouts.to_folder(FILES, tmp_path)


def below(*inputs: object, output: str | None = None) -> list[str]:
    return [item.below for item in Scan([str(text) for text in inputs], output)]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["drive/a.png"], ["a.png"]),
        (["drive/notes.raw"], ["notes.raw"]),  # named, so wanted
        (["drive/a_mask.png"], ["a_mask.png"]),
        (["drive"], WHOLE),
        (["drive/"], WHOLE),
        (["./drive/below"], ["a.png", "deep/c.tif"]),
        (["drive/*.png"], ["a.png", "c_mask.png"]),
        (["drive/*"], ["a.png", "b.JPG", "c_mask.png"]),
        (["drive/*/*.png"], ["below/a.png"]),
        (["drive/**/*.[pt]*"], ["a.png", "c_mask.png", "below/a.png", "below/deep/c.tif"]),
        (["drive/*.raw"], ["notes.raw"]),  # nothing that looks like a picture: what matches
        (["drive/b.JPG", "drive/below"], ["b.JPG", "a.png", "deep/c.tif"]),
    ],
    ids=str,
)
def test_files_folders_and_globs(inputs: list[str], expected: list[str], drive: Path) -> None:
    items = list(Scan(inputs))
    assert [item.below for item in items] == expected
    for item in items:
        assert Path(item.name).is_file()
        assert Path(item.name).as_posix().endswith(item.below)
        assert Path(item.home) == Path(item.name).parent


def test_what_is_left_out_is_counted(drive: Path) -> None:
    scan = Scan(["drive", "drive/*.png"])
    list(scan)
    assert scan.left_out == 3  # a_mask.png twice, a_disagreement.png


@pytest.mark.parametrize(
    ("data", "names", "expected"),
    [
        (b"drive/a.png\n", ["drive/a.png"], ["a.png"]),
        (b"\xef\xbb\xbf# mine\r\n\r\n  drive/a.png \r\n", ["drive/a.png"], ["a.png"]),
        (b"drive/a.png\ndrive/below/a.png", ["drive/a.png", "drive/below/a.png"], ["a.png", "below/a.png"]),
        (b"x/1.png\ny/z/1.png\n", ["x/1.png", "y/z/1.png"], ["x/1.png", "y/z/1.png"]),
        (b"#1.png\0two\nlines.png\0 3.png\0", ["#1.png", "two\nlines.png", " 3.png"], None),
        ("caf\u00e9.png".encode("latin-1") + b"\n", [os.fsdecode(b"caf\xe9.png")], None),
    ],
)
@pytest.mark.parametrize("how", ["stdin", "file"])
def test_lists(
    how: str,
    data: bytes,
    names: list[str],
    expected: list[str] | None,
    drive: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how == "file":
        (drive / "list.txt").write_bytes(data)
    else:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    items = list(Scan(["-" if how == "stdin" else "@list.txt"]))
    assert [item.name for item in items] == names
    assert [item.below for item in items] == (expected or names)


def test_a_list_of_absolute_paths_keeps_the_tree_that_differs(drive: Path) -> None:
    (drive / "list.txt").write_text(f"{drive}/drive/below/a.png\n{drive}/drive/a.png\n")
    assert below("@list.txt") == ["below/a.png", "a.png"]


@pytest.mark.parametrize("pack", [layouts.to_zip, layouts.to_tar])
def test_archives_keep_their_tree(pack: Callable[..., Path], tmp_path: Path) -> None:
    name = "sub/cam.zip" if pack is layouts.to_zip else "sub/cam.tar"
    Path("sub").mkdir()
    pack(FILES, tmp_path / name)
    items = list(Scan([name]))
    assert sorted(item.below for item in items) == sorted(f"drive/{path}" for path in WHOLE)
    assert {item.home for item in items} == {"sub/cam_masks"}
    assert f"{name}/drive/a.png" in {item.name for item in items}


def test_linked_folders_are_followed_once_and_dangling_links_are_left_for_later(drive: Path) -> None:
    Path("drive/below/up").symlink_to(Path("drive").resolve())
    Path("drive/other").symlink_to(Path("elsewhere").absolute())
    layouts.to_folder({"elsewhere/e.png": b""}, drive)
    Path("drive/gone.png").symlink_to("nowhere.png")
    items = list(Scan(["drive"]))
    assert [item.below for item in items] == [*WHOLE, "gone.png", "other/e.png"]
    assert [item.below for item in items if item.is_link] == ["gone.png"]


def test_the_output_folder_is_no_input(drive: Path) -> None:
    layouts.to_folder({"drive/masks/a.png": b""}, drive)
    assert below("drive", output="drive/masks") == WHOLE
    assert "masks/a.png" in below("drive")
    Path("list.txt").write_text("drive/a.png\ndrive/masks/a.png\n")
    assert below("@list.txt", output="drive/masks") == ["a.png"]
    assert "masks/a.png" in below("drive/**/*.png")
    assert "masks/a.png" not in below("drive/**/*.png", output="drive/masks")


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["drive"], "drive"),
        (["./drive/below/.."], "drive/"),
        (["drive"], "link"),
        (["drive/*.png"], "drive"),
        (["drive/below/**/*.png"], "drive"),
        (["@list.txt"], "drive"),
    ],
    ids=str,
)
def test_masks_do_not_go_among_the_images(inputs: list[str], output: str, drive: Path) -> None:
    Path("link").symlink_to("drive")
    Path("list.txt").write_text("drive/a.png\ndrive/below/a.png\n")
    with pytest.raises(UserError, match=f"-o {output}: the masks would lie among the images"):
        list(Scan(inputs, output))


def written(inputs: list[str], output: str | None, formats: str = "palette") -> dict[str, list[str]]:
    """Image -> its outputs; they are written, too."""
    naming = Naming.choose(Look(parse_formats(formats)), output)
    items = list(Scan(inputs, output))
    refuse_collisions(items, naming)
    result = {item.name: list(naming.targets(item).values()) for item in items}
    for path in (path for paths in result.values() for path in paths):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    return result


@pytest.mark.parametrize("output", [None, "drive/masks", "elsewhere"])
@pytest.mark.parametrize("inputs", [["drive"], ["drive/**/*.[pJ]*"], ["drive/*", "drive/a.png"]], ids=str)
def test_a_second_run_means_the_same_pictures(inputs: list[str], output: str | None, drive: Path) -> None:
    layouts.to_folder({"drive/a.tif": b"", "drive/below/deep/c.png": b""}, drive)
    first = written(inputs, output, "palette,overlay")
    assert written(inputs, output, "palette,overlay") == first


def test_where_names_differ_in_the_suffix_alone_outputs_keep_it(drive: Path) -> None:
    layouts.to_folder({"cl/a.png": b"", "cl/a.jpg": b"", "cl/b.jpg": b"", "cl/c/a.jpg": b""}, drive)
    assert written(["cl"], "out", "palette,overlay") == {
        "cl/a.jpg": ["out/a.jpg.png", "out/a.jpg_overlay.png"],
        "cl/a.png": ["out/a.png.png", "out/a.png_overlay.png"],
        "cl/b.jpg": ["out/b.png", "out/b_overlay.png"],
        "cl/c/a.jpg": ["out/c/a.png", "out/c/a_overlay.png"],
    }
    beside = written(["cl/a.png", "./cl/a.jpg"], None)
    assert beside == {"cl/a.png": ["cl/a.png_mask.png"], "./cl/a.jpg": ["./cl/a.jpg_mask.png"]}


def test_archives_keep_suffixes_too(tmp_path: Path) -> None:
    layouts.to_zip({"d/a.png": b"", "d/a.jpg": b"", "e/a.png": b""}, tmp_path / "x.zip")
    names = [path for paths in written(["x.zip"], None).values() for path in paths]
    assert sorted(names) == ["x_masks/d/a.jpg.png", "x_masks/d/a.png.png", "x_masks/e/a.png"]


def test_a_file_that_is_given_twice_is_taken_once(drive: Path) -> None:
    Path("link").symlink_to("drive")
    assert [item.name for item in Scan(["drive/a.png", "drive/a.png", "./drive/../link/a.png"])] == [
        "drive/a.png"
    ]
    assert below("drive", "drive/*.png", "drive/below") == WHOLE


def test_a_folder_is_listed_without_a_look_at_its_files(drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a call per file: on a network's file system each may take a millisecond."""
    for number in range(300):
        Path(f"drive/below/{number}.png").touch()
    looks: list[object] = []

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def called(*args: object, **keys: object) -> object:
            looks.append(args)
            return real(*args, **keys)

        return called

    for name in ("stat", "lstat", "scandir", "open"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    items = list(Scan(["drive"]))
    refuse_collisions(items, Naming(Look(), "masks"))
    monkeypatch.undo()
    assert len(items) == len(WHOLE) + 300
    assert 3 <= len(looks) < 100, "a few per folder: to list it, to resolve it"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["none.png"], "There is no image none.png"),
        (["drive/*.gif"], "No file matches"),
        (["empty"], "The folder empty holds no image"),
        (["@none.txt"], "cannot read the list none.txt"),
        (["@blank.txt"], "no image in blank.txt"),
        (["notes.zip"], "holds no image"),
        (["cut.zip"], "is damaged"),
        (["x.tar.gz"], "compressed as a whole"),
        (["x.rar"], "is a RAR archive"),
    ],
    ids=str,
)
def test_what_means_no_picture_is_refused(inputs: list[str], message: str, drive: Path) -> None:
    Path("empty").mkdir()
    Path("blank.txt").write_text("# none\n")
    layouts.to_zip({"notes.txt": b""}, drive / "notes.zip")
    Path("cut.zip").write_bytes(Path("notes.zip").read_bytes()[:40])
    with tarfile.open("x.tar.gz", "w:gz") as archive:
        archive.add("drive/a.png")
    Path("x.rar").write_bytes(b"Rar!\x1a\x07\x01\x00" + bytes(100))
    with pytest.raises(UserError, match=message):
        list(Scan(inputs))


def picture(name: str, tree: str | None = None) -> Item:
    return Item(name, tree or Path(name).name, str(Path(name).parent))


ALL = Look(("palette", "color", "index", "overlay", "probs"), confidence=True)


@pytest.mark.parametrize(
    ("look", "output", "expected"),
    [
        (Look(), None, ["in/x_mask.png"]),
        (Look(("overlay", "palette")), None, ["in/x_overlay.png", "in/x_mask.png"]),
        (Look(), "out", ["out/sub/x.png"]),
        (Look(), "out.d/", ["out.d/sub/x.png"]),
        (Look(("color",)), "out", ["out/sub/x.png"]),
        (Look(("overlay", "palette")), "out", ["out/sub/x.png", "out/sub/x_mask.png"]),
        (Look(("probs", "index")), "out", ["out/sub/x.npz", "out/sub/x_index.png"]),
        (Look(), "there/m.png", ["there/m.png"]),
        (Look(("palette", "overlay")), "m_mask.png", ["m_mask.png", "m_overlay.png"]),
        (Look(("probs", "palette")), "p.npz", ["p.npz", "p_mask.png"]),
        (
            ALL,
            "out",
            [
                f"out/sub/x{ending}"
                for ending in (
                    ".png",
                    "_color.png",
                    "_index.png",
                    "_overlay.png",
                    "_probs.npz",
                    "_entropy.png",
                    "_disagreement.png",
                )
            ],
        ),
    ],
)
def test_names(look: Look, output: str | None, expected: Sequence[str]) -> None:
    naming = Naming.choose(look, output)
    assert list(naming.targets(picture("in/x.jpg", "sub/x.jpg")).values()) == expected


def test_one_head_does_not_disagree() -> None:
    naming = Naming.choose(Look(confidence=True), None).for_heads(1)
    assert set(naming.targets(picture("x.png"))) == {"palette", "entropy"}


def test_a_folder_may_be_called_like_a_picture() -> None:
    Path("out.png").mkdir()
    assert Naming.choose(Look(), "out.png").targets(picture("x.jpg")) == {"palette": "out.png/x.png"}


@pytest.mark.parametrize(
    ("look", "output", "message"),
    [
        (Look(), "m.jpg", "masks are PNG files"),
        (Look(), "p.npz", "masks are PNG files"),
        (Look(("probs",)), "m.png", r"probabilities are \.npz files"),
    ],
)
def test_names_of_the_wrong_kind_are_refused(look: Look, output: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Naming.choose(look, output)


def test_formats() -> None:
    assert parse_formats(" Palette,probs,palette") == ("palette", "probs")
    with pytest.raises(UserError, match=r"no format 'overly'.*Did you mean 'overlay'"):
        parse_formats("palette,overly")
    with pytest.raises(UserError, match="no format ''"):
        parse_formats("palette,")


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (Look(legend=True), "--legend .*--format palette,overlay"),
        (Look(("index", "probs"), side_by_side=True), "--side-by-side .*--format index,probs,overlay"),
        (Look(("color",), opacity=0.7), "--opacity .*--format color,overlay"),
        (Look(("overlay",), opacity=1.5), "--opacity 1.5 is not within"),
        (Look(("overlay",), opacity=float("nan")), "--opacity nan is not within"),
    ],
)
def test_options_without_effect_are_refused(look: Look, message: str) -> None:
    with pytest.raises(UserError, match=message):
        look.check()


# --- collisions: (files, links, inputs, -o, format) -> what is said, or None


COLLISIONS = [
    (["d/a.png", "d/a.jpg"], {}, ["d"], "out", "palette", None),
    (["d/a.png", "d/a.jpg"], {}, ["d"], None, "palette", None),
    (["d/a.png", "d/a.jpg", "d/a.jpg.png"], {}, ["d"], "out", "palette", "would both write .*Rename one"),
    (["d/a.png", "d/b/a.png"], {}, ["d"], "out", "palette", None),
    (["d/a.png", "e/a.png"], {}, ["d", "e"], "out", "palette", "would both write .*one after the other"),
    (["d/a.png", "e/a.png"], {}, ["d/a.png", "e/a.png"], None, "palette", None),
    (["d/a.png"], {}, ["d/a.png", "./d/a.png"], None, "palette", None),
    (["d/a.png"], {}, ["d/a.png", "d/../d/a.png"], "out", "palette", None),
    (["d/a.png"], {"out": "d"}, ["d/a.png"], "out", "palette", "would replace the image"),
    (["d/a.png"], {"l.png": "d/a.png"}, ["l.png"], "d/a.png", "palette", "would replace the image"),
    (["d/a.png", "e/b.png"], {"e/a.png": "d/a.png"}, ["e"], "d", "palette", "would replace the image"),
    (["d/a.jpg"], {"out": "d"}, ["d/a.jpg"], "out", "palette", None),
    (["d/a.png", "d/a_overlay.jpg"], {}, ["d"], "out", "palette,overlay", r"both write out/a_overlay\.png"),
    (["d/a.png", "d/a_overlay.jpg"], {}, ["d"], "out", "palette", None),
]


@pytest.mark.parametrize(("files", "links", "inputs", "output", "formats", "message"), COLLISIONS)
def test_collisions(
    files: list[str],
    links: dict[str, str],
    inputs: list[str],
    output: str | None,
    formats: str,
    message: str | None,
    tmp_path: Path,
) -> None:
    layouts.to_folder(dict.fromkeys(files, b""), tmp_path)
    for link, target in links.items():
        Path(link).symlink_to(Path(target).absolute())
    naming = Naming.choose(Look(parse_formats(formats)), output)
    if message is None:
        refuse_collisions(Scan(inputs, output), naming)
    else:
        with pytest.raises(UserError, match=message):
            refuse_collisions(Scan(inputs, output), naming)


def test_existing_lists_each_folder_once(tmp_path: Path) -> None:
    layouts.to_folder({"d/a.png": b"", "d/b.png": b"", "c.png": b""}, tmp_path)
    existing = Existing()
    assert existing.all(["d/a.png", "d/b.png", "c.png"])
    assert not existing.all(["d/a.png", "d/c.png"])
    assert not existing.all(["nowhere/a.png"])
