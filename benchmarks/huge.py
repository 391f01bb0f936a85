"""One picture of 20,000x20,000 pixels through `unetpp predict`: its time, and the most memory it took.

`predict.py --huge` asks for it. `python benchmarks/huge.py REPORT predict ...` is `unetpp predict ...` that
also writes the peak of its own resident memory to REPORT.
"""

from __future__ import annotations

import atexit
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WIDTH, TILE, PATCH = 8, 1024, 1000


def work(task: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Does the task `huge` in this process.

    Args:
        task: `side` in pixels, `variants` (one precision).
    """
    side, (precision,) = task["side"], task["variants"]
    with tempfile.TemporaryDirectory(prefix="unetpp-benchmark-") as place:
        folder = Path(place)
        say(f"writing a picture of {side}x{side}")
        write_picture(folder / "picture.png", side)
        write_weights(folder / "weights.safetensors")
        say("predicting it")
        entry = predict(folder, precision)
    entry |= {"side": side, "picture_bytes": 3 * side * side, "mask_bytes": side * side}
    return {"variants": {precision: entry}}


def write_picture(path: Path, side: int) -> None:
    """A PNG of side x side, of one drawn scene over and over."""
    import numpy as np
    from PIL import Image

    from unetpp_cli.data.demo import render_scene

    patch, times = render_scene(0, PATCH, PATCH)[0], -(-side // PATCH)
    Image.fromarray(np.tile(patch, (times, times, 1))[:side, :side]).save(path, compress_level=1)


def write_weights(path: Path) -> None:
    """A network of width 8 whose outputs vary."""
    import torch

    from benchmarks.folder import header_for
    from benchmarks.networks import CLASSES
    from benchmarks.passes import settled
    from unetpp_cli.network.unetpp import UNetPlusPlus
    from unetpp_cli.network.weights import save_model

    torch.manual_seed(0)
    network = UNetPlusPlus(CLASSES, 3, width=WIDTH)
    settled(network, torch.randn(1, 3, 64, 64))
    save_model(path, network, header_for(network))


def predict(folder: Path, precision: str) -> dict[str, Any]:
    """Runs the command on what lies in `folder`."""
    from benchmarks.folder import surroundings

    report, mask = folder / "report.json", folder / "mask.png"
    line = [
        sys.executable,
        str(Path(__file__).resolve()),
        str(report),
        "predict",
        str(folder / "picture.png"),
    ]
    line += ["-o", str(mask), "--model", str(folder / "weights.safetensors"), "--gpus", "cpu"]
    line += ["--size", "native", "--tile", str(TILE), "--precision", precision]
    start = time.perf_counter()
    done = subprocess.run(line, env=surroundings(), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode or not mask.exists():
        return {"note": f"failed: {' '.join(done.stderr.split())[-300:]}"}
    return {"seconds": [seconds], **json.loads(report.read_text(encoding="utf-8"))}


def peak_memory() -> int:
    """Bytes of this process's own peak. What getrusage tells counts in the process that started it."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"), re.MULTILINE)
    except OSError:
        found = None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _watched() -> None:
    """The command line of `unetpp`, and at its end the peak."""
    from unetpp_cli.cli import main

    report = Path(sys.argv.pop(1))
    atexit.register(lambda: report.write_text(json.dumps({"peak_bytes": peak_memory()}), encoding="utf-8"))
    main()


if __name__ == "__main__":
    _watched()
