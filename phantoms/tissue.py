"""The tissue map: kidneys, liver and their lesions, one code per voxel, which determines labels and HU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phantoms.anatomy import Anatomy
from phantoms.shapes import Array, Bounds, Shape, Waves

OTHER, KIDNEY, KIDNEY_TUMOUR, KIDNEY_CYST, LIVER, LIVER_TUMOUR, LIVER_CYST = range(7)
LABELS = {
    "kits": np.array([0, 1, 2, 1, 0, 0, 0], np.uint8),
    "lits": np.array([0, 0, 0, 0, 1, 2, 1], np.uint8),
}
Slices = tuple[slice, slice, slice]
Tissue = NDArray[np.uint8]
SLAB = 32  # slices
CYST_IRREGULARITY = 0.03


@dataclass(frozen=True)
class Difficulty:
    """How hard tumours are to segment. Ranges are (low, high), with one draw per lesion or case."""

    tumour_diameter: tuple[float, float] = (20.0, 80.0)  # mm, log-uniform
    tumours_per_kidney_case: tuple[int, int] = (1, 3)
    tumours_per_liver_case: tuple[int, int] = (1, 6)
    tumour_irregularity: float = 0.16  # of the outline: standard deviation as a share of the radius
    kidney_tumour_contrast: tuple[float, float] = (-95.0, -45.0)  # HU against the kidney's mean
    liver_tumour_contrast: tuple[float, float] = (-70.0, -30.0)  # HU against the liver
    tumour_texture: float = 14.0  # HU, standard deviation
    necrosis_share: float = 0.4  # of the tumours that are thick enough
    necrosis_from: float = 25.0  # mm, thickness
    necrosis: tuple[float, float] = (18.0, 40.0)  # HU of a dead core
    cyst_diameter: tuple[float, float] = (7.0, 32.0)  # mm, log-uniform
    cysts_per_organ: tuple[int, int] = (0, 3)
    cyst: tuple[float, float] = (4.0, 16.0)  # HU
    organ_texture: float = 5.0  # HU, standard deviation
    texture_wavelength: float = 14.0  # mm
    noise: tuple[float, float] = (9.0, 17.0)  # HU, standard deviation in the middle of the body


@dataclass(frozen=True)
class Grid:
    """Voxels in space: shape, spacing (mm), and the origin (mm) and scale of the atlas, all (z, y, x)."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def positions(self, axis: int) -> NDArray[np.float64]:
        """Distance in mm of the voxels along one axis from the first voxel."""
        return np.arange(self.shape[axis], dtype=np.float64) * self.spacing[axis]

    def atlas(self, axis: int) -> NDArray[np.float64]:
        """Atlas coordinates of the voxels along one axis."""
        coordinates: NDArray[np.float64] = (self.positions(axis) - self.origin[axis]) / self.scale[axis]
        return coordinates


class Slab:
    """Consecutive slices of a grid in bent atlas coordinates, so that no organ is exactly an ellipsoid."""

    BEND = 4.0  # mm, standard deviation

    def __init__(self, grid: Grid, slices: slice, bends: tuple[Waves, Waves, Waves]) -> None:
        self.slices = slices
        z, y, x = grid.atlas(0)[slices], grid.atlas(1), grid.atlas(2)
        self.axes = (z, y, x)
        zero = np.zeros(1)
        # Each coordinate is bent by the other two only, so that a plane suffices in place of a volume.
        self.bends = (bends[0].at(zero, y, x), bends[1].at(z, zero, x), bends[2].at(z, y, zero))

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = (len(axis) for axis in self.axes)
        return z, y, x

    def box(self, bounds: Bounds) -> Slices | None:
        """The box of voxels that a shape can reach; None if there are none."""
        found = []
        for axis, (low, high) in zip(self.axes, bounds, strict=True):
            first = int(np.searchsorted(axis, low - 4 * self.BEND))
            last = int(np.searchsorted(axis, high + 4 * self.BEND))
            if last - first < 1:
                return None
            found.append(slice(first, last))
        return found[0], found[1], found[2]

    def evaluate(self, shape: Shape, box: Slices) -> Array:
        """The field of a shape in a box."""
        coordinates = []
        for number, (axis, bend) in enumerate(zip(self.axes, self.bends, strict=True)):
            straight = np.expand_dims(axis[box[number]].astype(np.float32), [n for n in range(3) if n != number])
            plane = tuple(slice(None) if n == number else s for n, s in enumerate(box))
            coordinates.append(straight + np.float32(self.BEND) * bend[plane])
        return shape.field(*coordinates)


def slabs(grid: Grid, bends: tuple[Waves, Waves, Waves], halo: int = 0) -> Iterator[tuple[Slab, slice]]:
    """The grid in slabs that fit into memory, each with the position of its own slices between those of the halo."""
    depth = grid.shape[0]
    for first in range(0, depth, SLAB):
        last = min(first + SLAB, depth)
        low, high = max(first - halo, 0), min(last + halo, depth)
        yield Slab(grid, slice(low, high), bends), slice(first - low, last - low)


def organ_map(grid: Grid, anatomy: Anatomy, bends: tuple[Waves, Waves, Waves], kidneys: bool) -> Tissue:
    """The tissue map of the liver and, on request, the kidneys, without lesions. uint8 [Z, Y, X]."""
    tissue = np.zeros(grid.shape, np.uint8)
    organs = [(anatomy.liver, LIVER), *((kidney, KIDNEY) for kidney in anatomy.kidneys if kidneys)]
    for slab, _ in slabs(grid, bends):
        part = tissue[slab.slices]
        for shape, code in organs:
            box = slab.box(shape.bounds())
            if box is not None:
                part[box][slab.evaluate(shape, box) < 0] = code
    return tissue


def add_cysts(
    tissue: Tissue, grid: Grid, difficulty: Difficulty, rng: np.random.Generator, within: bool = False
) -> None:
    """Add cysts to both organs; within: those of a kidney stay inside it, so that no label changes."""
    for organ, code in ((KIDNEY, KIDNEY_CYST), (LIVER, LIVER_CYST)):
        for _ in range(rng.integers(*difficulty.cysts_per_organ, endpoint=True)):
            diameter = _log_uniform(rng, difficulty.cyst_diameter)
            _add_lesion(tissue, grid, organ, code, diameter, CYST_IRREGULARITY, rng, within)


def add_tumours(tissue: Tissue, grid: Grid, dataset: str, difficulty: Difficulty, rng: np.random.Generator) -> None:
    """Add tumours to the organ of the data set."""
    if dataset == "kits":
        organ, code, number = KIDNEY, KIDNEY_TUMOUR, difficulty.tumours_per_kidney_case
    else:
        organ, code, number = LIVER, LIVER_TUMOUR, difficulty.tumours_per_liver_case
    for _ in range(rng.integers(*number, endpoint=True)):
        diameter = _log_uniform(rng, difficulty.tumour_diameter)
        _add_lesion(tissue, grid, organ, code, diameter, difficulty.tumour_irregularity, rng)


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _add_lesion(
    tissue: Tissue,
    grid: Grid,
    organ: int,
    code: int,
    diameter: float,
    irregularity: float,
    rng: np.random.Generator,
    within: bool = False,
) -> None:
    """Add a lesion around a random voxel of the organ. Only a kidney's may reach beyond it, unless it is `within`."""
    choices = np.flatnonzero(tissue == organ)
    if not len(choices):
        return
    centre = np.unravel_index(choices[rng.integers(len(choices))], tissue.shape)
    # A lesion thinner than two pixels would consist of partial volume only.
    radius = max(diameter / 2, grid.spacing[1])
    box, inside = _lesion_shape(grid, [int(c) for c in centre], radius, irregularity, rng)
    part = tissue[box]
    allowed = part == organ
    if organ == KIDNEY and not within:
        allowed |= part == OTHER
    seeds, _ = ndimage.label(inside & allowed)
    middle = tuple(int(c) - s.start for c, s in zip(centre, box, strict=True))
    part[seeds == seeds[middle]] = code


def _lesion_shape(
    grid: Grid, centre: list[int], radius: float, irregularity: float, rng: np.random.Generator
) -> tuple[Slices, NDArray[np.bool_]]:
    """An ellipsoid with random axes and a rough surface, as a mask in its box; it always contains the centre."""
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    axes = radius * rng.uniform(0.75, 1.25, 3)
    coarse, fine = Waves(rng, 1.6 * radius), Waves(rng, 0.7 * radius)
    reach = 1.25 * radius * (1 + 3 * irregularity)
    box = []
    for position, step, length in zip(centre, grid.spacing, grid.shape, strict=True):
        extent = int(reach / step) + 1
        box.append(slice(max(position - extent, 0), min(position + extent + 1, length)))
    positions = [
        grid.positions(axis)[s] - c * grid.spacing[axis] for axis, (s, c) in enumerate(zip(box, centre, strict=True))
    ]
    offsets = np.stack(np.meshgrid(*positions, indexing="ij"), axis=-1) @ turn / axes
    surface = np.linalg.norm(offsets, axis=-1) - 1
    surface += irregularity * (0.85 * coarse.at(*positions) + 0.5 * fine.at(*positions))
    inside: NDArray[np.bool_] = surface < 0
    inside[tuple(c - s.start for c, s in zip(centre, box, strict=True))] = True
    return (box[0], box[1], box[2]), inside
