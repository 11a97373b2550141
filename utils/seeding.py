"""Randomness: every draw comes from a generator that its purpose seeds, never from a shared stream."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """A generator for one purpose: the same seed and key give the same draws in any process or order."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng([seed, *words])


def seed_torch(seed: int) -> None:
    """Seed what torch draws itself: initial weights, dropout."""
    # Cutting slices draws too, and should not wait for torch.
    import torch

    torch.manual_seed(seed)
