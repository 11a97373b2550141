"""Short digests, to detect whether two runs used the same data and weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from torch import nn


def fingerprint(parts: Iterable[str]) -> str:
    """The digest of a sequence of strings, 12 hexadecimal digits."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def fingerprint_weights(network: nn.Module) -> str:
    """The digest of all parameters and buffers, wherever they were loaded from."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
