"""Data and weights over HTTP, from a server on this machine: cached, resumed, checked, refused."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import layouts
import pytest
from conftest import TINY, unetpp

from unetpp_cli.errors import UserError
from unetpp_cli.network.header import file_hash
from unetpp_cli.remote import Address, cache_folder, cached, fetch


@dataclass
class Site:
    """What the server has, how it behaves, and what it was asked for.

    Attributes:
        files: path -> bytes.
        breaks: a connection ends after so many bytes; one for each request that comes, then none.
        resumes: answers to Range.
        tag: the ETag of all files.
        careless: ignores If-Range.
        tells_length: says how long a file is.
        promised: the SHA-256 that the hub promises; the true one when empty.
        asked: (path, Range) of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    resumes: bool = True
    tag: str = '"one"'
    code: int = 200
    promised: str = ""
    careless: bool = False
    tells_length: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("UNETPP_CACHE", str(tmp_path / "cache"))
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            site.asked.append((self.path, wanted))
            data = site.files.get(self.path)
            if data is None or site.code != 200:
                self.send_error(404 if data is None else site.code)
                return
            if "/resolve/" in self.path:
                self._as_a_hub(data)
                return
            start = 0
            if wanted and site.resumes and (site.careless or self.headers.get("If-Range") == site.tag):
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(data):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            if site.tells_length:
                self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", site.tag)
            self.end_headers()
            rest = data[start:]
            if site.breaks:
                rest = rest[: site.breaks.pop(0)]
            with contextlib.suppress(ConnectionError):
                self.wfile.write(rest)

        def do_HEAD(self) -> None:
            site.asked.append((self.path, "HEAD"))
            data = site.files.get(self.path)
            if data is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()
            else:
                self._as_a_hub(data, body=False)

        def _as_a_hub(self, data: bytes, body: bool = True) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("X-Linked-Size", str(len(data)))
            self.send_header("X-Linked-Etag", f'"{site.promised or hashlib.sha256(data).hexdigest()}"')
            self.send_header("ETag", f'"{site.promised or hashlib.sha256(data).hexdigest()}"')
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


DATA = bytes(range(256)) * 40_000  # ten megabytes


def test_a_file_is_fetched_once(site: Site) -> None:
    site.files["/a/b%20c.zip"] = DATA
    seen: list[tuple[int, int | None]] = []
    address = Address.parse(f"{site.url}/a/b%20c.zip#sha256={hashlib.sha256(DATA).hexdigest()}")
    file = fetch(address, lambda done, total: seen.append((done, total)))
    assert file.read_bytes() == DATA
    assert file.name == "b-c.zip"
    assert file.is_relative_to(cache_folder())
    assert seen[-1] == (len(DATA), len(DATA))
    assert len(seen) > 5
    assert fetch(address) == file
    assert len(site.asked) == 1
    assert cached(address) == file
    assert {path.name for path in file.parent.iterdir()} == {".lock", "b-c.zip", "b-c.zip.json"}


def test_a_fetch_that_breaks_goes_on_where_it_stood(site: Site) -> None:
    site.files["/f.zip"], site.breaks = DATA, [1_000_000, 0, 2_500_000]
    file = fetch(Address(f"{site.url}/f.zip"))
    assert file.read_bytes() == DATA
    ranges = [wanted for _, wanted in site.asked]
    assert ranges[0] == ""
    starts = [int(wanted.removeprefix("bytes=")[:-1]) for wanted in ranges[1:]]
    assert starts == sorted(starts)
    assert starts[0] == 1_000_000
    assert starts[-1] == 3_500_000


def test_another_process_goes_on_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    site.files["/f.zip"], site.breaks = DATA, [3_000_000] + [0] * 20
    with pytest.raises(UserError, match="goes on where it broke off"):
        fetch(Address(f"{site.url}/f.zip"))
    site.breaks.clear()
    site.asked.clear()
    assert fetch(Address(f"{site.url}/f.zip")).read_bytes() == DATA
    assert site.asked == [("/f.zip", "bytes=3000000-")]


@pytest.mark.parametrize("kind", ["resumes", "does not", "careless"])
def test_a_file_that_changed_meanwhile_is_fetched_anew(
    kind: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would begin like the old one and end like the new one."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    site.files["/f.zip"], site.breaks, site.resumes = DATA, [3_000_000] + [0] * 20, kind != "does not"
    site.careless = kind == "careless"
    with pytest.raises(UserError):
        fetch(Address(f"{site.url}/f.zip"))
    site.breaks.clear()
    site.files["/f.zip"], site.tag = DATA[::-1], '"two"'
    assert fetch(Address(f"{site.url}/f.zip")).read_bytes() == DATA[::-1]


def test_a_server_that_breaks_off_and_cannot_resume_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    site.files["/f.zip"], site.resumes, site.breaks = DATA, False, [60_000, 10_000] * 50
    with pytest.raises(UserError, match="Cannot fetch"):
        fetch(Address(f"{site.url}/f.zip"))
    assert len(site.asked) < 12


def test_a_whole_part_is_not_fetched_again(site: Site) -> None:
    """As after a kill between the last byte and the file's name."""
    site.files["/f.zip"] = DATA
    file = fetch(Address(f"{site.url}/f.zip"))
    note = Path(f"{file}.json")
    file.rename(f"{file}.part")
    note.write_text("damaged", encoding="utf-8")
    Path(f"{file}.part.json").write_text(json.dumps({"validator": site.tag, "total": len(DATA)}))
    assert fetch(Address(f"{site.url}/f.zip")).read_bytes() == DATA
    assert len(site.asked) == 1


def test_a_server_that_tells_no_length(site: Site) -> None:
    site.files["/f.zip"], site.tells_length = DATA, False
    seen: list[int | None] = []
    assert fetch(Address(f"{site.url}/f.zip"), lambda done, total: seen.append(total)).read_bytes() == DATA
    assert set(seen) == {None}


def test_two_processes_fetch_it_once(site: Site) -> None:
    site.files["/f.zip"] = DATA
    program = (
        "import sys; from unetpp_cli.remote import Address, fetch\n"
        "print(fetch(Address(sys.argv[1])).stat().st_size)"
    )
    line = [sys.executable, "-c", program, f"{site.url}/f.zip"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    both = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [str(len(DATA))] * 2
    assert len(site.asked) == 1


def test_names_out_of_addresses_stay_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETPP_CACHE", str(tmp_path / "cache"))
    for path in ("/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/", "", "/..", "/" + "x" * 500, "/a%00b"):
        file = Address.parse(f"https://host{path}").file
        assert file.parent.parent == tmp_path / "cache"
        assert len(file.name) <= 100
        assert file.name not in {"", ".", ".."}
    for text in ("https://[bad/x.zip", "https://a b/x.zip", "https:///x.zip"):
        with pytest.raises(UserError, match="is no address"):
            Address.parse(text)


def test_other_bytes_than_promised_are_not_kept(site: Site) -> None:
    site.files["/f.zip"] = DATA
    wrong = Address.parse(f"{site.url}/f.zip#sha256={'0' * 64}")
    with pytest.raises(UserError, match="another file than was meant"):
        fetch(wrong)
    assert cached(wrong) is None
    assert [path.name for path in wrong.file.parent.iterdir()] == [".lock"]
    fetch(Address(f"{site.url}/f.zip"))
    assert cached(wrong) is None  # in the cache, and still not what was meant
    right = Address(wrong.url, hashlib.sha256(DATA).hexdigest())
    assert cached(right) == right.file
    right.file.write_bytes(DATA[:-1] + b"x")
    assert cached(right) is None  # as long, and still other bytes
    right.file.write_bytes(DATA[:-1])
    assert cached(Address(wrong.url)) is None  # cut off by somebody


def test_servers_that_refuse(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(UserError, match="404"):
        fetch(Address(f"{site.url}/none.zip"))
    assert len(site.asked) == 1  # it is not asked again
    site.files["/f.zip"], site.code = DATA, 503
    with pytest.raises(UserError, match="503"):
        fetch(Address(f"{site.url}/f.zip"))
    assert len(site.asked) > 3
    with pytest.raises(UserError, match="Cannot fetch"):
        fetch(Address("http://127.0.0.1:9/f.zip"))
    with pytest.raises(UserError, match="no checksum"):
        Address.parse("https://host/f.zip#md5=1")


def test_data_are_trained_on_from_afar(site: Site, tmp_path: Path) -> None:
    files, _ = layouts.segnet()
    site.files["/street%20data.zip"] = layouts.to_zip(files, tmp_path / "camvid.zip").read_bytes()
    url = f"{site.url}/street%20data.zip"
    result = unetpp("check", url)
    assert result.exit_code == 0, result.output
    result = unetpp("train", "--data", url, "--out", "run", *TINY)
    assert result.exit_code == 0, result.output
    assert "From the cache" in result.output
    assert "5 train / 2 val" in result.output
    result = unetpp("eval", "run", "--split", "val", "--json", "--no-timing")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == 2
    assert len(site.asked) == 1


def test_weights_come_from_afar(
    site: Site, model: Path, camvid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/m.safetensors"] = model.read_bytes()
    image = next((camvid / "test").iterdir())
    url = f"{site.url}/m.safetensors#sha256={file_hash(model)}"
    for name, options in (("a.png", ["-m", url]), ("b.png", ["-m", str(model)])):
        result = unetpp("predict", image, "-o", name, *options)
        assert result.exit_code == 0, result.output
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    monkeypatch.setenv("UNETPP_MODEL", url)
    assert unetpp("info").exit_code == 0
    wrong = unetpp("info", f"{site.url}/m.safetensors#sha256={'1' * 64}")
    assert wrong.exit_code == 2
    assert "not 1111" in wrong.output


def test_hub_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    for name in ("hf://user", "hf://a b/c", "hf://"):
        result = unetpp("info", name)
        assert result.exit_code == 2
        assert "hf://user/name" in result.output


def from_the_hub(site: Site, *args: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, whose hub is the site."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": site.url,
        "HF_HOME": str(Path("hub").resolve()),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    line = [sys.executable, "-m", "unetpp_cli", *args]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


def test_weights_come_from_a_hub(site: Site, model: Path) -> None:
    pytest.importorskip("huggingface_hub")
    site.files["/ann/street/resolve/main/model.safetensors"] = model.read_bytes()
    site.files["/ann/street/resolve/v2/nets/small.safetensors"] = model.read_bytes()
    for name in ("hf://ann/street", "hf://ann/street@v2/nets/small.safetensors"):
        done = from_the_hub(site, "info", name, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["file"]["sha256"] == file_hash(model)
    missing = from_the_hub(site, "info", "hf://ann/nothing")
    assert missing.returncode == 2
    assert "Cannot fetch hf://ann/nothing" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_a_file_that_is_not_what_the_hub_promised_is_refused(site: Site, model: Path) -> None:
    pytest.importorskip("huggingface_hub")
    site.files["/ann/street/resolve/main/model.safetensors"] = model.read_bytes()
    site.promised = "0" * 64
    done = from_the_hub(site, "info", "hf://ann/street")
    assert done.returncode == 2
    assert "was damaged in the cache" in done.stderr
    site.promised = ""
    again = from_the_hub(site, "info", "hf://ann/street")
    assert again.returncode == 0, again.stderr
