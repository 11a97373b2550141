"""Where the slices of a run are kept between its epochs."""

from __future__ import annotations

import torch

from datasets.cache import SliceCache, cache_bytes
from datasets.loader import SliceDataset
from engine.options import Cache
from utils.cores import usable_cores
from utils.errors import UserError
from utils.memory import free_memory
from utils.ranks import local_ranks

CPU = torch.device("cpu")
SHARE = 1 / 8
"""Of the free memory that `auto` takes at most: trainings that run side by side all see the same as free."""
THREADS = 8
"""At most, that read slices for an accelerator: nothing of it holds Python's lock for long."""


def make_cache(choice: Cache, dataset: SliceDataset, device: torch.device) -> SliceCache | None:
    """As `--cache` says; UserError for slices that cannot be kept, or that do not fit.

    auto: the device, else the host's memory, where it takes at most `SHARE` of what is free there.
    """
    threads = 0 if device.type == "cpu" else min(THREADS, usable_cores())
    # Each process of a host keeps slices of its own, and all see the same memory as free.
    size = cache_bytes(dataset) * local_ranks()
    if choice == "none" or (choice == "auto" and not size):
        return None
    if not size:
        raise UserError(
            f"--cache {choice}: only slices of one size, without stored values or blocks, are kept; leave it out"
        )
    if choice == "auto":
        places = [place for place in (device, CPU) if size <= SHARE * free_memory(place)]
        return SliceCache(dataset, places[0], threads) if places else None
    place = device if choice == "device" else CPU
    free = free_memory(place)
    if 0 < free < size:
        raise UserError(
            f"--cache {choice}: the slices take {size / 1e9:.3g} GB, of which {free / 1e9:.3g} GB are free; use "
            "--cache none"
        )
    return SliceCache(dataset, place, threads)
