"""CT-like volumes with exact labels, for demonstrations and tests.

A case depends on the recipe and on its own number only. Arrays are [Z, Y, X] and grow to superior, posterior, left.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phantoms.anatomy import HALF_DEPTH, HALF_WIDTH, draw_anatomy
from phantoms.render import draw_look, render
from phantoms.shapes import Waves
from phantoms.tissue import (
    KIDNEY,
    KIDNEY_TUMOUR,
    LABELS,
    LIVER,
    OTHER,
    Difficulty,
    Grid,
    Tissue,
    add_cysts,
    add_tumours,
    organ_map,
)
from utils.errors import UserError
from utils.seeding import generator

THICKNESSES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)  # mm
BEND_LENGTH = 130.0  # mm


@dataclass(frozen=True)
class Recipe:
    """Everything but its number that determines a case; UserError if a value is out of bounds.

    size: pixels along a side of a slice; slices: lowest and highest number of slices; tumour_free: share of cases
    without a tumour. Around given labels, size 0 keeps that of the labels, and slices is not used.
    """

    dataset: str = "kits"
    seed: int = 0
    size: int = 512
    slices: tuple[int, int] = (24, 48)
    tumour_free: float = 0.0
    difficulty: Difficulty = field(default_factory=Difficulty)

    def __post_init__(self) -> None:
        low, high = self.slices
        if not 4 <= low <= high:
            raise UserError(f"--slices {low} {high}: must be 4 <= LO <= HI")
        if not 0 <= self.tumour_free <= 1:
            raise UserError(f"--tumour_free {self.tumour_free:g}: must be from 0 to 1")

    def header_tag(self, number: int) -> str:
        """Identifies recipe and case in a file's header."""
        return f"phantom {number} {zlib.crc32(repr(self).encode()):08x}"


def synthesise(recipe: Recipe, number: int) -> tuple[NDArray[np.int16], Tissue, Grid, NDArray[np.float64]]:
    """Image (HU) and labels of one case, [Z, Y, X], its grid, and the affine of its file."""
    draw = partial(generator, recipe.seed, "phantom", number)
    grid = _draw_grid(recipe, draw("grid"))
    anatomy, bends = draw_anatomy(draw("anatomy")), _bends(draw("bends"))
    tissue = organ_map(grid, anatomy, bends, kidneys=True)
    add_cysts(tissue, grid, recipe.difficulty, draw("cysts"))
    tumours = draw("tumours")
    if tumours.uniform() >= recipe.tumour_free:
        add_tumours(tissue, grid, recipe.dataset, recipe.difficulty, tumours)
    look = draw_look(tissue, grid, anatomy, recipe.difficulty, draw("look"))
    image = render(tissue, grid, anatomy, look, bends, recipe.difficulty, draw("render"))
    return image, LABELS[recipe.dataset][tissue], grid, _draw_affine(recipe, grid, draw("storage"))


def image_around(recipe: Recipe, number: int, labels: Tissue, spacing: tuple[float, float, float]) -> NDArray[np.int16]:
    """Image (HU) around given kidneys (1) and kidney tumours (2), [Z, Y, X]; spacing (z, y, x) in mm."""
    draw = partial(generator, recipe.seed, "phantom", number)
    grid = _grid_around(labels, spacing)
    anatomy, bends = draw_anatomy(draw("anatomy")), _bends(draw("bends"))
    tissue = organ_map(grid, anatomy, bends, kidneys=False)
    # Where the synthetic liver would overlap a real kidney, a gap of fat remains, as in the patient.
    near = ndimage.maximum_filter(labels, size=[1 + 2 * int(3 / step) for step in spacing])
    tissue[(tissue == LIVER) & (near > 0)] = OTHER
    tissue[labels == 1] = KIDNEY
    tissue[labels == 2] = KIDNEY_TUMOUR
    add_cysts(tissue, grid, recipe.difficulty, draw("cysts"), within=True)
    look = draw_look(tissue, grid, anatomy, recipe.difficulty, draw("look"))
    return render(tissue, grid, anatomy, look, bends, recipe.difficulty, draw("render"))


def _bends(rng: np.random.Generator) -> tuple[Waves, Waves, Waves]:
    return Waves(rng, BEND_LENGTH), Waves(rng, BEND_LENGTH), Waves(rng, BEND_LENGTH)


def _draw_grid(recipe: Recipe, rng: np.random.Generator) -> Grid:
    """A field of view of 320 to 420 mm that the body nearly fills; the slices cover most of the organ."""
    view = rng.uniform(320, 420)
    depth = int(rng.integers(*recipe.slices, endpoint=True))
    fitting = [t for t in THICKNESSES if 90 <= t * depth <= 240]
    nearest = min(THICKNESSES, key=lambda t: abs(t * depth - 120))
    thickness = float(rng.choice(fitting)) if fitting else nearest
    pixel = round(view / recipe.size, 4)
    half_width = view / 2 * rng.uniform(0.84, 0.94)
    half_depth = half_width * rng.uniform(0.66, 0.76)
    middle = rng.uniform(-12, 12) + (0 if recipe.dataset == "kits" else 50)
    origin = (
        (depth - 1) / 2 * thickness - middle,
        view / 2 + rng.uniform(-12, 4),
        view / 2 + rng.uniform(-6, 6),
    )
    scale = (1.0, half_depth / HALF_DEPTH, half_width / HALF_WIDTH)
    return Grid((depth, recipe.size, recipe.size), (thickness, pixel, pixel), origin, scale)


def _grid_around(labels: Tissue, spacing: tuple[float, float, float]) -> Grid:
    """The atlas fitted to a patient of whom only the kidneys are labelled."""
    size = np.multiply(labels.shape, spacing)
    positions = np.argwhere(labels[:, ::2, ::2] > 0).astype(np.float64) * np.multiply(spacing, (1, 2, 2))
    if not len(positions):
        positions = size[None] / 2
    z, y, x = positions.T
    left, right = x[x >= size[2] / 2], x[x < size[2] / 2]
    both = min(len(left), len(right)) > 0.1 * len(x)
    middle = (left.mean() + right.mean()) / 2 if both else size[2] / 2
    half_width = max(1.1 * (left.mean() - right.mean()) if both else 150.0, np.abs(x - middle).max() + 28)
    half_width = float(min(half_width, 0.49 * max(size[2], 300.0)))
    front, back = float(y.min()) - 25, float(np.percentile(y, 99.5)) + 36
    half_depth = max(0.68 * half_width, (back - front) / 2)
    origin = (float(z.mean()), back - half_depth, float(middle))
    scale = (1.0, half_depth / HALF_DEPTH, half_width / HALF_WIDTH)
    depth, rows, columns = labels.shape
    return Grid((depth, rows, columns), spacing, origin, scale)


def _draw_affine(recipe: Recipe, grid: Grid, rng: np.random.Generator) -> NDArray[np.float64]:
    """KiTS: stored z, y, x to inferior, posterior, left. LiTS: stored x, y, z in random directions."""
    dz, dy, dx = grid.spacing
    affine = np.eye(4)
    if recipe.dataset == "kits":
        affine[:3, :3] = [[0, 0, -dx], [0, -dy, 0], [-dz, 0, 0]]
        return affine
    signs = rng.choice([-1, 1], 3)
    extent = np.multiply(grid.shape[::-1], (dx, dy, dz))
    affine[:3, :3] = np.diag(signs * (dx, dy, dz))
    affine[:3, 3] = np.round(-signs * extent / 2 + rng.uniform(-40, 40, 3), 2)
    return affine
