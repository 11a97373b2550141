"""Devices and mixed precision."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager

import torch

from utils.cores import usable_cores
from utils.errors import UserError


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


class Precision:
    """Autocast and loss scaling as one choice: off, bf16, or fp16 with a gradient scaler."""

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "auto":
            name = "off" if device.type != "cuda" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        if name == "fp16" and device.type != "cuda":
            raise UserError("--amp fp16 needs a CUDA device; use --amp bf16 or --amp off")
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[None]:
        dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.name != "off")


def environment(device: torch.device) -> dict[str, str]:
    """Versions and hardware that a result depends on, for checkpoints and summaries."""
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = f"{usable_cores()} {platform.machine()} cores"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": platform.platform(terse=True),
        "processor": processor,
    }
