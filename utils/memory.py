"""How much memory may still be taken."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; 0 where it is not known. Of the host, what its container leaves, too."""
    if device.type == "cuda":
        import torch  # Whoever asks for the host's has no need of it.

        return int(torch.cuda.mem_get_info(device)[0])
    return free_on_host() or 0 if device.type == "cpu" else 0


def free_on_host() -> int | None:
    """Bytes that the machine, or the container, has left; None where it is not known."""
    found = []
    with suppress(OSError):
        if match := re.search(r"^MemAvailable:\s*(\d+) kB$", MEMINFO.read_text(), re.MULTILINE):
            found.append(1024 * int(match[1]))
    with suppress(OSError, ValueError):  # Without a limit it says "max".
        limit, used = (int((GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(0, limit - used + _reclaimable()))
    return min(found, default=None)


def _reclaimable() -> int:
    """Of what a container uses, files that were read and can be dropped."""
    with suppress(OSError):
        if match := re.search(r"^inactive_file (\d+)$", (GROUP / "memory.stat").read_text(), re.MULTILINE):
            return int(match[1])
    return 0
