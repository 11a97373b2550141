"""Devices and mixed precision."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch

from networks.contract import SegmentationNetwork
from utils.cores import machine, usable_cores
from utils.errors import UserError
from utils.progress import print_note

X86 = ("x86_64", "AMD64")


def choose_device(name: str) -> torch.device:
    """The device that `name` means; `auto` is the first accelerator, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used here ({reason}); --device cpu always can") from None
    return device


def choose_workers(asked: int | None) -> int:
    """Loading processes: as asked, else one per core up to eight, and none on one or two cores."""
    if asked is not None:
        return asked
    cores = usable_cores()
    return 0 if cores <= 2 else min(8, cores)


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside, the same numbers at every launch on a GPU, as a CPU gives them anyway; to enter before its first product.

    UserError for an operation of which PyTorch has no deterministic form.
    https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, with the first product
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).split(". ")[0].split(", but you set")[0]
        raise UserError(f"--deterministic: {reason}; leave it out, or train on a CPU") from None
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


class Precision:
    """Autocast and loss scaling as one choice: off, bf16, or fp16 with a gradient scaler."""

    def __init__(self, name: str, device: torch.device, network: SegmentationNetwork | None = None) -> None:
        """network: that trains in it; `auto` is what it trains fastest in."""
        if name == "auto":
            name = _fastest(device, network)
        if name == "fp16" and device.type != "cuda":
            raise UserError("--amp fp16 needs a CUDA device; use --amp bf16 or --amp off")
        if name == "bf16" and device.type == "cpu" and platform.machine() in X86 and not has_fast_bf16():
            _warn_of_slow_bf16()
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[None]:
        dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.name != "off")

    def layout(self, network: SegmentationNetwork) -> torch.memory_format:
        """Of the weights and maps of a network in training."""
        # A bf16 step of a 3D network takes a CPU twice as long with channels last, all of it in the backward pass.
        if network.block and self.name == "bf16" and self.device.type == "cpu":
            return torch.contiguous_format
        return network.memory_format


def answering(
    amp: str, device: torch.device, student: SegmentationNetwork
) -> Callable[[], AbstractContextManager[None]]:
    """What a teacher answers in, within the autocast of the student's step: its own, where that is another."""
    of_teacher, of_student = Precision(amp, device), Precision(amp, device, student)
    return nullcontext if of_teacher.name == of_student.name else of_teacher.autocast


def _fastest(device: torch.device, network: SegmentationNetwork | None) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    slower = network is not None and network.slower_in_bf16
    return "bf16" if device.type == "cpu" and has_fast_bf16() and not slower else "off"


def has_fast_bf16() -> bool:
    """Whether the CPU has AMX or AVX512-BF16 instructions; on ARM, where nothing was measured, False."""
    # Not public, so that a version of PyTorch may lack them; no AMX of a CPU so far lacks bf16.
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


@cache
def _warn_of_slow_bf16() -> None:
    """Once, however many runs there are."""
    print_note("--amp bf16 is 3 to 7 times slower than --amp off on this processor, which has no instructions for it")


def environment(device: torch.device) -> dict[str, str]:
    """Versions and hardware that a result depends on, for checkpoints and summaries."""
    known = {"torch": str(torch.__version__), **machine()}
    return known | ({"processor": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})
