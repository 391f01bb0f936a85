"""Two processes on the CPU over gloo: they agree, and compute together what one computes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import process_work
import pytest
import torch
from conftest import TINY, unetpp

from unetpp_cli.devices import choose_devices, parse_gpus
from unetpp_cli.errors import UserError
from unetpp_cli.parallel import ProcessesFailed, launch


def test_processes_agree() -> None:
    told = launch(process_work.agreement, 2, 0)
    assert told == {
        "rank": 0,
        "sum": [3.0],
        "any": [True, False],
        "from_main": "rank 0",
        "collected": [0, 1],
        "once": "made by 0",
        "said": 1,
    }


CASES: list[dict[str, Any]] = [
    {},
    {"class_weights": "median-frequency", "label_smoothing": 0.1},
    {"loss": "focal"},
    {"loss": "ce+dice", "class_weights": "enet"},
]


def test_gradients_equal_those_of_one_process_that_accumulates() -> None:
    """The same half batches, with very different numbers of labelled pixels: dealt out or one by one."""
    together = launch(process_work.first_gradients, 2, 0, CASES, False)
    alone = process_work.first_gradients([{**keys, "accumulate": 2} for keys in CASES], False)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_with_fixed_norms_they_equal_those_of_the_whole_batch() -> None:
    together = launch(process_work.first_gradients, 2, 0, CASES[:3], True)
    alone = process_work.first_gradients(CASES[:3], True)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-7)


def fails(code: int) -> None:
    raise SystemExit(code)


def test_the_exit_code_of_a_process_is_the_launchs() -> None:
    with pytest.raises(ProcessesFailed) as caught:
        launch(fails, 2, 0, 7)
    assert caught.value.exit_code == 7


def test_gpus_spellings() -> None:
    assert parse_gpus("0,1") == (0, 1)
    assert choose_devices("cpu,cpu") == [torch.device("cpu")] * 2
    for bad in ("0,0", "cpu,0", "one", "-1"):
        with pytest.raises(UserError, match="no choice of GPUs"):
            parse_gpus(bad)


@pytest.mark.slow
def test_an_error_that_all_meet_is_printed_once(camvid: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = ["--gpus", "cpu,cpu", "--batch-size", "3", "--max-restarts", "2"]  # starting again is no cure
    result = unetpp("train", "--data", camvid, *TINY, *args)
    assert result.exit_code == 2
    message = "--batch-size 3 cannot be dealt out evenly to 2 processes"
    assert capfd.readouterr().err.count(message) == 1
