"""Times the metrics of one volume against the network's forward passes over it.

    python scripts/bench_scores.py                                 # a phantom of 512 x 512 x 200
    python scripts/bench_scores.py --labels case_00003/segmentation.nii.gz --model resnet_18

The prediction is the reference itself, grown by two voxels and shifted by three: surfaces as large as a real one's,
nowhere alike. All kinds take turns; medians are printed. Times do not depend on whether the network is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import _root  # noqa: F401

from utils.errors import run
from utils.numbers import PositiveInt
from utils.options import Parser, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Case = tuple[NDArray[np.bool_], tuple[float, float, float]]

SURFACES = "HD95, ASSD and NSD"


@dataclass(frozen=True)
class BenchOptions:
    """what is timed"""

    labels: Path | None = option(None, "a KiTS label volume, whose kidneys and tumours are one region")
    slices: PositiveInt = option(200, "without --labels, of the phantom")
    side: PositiveInt = option(512, "without --labels, pixels along a side of its slices")
    model: str = option("malunet", "the network's name")
    size: PositiveInt = option(384, "pixels along a side of what the network sees")
    batch_size: PositiveInt = option(8, "slices at once")
    repeats: PositiveInt = option(5, "timed turns")


def main() -> None:
    (options,) = Parser(__doc__).read(BenchOptions)
    reference, spacing = (
        read_foreground(options.labels) if options.labels else draw_foreground(options.slices, options.side)
    )

    import numpy as np
    import torch
    from scipy import ndimage

    from engine.cost import measure_in_turns
    from engine.evaluation.metrics import case_scores, foreground_box
    from engine.evaluation.surface_distances import distance_scores
    from networks import build

    predicted = np.roll(ndimage.binary_dilation(reference, iterations=2), 3, axis=1)
    network = build(options.model, 2).eval().to(memory_format=torch.channels_last)
    images = torch.rand(options.batch_size, 1, options.size, options.size) * 2 - 1

    def forward() -> None:
        with torch.no_grad():
            for start in range(0, len(reference), options.batch_size):
                network(images[: len(reference) - start])

    def surfaces() -> None:
        box = foreground_box(predicted | reference)
        distance_scores(predicted[box], reference[box], spacing)

    costs = measure_in_turns(
        {
            f"{options.model}, forward": forward,
            SURFACES: surfaces,
            "all metrics": lambda: case_scores(predicted, reference, spacing),
        },
        options.repeats,
    )
    print(f"{reference.shape} voxels, {int(reference.sum())} of them foreground, {torch.get_num_threads()} threads")
    least = costs[SURFACES].median
    for name, cost in costs.items():
        print(f"{name:22} {cost.median:8.2f} s   x {cost.median / least:.2f}")


def read_foreground(path: Path) -> Case:
    """The foreground [Z, Y, X] of a KiTS label volume, and its spacing (z, y, x) in mm."""
    from phantoms.masks import read_labels

    volume = read_labels(path)
    return volume.labels > 0, volume.spacing


def draw_foreground(slices: int, side: int) -> Case:
    """The kidneys and their tumours [Z, Y, X] of a phantom, and its spacing (z, y, x) in mm."""
    from phantoms.recipe import Recipe, synthesise

    _, labels, grid, _ = synthesise(Recipe(size=side, slices=(slices, slices)), 0)
    return labels > 0, grid.spacing


if __name__ == "__main__":
    run(main)
