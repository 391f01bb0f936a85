"""The arithmetic asked for, the switches it sets, and what is refused for want of hardware or tools."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unetpp_cli import devices
from unetpp_cli.devices import (
    autocast,
    check_compile,
    request_determinism,
    resolve_precision,
    set_arithmetic,
)
from unetpp_cli.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def _switches() -> Iterator[None]:
    """Puts torch's process-wide switches back."""
    cudnn, matmul, fill = torch.backends.cudnn, torch.backends.cuda.matmul, torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        cudnn.allow_tf32,
        matmul.allow_tf32,
        fill.fill_uninitialized_memory,
    )
    yield
    torch.use_deterministic_algorithms(before[0])
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before[1:5]
    fill.fill_uninitialized_memory = before[5]


def test_the_command_line_can_ask_without_torch() -> None:
    code = "import sys; from unetpp_cli.devices import PRECISIONS, request_determinism as r; r(); "
    code += "import os; print(os.environ['CUBLAS_WORKSPACE_CONFIG'], 'torch' in sys.modules, *PRECISIONS)"
    environment = {key: value for key, value in os.environ.items() if key != "CUBLAS_WORKSPACE_CONFIG"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.split() == [":4096:8", "False", "auto", "fp32", "tf32", "bf16", "fp16"]


@pytest.mark.parametrize("value", [":4096:8", ":16:8"])
def test_a_workspace_that_is_repeatable_already_stays(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", value)
    request_determinism()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == value


def test_a_workspace_that_is_not_repeatable_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    if torch.cuda.is_initialized():
        with pytest.raises(UserError, match="CUDA has started"):
            request_determinism()
    else:
        request_determinism()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_where_it_is_native(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: native)
    assert resolve_precision("auto", CPU) == ("bf16" if native else "fp32")
    assert resolve_precision("fp32", CPU) == "fp32"
    with contextlib.nullcontext() if native else pytest.raises(UserError, match="no native bf16"):
        assert resolve_precision("bf16", CPU) == "bf16"


@pytest.mark.parametrize(("generation", "auto"), [(7, "fp32"), (8, "bf16"), (9, "bf16")])
def test_gpus_by_generation(generation: int, auto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided about a GPU depends on nothing but its generation, so it can be said without one."""
    monkeypatch.setattr(devices, "_capability", lambda device: generation)
    assert resolve_precision("auto", CUDA) == auto
    assert resolve_precision("fp16", CUDA) == "fp16"
    for wish in ("tf32", "bf16"):
        if generation >= 8:
            assert resolve_precision(wish, CUDA) == wish
        else:
            with pytest.raises(UserError, match=f"--precision {wish}: this hardware") as caught:
                resolve_precision(wish, CUDA)
            assert "auto" in caught.value.cure


@pytest.mark.parametrize(
    ("wish", "problem"), [("tf32", "no TF32"), ("fp16", "for GPUs"), ("fp8", "cannot be 'fp8'")]
)
def test_what_the_cpu_cannot_is_refused_with_a_cure(wish: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        resolve_precision(wish, CPU)
    assert "fp32" in caught.value.cure


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_convolutions_compute_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert torch.nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 2, 2)).dtype == dtype


@pytest.mark.usefixtures("_switches")
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    ("device", "precision", "training", "tf32", "benchmark"),
    [
        (CPU, "fp32", True, False, False),
        (CUDA, "fp32", True, False, True),
        (CUDA, "fp32", False, False, False),
        (CUDA, "tf32", False, True, False),
        (CUDA, "bf16", True, True, True),
    ],
)
def test_switches(
    device: torch.device,
    precision: str,
    training: bool,
    tf32: bool,
    benchmark: bool,
    deterministic: bool,
    recwarn: pytest.WarningsRecorder,
) -> None:
    torch.backends.cudnn.benchmark = not benchmark
    torch.use_deterministic_algorithms(not deterministic)
    set_arithmetic(device, precision, deterministic=deterministic, training=training)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is tf32
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert torch.backends.cudnn.benchmark is (benchmark and not deterministic)
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert not recwarn.list


@pytest.mark.usefixtures("_switches")
def test_determinism_refuses_what_cannot_repeat_itself() -> None:
    """`put_` is an operation without a repeatable form, on the CPU too."""
    target, index = torch.zeros(3), torch.tensor([0, 0])
    set_arithmetic(CPU, "fp32", deterministic=True, training=True)
    with pytest.raises(RuntimeError, match="deterministic"):
        target.put_(index, torch.tensor([1.0, 2.0]), accumulate=False)
    set_arithmetic(CPU, "fp32", deterministic=False, training=True)
    target.put_(index, torch.tensor([1.0, 2.0]), accumulate=False)


def test_compile_is_refused_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler") as caught:
        check_compile(CPU)
    assert "leave --compile out" in caught.value.cure


def test_compile_takes_the_compiler_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "my-c++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "my-c++")
    monkeypatch.setattr(devices.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match="needs Python's headers"):
        check_compile(CPU)
    (tmp_path / "Python.h").touch()
    check_compile(CPU)


def test_compile_on_a_gpu_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_capability", lambda device: 9)
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="Triton is not installed"):
        check_compile(CUDA)
    monkeypatch.setattr(devices, "find_spec", lambda name: object())
    monkeypatch.setattr(devices, "_capability", lambda device: 6)
    with pytest.raises(UserError, match="Volta"):
        check_compile(CUDA)
