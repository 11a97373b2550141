"""Short digests that tell whether two runs used the same data and weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from torch import nn


def fingerprint(parts: Iterable[str]) -> str:
    """A short digest: two runs of the same parts have the same."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def fingerprint_weights(network: nn.Module) -> str:
    """The digest of all weights and statistics: the file they came from may move."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
