"""The network under torch's compilers: torch.compile, torch.export and torch.jit.trace answer alike."""

from __future__ import annotations

import warnings

import networks
import pytest
import torch

from unetpp_cli.devices import check_compile
from unetpp_cli.errors import UserError

SIZE = (2, 3, 40, 56)


def test_traced() -> None:
    network = networks.trained(width=4, depth=2)
    image = torch.randn(*SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, image)
    other = torch.randn(*SIZE)
    assert torch.equal(traced(other), network(other))


@pytest.mark.parametrize("depth", [1, 2])
def test_exported(depth: int) -> None:
    network = networks.trained(width=4, depth=2)
    program = torch.export.export(network, (torch.randn(*SIZE), depth))
    other = torch.randn(*SIZE)
    assert torch.allclose(program.module()(other, depth), network(other, depth), atol=1e-6)


@pytest.mark.slow
def test_compiled() -> None:
    try:
        check_compile(torch.device("cpu"))
    except UserError as error:
        pytest.skip(error.problem)
    network = networks.trained(width=4, depth=2)
    compiled = torch.compile(network, fullgraph=True)
    for size in (SIZE, (1, 3, 33, 47)):
        image = torch.randn(*size)
        with torch.inference_mode():
            assert torch.allclose(compiled(image), network(image), atol=1e-5)
