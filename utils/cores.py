"""The number of processor cores, and the machine that has them."""

from __future__ import annotations

import os
import platform


def usable_cores() -> int:
    """The number of cores that this process may use; fewer than the machine has in a container or a cluster job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, str]:
    """Versions and hardware that any result depends on."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": f"{usable_cores()} {platform.machine()} cores",
    }
