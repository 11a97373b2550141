"""Slices of noise, to measure on: as many and as large as asked for, in a folder as SliceMaker writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.labels import LabelMap
from datasets.slices.manifest import Manifest, ManifestCase
from datasets.slices.slice_folder import SliceFolder, list_file, slice_name
from datasets.slicing.cut_case import write_slice


def write_noise(folder: Path, size: int, count: int, classes: int) -> SliceFolder:
    """A folder of slices in which one case trains with `count` slices and another validates."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"class_{i}" for i in range(1, classes))
    regions: dict[str, tuple[int, ...]] = {name: (i,) for i, name in enumerate(names, start=1)}
    label_map = LabelMap("all", names, tuple((i,) for i in range(1, classes)), regions)
    manifest = Manifest("msd", (-200.0, 300.0), seed=0, tasks={"all": label_map})
    draws = np.random.default_rng(0)
    for case, (split, slices) in {"train": ("train", count), "val": ("val", 1)}.items():
        manifest.cases[case] = ManifestCase(
            (slices, size, size), (1.0, 1.0, 1.0), 1.0, 0.0, (-200.0, 300.0), {}, split, {}, []
        )
        for index in range(slices):
            image = draws.integers(-200, 300, (size, size)).astype(np.int16)
            mask = draws.integers(0, classes, (size, size)).astype(np.uint8)
            write_slice(folder / slice_name(case, index), image, mask)
    manifest.save(folder)
    np.save(list_file(folder, "msd", "all"), np.array([slice_name("train", i) for i in range(count)]))
    return SliceFolder.open(folder, "msd", "all")
