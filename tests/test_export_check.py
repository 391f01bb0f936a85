"""What `unetpp export` needs no extra for: the check against torch, torch.export programs, inputs to try."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import networks
import pytest
import torch
from conftest import exported

from unetpp_cli.errors import UserError
from unetpp_cli.export.check import check
from unetpp_cli.export.graph import Exported, example
from unetpp_cli.export.interface import Interface
from unetpp_cli.network.weights import load_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.saved(tmp_path_factory.mktemp("weights"), width=4, depth=2, pad_multiple=8)


def answers(whole: Exported) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """What torch says, as the check asks a file."""
    with torch.inference_mode():
        return lambda image: [whole(image).detach()]


def test_torch_alone_loads_the_program(weights: Path) -> None:
    exported(weights, "-o", "m.pt2", "--all-depths", "--dynamic")
    image = torch.randn(2, 3, 33, 47)
    with torch.inference_mode():
        expected = load_model(weights).network.heads(image)
    torch.save((image, expected), "io.pt")
    program = (
        "import torch, sys, json\n"
        "files = {'classes': ''}\n"
        "module = torch.export.load('m.pt2', extra_files=files).module()\n"
        "image, expected = torch.load('io.pt')\n"
        "found = module(image)\n"
        "assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))\n"
        "assert json.loads(files['classes'])[0] == 'Sky'\n"
        "assert 'unetpp_cli' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_network_that_answers_otherwise_is_not_written(weights: Path) -> None:
    model = load_model(weights)
    whole = Exported(model.network, model.header, Interface((2,))).eval()
    found = check(whole, answers(whole))
    assert found.difference == 0
    assert found.pixels == 0
    for wrong in (1.0, float("nan")):
        with pytest.raises(UserError, match="nothing was written"):
            check(whole, lambda image, by=wrong: [answers(whole)(image)[0] + by])  # type: ignore[misc]
    masks = Exported(model.network, model.header, Interface((2,), argmax=True)).eval()
    assert check(masks, answers(masks)).pixels == 0
    with pytest.raises(UserError, match="nothing was written"):
        check(masks, lambda image: [(answers(masks)(image)[0] + 1) % 11])


def test_examples_of_inputs_have_their_type_and_several_classes(weights: Path) -> None:
    model = load_model(weights)
    for normalize, dtype in ((False, torch.float32), (True, torch.uint8)):
        whole = Exported(model.network, model.header, Interface((2,), normalize=normalize)).eval()
        image = example(whole.interface, 3, 40, 56)
        assert image.dtype == dtype
        assert len(answers(whole)(image)[0].argmax(1).unique()) > 2
