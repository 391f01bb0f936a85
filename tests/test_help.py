"""Help that teaches: examples on every page, the page of all commands, and what Tab offers."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import unetpp
from typer.main import get_command

from unetpp_cli.cli import app, completion

ROOT = Path(__file__).parent.parent
COMMANDS = list(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_page_has_two_examples_that_could_be_typed(name: str) -> None:
    text = unetpp(name, "--help").output
    shown = text.split("Examples")[1]
    examples = [line.strip() for line in shown.splitlines() if re.search(rf"\bunetpp {name}\b", line)]
    assert len(examples) >= 2
    options = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", text.split("Examples")[0]))
    for line in examples:
        own = line[line.index(f"unetpp {name}") :].split("|")[0].split("&&")[0]
        assert set(re.findall(r"(?<!\S)--?[a-z][\w-]*", own)) <= options, line


def test_the_page_of_all_commands_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_commands", ROOT / "examples/make_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "examples/commands.md").read_text(encoding="utf-8")
    assert module.commands_page() == page, "run: python examples/make_commands.py > examples/commands.md"
    assert all(f"## unetpp {name}\n" in page for name in COMMANDS)


def test_tab_offers_what_is_there(run: Path) -> None:
    assert completion.recipes("") == ["blog", "camvid", "quick"]
    assert completion.recipes("ca") == ["camvid"]
    assert completion.class_sets("camvid3") == ["camvid32", "camvid33"]
    Path("runs/mine/weights").mkdir(parents=True)
    Path("runs/empty").mkdir()
    Path("runs/mine/weights/best.safetensors").write_bytes(b"")
    Path("other.safetensors").write_bytes(b"")
    Path("data.zip").write_bytes(b"")
    Path("notes.txt").write_bytes(b"")
    assert completion.models("") == ["runs/mine", "other.safetensors", "runs/", "camvid11"]
    assert completion.models("runs/m") == ["runs/mine", "runs/mine/"]
    assert completion.runs("") == ["last", "auto", "runs/empty", "runs/mine"]
    assert completion.data("") == ["demo", "data.zip", "runs/"]
    assert completion.data("de") == ["demo"]


@pytest.mark.slow
def test_the_shell_completes() -> None:
    """As bash asks the program when Tab is pressed."""
    words = "unetpp train --recipe ca"
    environment = {
        **os.environ,
        "_UNETPP_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": "3",
    }
    program = "import sys; sys.argv = ['unetpp']; from unetpp_cli.cli import app; app(prog_name='unetpp')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.split() == ["camvid"], done.stderr
