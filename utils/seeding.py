"""Random generators: one for each purpose, seeded by it, never a shared stream."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """A generator for one purpose: the same seed and key give the same numbers in any process and order."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng([seed, *words])


def seed_torch(seed: int) -> None:
    """Seed torch's own generator: initial weights, dropout."""
    # SliceMaker uses this module too, and should not wait for torch.
    import torch

    torch.manual_seed(seed)
