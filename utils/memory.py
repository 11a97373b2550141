"""How much memory may still be taken."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import torch

GROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; 0 where it is not known. Of the host, what its container leaves, too."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return _free_on_host() if device.type == "cpu" else 0


def _free_on_host() -> int:
    found = []
    with suppress(OSError):
        if match := re.search(r"^MemAvailable:\s*(\d+) kB$", MEMINFO.read_text(), re.MULTILINE):
            found.append(1024 * int(match[1]))
    with suppress(OSError, ValueError):  # Without a limit it says "max".
        limit, used = (int((GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(0, limit - used))
    return min(found, default=0)
