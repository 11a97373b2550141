"""Tensors on their way between the host and a device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values on the device, for which it and the host do not wait; those that are there are returned themselves."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def fetched(values: Tensor) -> Callable[[], Tensor]:
    """Values on their way to the host: a call waits for them, not for what the device was given to do after them."""
    if values.device.type != "cuda":
        return lambda: values.cpu()
    on_host = values.to("cpu", non_blocking=True)  # PyTorch pins what it copies to in this way.
    arrived = torch.cuda.current_stream(values.device).record_event()

    def wait() -> Tensor:
        arrived.synchronize()
        return on_host

    return wait
