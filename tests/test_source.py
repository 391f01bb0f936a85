"""Folders, archives and memory give the same files, in every process; what cannot be read is refused."""

from __future__ import annotations

import concurrent.futures
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import layouts
import pytest
from PIL import Image

from unetpp_cli.data.source import MemorySource, Source, open_source
from unetpp_cli.errors import UserError

FILES = {
    "a.txt": "\ufefföne".encode(),
    "deep/er/x.png": layouts.encode(layouts.photo("x")),
    "deep/y.bin": bytes(range(256)) * 9,
}
LITTER = {".DS_Store": b"1", "deep/._x.png": b"2", "__MACOSX/deep/x.png": b"3", "deep/Thumbs.db": b"4"}

WRITERS: dict[str, Callable[[dict[str, bytes], Path], Path]] = {
    "folder": lambda files, place: layouts.to_folder(files, place / "data"),
    "zip": lambda files, place: layouts.to_zip(files, place / "data.zip"),
    "tar": lambda files, place: layouts.to_tar(files, place / "data.tar"),
}


@pytest.fixture(params=[*WRITERS, "memory"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    if request.param == "memory":
        return MemorySource("memory", FILES)
    return open_source(WRITERS[request.param](FILES | LITTER, tmp_path))


def test_every_kind_of_source_gives_the_same_files(source: Source) -> None:
    assert source.files == ("a.txt", "deep/er/x.png", "deep/y.bin")
    assert {name: source.read(name) for name in source.files} == FILES
    assert source.text("a.txt") == "öne"


def test_a_stream_can_be_read_in_any_order(source: Source) -> None:
    with source.open("deep/y.bin") as stream:
        stream.seek(250)
        assert stream.read(10) == FILES["deep/y.bin"][250:260]
        stream.seek(0)
        assert stream.read() == FILES["deep/y.bin"]
    with source.open("deep/er/x.png") as stream, Image.open(stream) as image:
        assert image.size == (layouts.WIDTH, layouts.HEIGHT)


def _read(source: Source, name: str) -> bytes:
    return source.read(name)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_too(source: Source, start: str) -> None:
    before = source.read("deep/y.bin")  # opens the archive here first
    context = multiprocessing.get_context(start)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        names = list(source.files) * 4
        assert list(pool.map(_read, [source] * len(names), names)) == [FILES[name] for name in names]
    assert source.read("deep/y.bin") == before


def test_forked_workers_share_no_position_in_a_zip(tmp_path: Path) -> None:
    source = open_source(WRITERS["zip"](FILES, tmp_path))
    source.read("a.txt")
    ours = source._archive().fp.fileno()  # type: ignore[attr-defined]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        source.read("a.txt")
        os.write(writing, str(source._archive().fp.fileno()).encode())  # type: ignore[attr-defined]
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 9)) != ours


def test_pickling_needs_no_open_file(tmp_path: Path) -> None:
    source = open_source(WRITERS["zip"](FILES, tmp_path))
    source.read("a.txt")
    assert pickle.loads(pickle.dumps(source)).read("a.txt") == FILES["a.txt"]


@pytest.mark.parametrize("kind", WRITERS)
def test_relative_paths_outlive_a_change_of_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = WRITERS[kind](FILES, tmp_path)
    monkeypatch.chdir(tmp_path)
    source = open_source(place.name)
    monkeypatch.chdir("/")
    assert source.read("deep/y.bin") == FILES["deep/y.bin"]
    assert source.where("a.txt") == f"{place.name}/a.txt"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_leave_the_archive_are_left_out(kind: str, tmp_path: Path) -> None:
    files = {
        "../evil.png": b"1",
        "ok/../../evil.png": b"2",
        "/abs.png": b"3",
        "./dot.png": b"4",
        "win\\x.png": b"5",
    }
    source = open_source(WRITERS[kind](files, tmp_path))
    assert source.files == ("abs.png", "dot.png", "win/x.png")
    assert [source.read(name) for name in source.files] == [b"3", b"4", b"5"]


def test_links_in_a_tar_lead_to_their_files(tmp_path: Path) -> None:
    path = layouts.to_tar({"a/x.png": b"pixels"}, tmp_path / "data.tar")
    with tarfile.open(path, "a") as archive:
        for name, kind, target in (
            ("b/soft.png", tarfile.SYMTYPE, "../a/x.png"),
            ("hard.png", tarfile.LNKTYPE, "a/x.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    source = open_source(path)
    assert source.read("b/soft.png") == source.read("hard.png") == b"pixels"


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    layouts.to_folder({"real/x.png": b"1"}, tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "elsewhere")
    assert open_source(tmp_path / "data").files == ("link/real/x.png",)


def test_the_two_original_zips_in_a_folder_are_read_as_they_are(tmp_path: Path) -> None:
    layouts.to_zip({"701_StillsRaw_full/a.png": b"image"}, tmp_path / "701_StillsRaw_full.zip")
    layouts.to_zip({"a_L.png": b"label", "Thumbs.db": b""}, tmp_path / "LabeledApproved_full.zip")
    (tmp_path / "label_colors.txt").write_bytes(b"0 0 0 Void")
    source = open_source(tmp_path)
    assert {"701_StillsRaw_full/a.png", "LabeledApproved_full/a_L.png", "label_colors.txt"} <= {*source.files}
    assert source.read("701_StillsRaw_full/a.png") == b"image"
    assert source.read("LabeledApproved_full/a_L.png") == b"label"
    assert source.read("label_colors.txt") == b"0 0 0 Void"
    assert source.where("LabeledApproved_full/a_L.png") == f"{tmp_path}/LabeledApproved_full.zip/a_L.png"


def _packed(path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("x.png"), io.BytesIO())
    return path


def _cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _broken_header(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    second = data.index(b"deep/er/x.png")
    data[second + 150] ^= 0xFF
    path.write_bytes(data)
    return path


def _encrypted(path: Path) -> Path:
    data = bytearray(layouts.to_zip({"x.png": b"1"}, path).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda place: place / "nothing", "no folder or archive"),
    "empty folder": (lambda place: layouts.to_folder({}, place), "is empty"),
    "only litter": (lambda place: layouts.to_folder(LITTER, place), "is empty"),
    "empty zip": (lambda place: layouts.to_zip({}, place / "a.zip"), "is empty"),
    "tar.gz": (lambda place: _packed(place / "a.tar.gz", "w:gz"), "Unpack it and give the folder, or repack"),
    "tar.bz2": (
        lambda place: _packed(place / "a.tar.bz2", "w:bz2"),
        "Unpack it and give the folder, or repack",
    ),
    "tar.xz": (lambda place: _packed(place / "a.tar.xz", "w:xz"), "Unpack it and give the folder, or repack"),
    "gzip called .tar": (lambda place: _packed(place / "a.tar", "w:gz"), "Unpack it and give the folder"),
    "cut zip": (lambda place: _cut(WRITERS["zip"](FILES, place), 0.5), "is damaged"),
    "cut tar, in a file": (lambda place: _cut(WRITERS["tar"](FILES, place), 0.4), "is damaged"),
    "tar with a broken header": (lambda place: _broken_header(WRITERS["tar"](FILES, place)), "is damaged"),
    "encrypted zip": (lambda place: _encrypted(place / "a.zip"), "is encrypted"),
    "a picture": (
        lambda place: layouts.to_folder({"x.png": FILES["deep/er/x.png"]}, place) / "x.png",
        "neither a folder",
    ),
    "rar": (lambda place: layouts.to_folder({"x.rar": b"Rar!\x1a\x07"}, place) / "x.rar", "Unpack it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, reason = REFUSED[case]
    path = make(tmp_path)
    with pytest.raises(UserError, match=reason) as refusal:
        open_source(path)
    assert str(path) in str(refusal.value)


def test_a_tar_that_ends_between_files_is_refused(tmp_path: Path) -> None:
    path = WRITERS["tar"](FILES, tmp_path)
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    with pytest.raises(UserError, match="is damaged"):
        open_source(path)


def test_damage_inside_a_zip_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.bin", b"0123456789" * 50)
    path.write_bytes(path.read_bytes().replace(b"0123456789" * 50, b"0123456789" * 49 + b"987654321x"))
    with pytest.raises(UserError, match=r"data\.zip/x\.bin is damaged"):
        open_source(path).read("x.bin")


def test_recognising_data_loads_no_torch() -> None:
    code = (
        "import sys, unetpp_cli.data.layouts, unetpp_cli.jobs.check;"
        "sys.exit(bool({'torch', 'albumentations', 'cv2', 'matplotlib'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
