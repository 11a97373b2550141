"""Short digests, to detect whether two runs used the same data and weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def fingerprint(parts: Iterable[str]) -> str:
    """The digest of a sequence of strings, 12 hexadecimal digits."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def fingerprint_weights(network: nn.Module) -> str:
    """The digest of all parameters and buffers, wherever they were loaded from."""
    return fingerprint_tensors(network.state_dict().values())


def fingerprint_tensors(values: Iterable[Tensor]) -> str:
    """The digest of tensors, in their order."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
