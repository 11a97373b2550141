"""From anatomy and tissue map to HU: partial volume, texture, noise.

The noise has the band-passed power spectrum of filtered back-projection: it rises with the frequency and is cut off
by the kernel (K. M. Hanson: Detectability in computed tomographic images, Medical Physics 6, 1979).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from phantoms.anatomy import GAS, Anatomy, Fill, Part
from phantoms.shapes import Array, Waves
from phantoms.tissue import (
    KIDNEY,
    KIDNEY_CYST,
    KIDNEY_TUMOUR,
    LIVER,
    LIVER_CYST,
    LIVER_TUMOUR,
    OTHER,
    Difficulty,
    Grid,
    Slab,
    Slices,
    Tissue,
    slabs,
)

BLUR = (0.3, 0.55, 0.55)  # voxels, standard deviation of the scanner's point spread
HALO = 2  # slices
AIR = -1000.0


@dataclass(frozen=True)
class Look:
    """How tumours, cysts and kidneys look; the arrays are those of the voxels in `box`.

    depth, core_depth, cortex: mm below the surface of kidney or tumour; lesion: the number of the tumour, from 1.
    """

    box: Slices
    depth: Array
    lesion: NDArray[np.int32]
    lesion_hu: Array
    core_depth: Array
    core_hu: float
    cyst_hu: float
    cortex: float


def draw_look(tissue: Tissue, grid: Grid, anatomy: Anatomy, difficulty: Difficulty, rng: np.random.Generator) -> Look:
    """Draw contrast and core of every tumour, cyst contrast, and the thickness of the cortex."""
    tumour = (tissue == KIDNEY_TUMOUR) | (tissue == LIVER_TUMOUR)
    deep = (tissue == KIDNEY) | (tissue == KIDNEY_CYST) | tumour
    box = _bounding_box(deep)
    tumour, deep = tumour[box], deep[box]
    lesion, count = ndimage.label(tumour, np.ones((3, 3, 3)))
    depth = np.where(tumour, _depth(tumour, grid), _depth(deep, grid))
    thickest = np.zeros(count + 1)
    if count:
        thickest[1:] = ndimage.maximum(depth, lesion, np.arange(1, count + 1))
    phase = anatomy.phase
    if (tissue == LIVER_TUMOUR).any():
        hu = phase.liver + rng.uniform(*difficulty.liver_tumour_contrast, count + 1)
    else:
        hu = (phase.cortex + phase.medulla) / 2 + rng.uniform(*difficulty.kidney_tumour_contrast, count + 1)
    dead = (rng.uniform(size=count + 1) < difficulty.necrosis_share) & (2 * thickest > difficulty.necrosis_from)
    core_depth = np.where(dead, thickest * rng.uniform(0.35, 0.7, count + 1), np.inf)
    return Look(
        box=box,
        depth=depth,
        lesion=lesion,
        lesion_hu=hu.astype(np.float32),
        core_depth=core_depth.astype(np.float32),
        core_hu=rng.uniform(*difficulty.necrosis),
        cyst_hu=rng.uniform(*difficulty.cyst),
        cortex=rng.uniform(5.0, 8.0),
    )


def _bounding_box(mask: NDArray[np.bool_]) -> Slices:
    """The bounding box of a mask with a margin of one voxel; of an empty mask, the first voxel."""
    if not mask.any():
        return slice(0, 1), slice(0, 1), slice(0, 1)
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(int(hit[0]) - 1, 0), int(hit[-1]) + 2))
    return box[0], box[1], box[2]


def _depth(mask: NDArray[np.bool_], grid: Grid) -> Array:
    """Distance to the outside in mm, float32, computed on a grid of about 1.5 mm."""
    steps = [max(1, int(1.5 / spacing)) for spacing in grid.spacing]
    coarse = mask[:: steps[0], :: steps[1], :: steps[2]]
    spacing = [step * size for step, size in zip(steps, grid.spacing, strict=True)]
    distance = ndimage.distance_transform_edt(coarse, sampling=spacing).astype(np.float32)
    if max(steps) > 1:
        scale = [1 / step for step in steps]
        distance = ndimage.affine_transform(distance, scale, output_shape=mask.shape, order=1, mode="nearest")
    result: Array = distance
    return result


def render(
    tissue: Tissue,
    grid: Grid,
    anatomy: Anatomy,
    look: Look,
    bends: tuple[Waves, Waves, Waves],
    difficulty: Difficulty,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """The CT image, int16 HU [Z, Y, X]."""
    image = np.empty(grid.shape, np.int16)
    fine, coarse = Waves(rng, difficulty.texture_wavelength, 48), Waves(rng, 3 * difficulty.texture_wavelength)
    sigma = rng.uniform(*difficulty.noise)
    kernel = rng.uniform(0.35, 0.6)
    for slab, own in slabs(grid, bends, HALO):
        texture = 0.8 * fine.at(*slab.axes) + 0.6 * coarse.at(*slab.axes)
        canvas = np.full(slab.shape, AIR, np.float32)
        for part in anatomy.parts:
            _paint(canvas, slab, part, texture)
        here = tissue[slab.slices]
        organs = _organ_hu(here, slab, anatomy, look, texture, difficulty)
        _blend(canvas, organs, here != OTHER)
        canvas = canvas[own]
        canvas += _noise(canvas.shape, grid, sigma, kernel, rng)
        start = slab.slices.start + own.start
        image[start : start + len(canvas)] = np.clip(np.rint(canvas), -1024, 3071)
    return image


def _blend(canvas: Array, organs: Array, where: NDArray[np.bool_]) -> None:
    """Put the organs onto the canvas as a scanner sees them: both are blurred before they are added."""
    if not where.any():
        return
    box = _bounding_box(ndimage.binary_dilation(where.any(axis=0), iterations=2)[None])[1:]
    part = (slice(None), *box)
    share = ndimage.gaussian_filter(where[part].astype(np.float32), BLUR)
    added = ndimage.gaussian_filter(np.where(where[part], organs[part], 0), BLUR)
    canvas[part] = canvas[part] * (1 - share) + added


def _organ_hu(
    tissue: Tissue, slab: Slab, anatomy: Anatomy, look: Look, texture: Array, difficulty: Difficulty
) -> Array:
    """HU of the voxels of the tissue map in a slab, without blur; arbitrary values elsewhere."""
    phase = anatomy.phase
    mean = np.zeros(7, np.float32)
    mean[[KIDNEY, LIVER, KIDNEY_CYST, LIVER_CYST]] = phase.cortex, phase.liver, look.cyst_hu, look.cyst_hu
    amount = np.zeros(7, np.float32)
    amount[[KIDNEY, LIVER]] = difficulty.organ_texture
    hu = mean[tissue] + amount[tissue] * texture
    liver = tissue == LIVER
    for part in anatomy.liver_vessels:
        _paint(hu, slab, part, texture, liver)
    first, last = slab.slices.start, slab.slices.stop
    low, high = max(first, look.box[0].start), min(last, look.box[0].stop)
    if low < high:
        in_slab = (slice(low - first, high - first), *look.box[1:])
        in_box = slice(low - look.box[0].start, high - look.box[0].start)
        codes, rough = tissue[in_slab], texture[in_slab]
        depth, lesion = look.depth[in_box], look.lesion[in_box]
        inner = _step(depth - look.cortex - 2 * rough, 2.0)
        part_hu = hu[in_slab]
        kidney = codes == KIDNEY
        part_hu[kidney] += (inner * (phase.medulla - phase.cortex))[kidney]
        tumour = lesion > 0
        core = _step(depth - look.core_depth[lesion] + 2.5 * rough, 1.5)
        solid = look.lesion_hu[lesion] + difficulty.tumour_texture * rough
        part_hu[tumour] = (solid + core * (look.core_hu - solid))[tumour]
    return hu


def _step(distance: Array, width: float) -> Array:
    """0 below -width, 1 above width, linear in between."""
    result: Array = np.clip(distance / np.float32(2 * width) + np.float32(0.5), 0, 1)
    return result


def _coverage(field: Array) -> Array:
    """The share of each voxel that lies inside, 0 to 1, as if the surface were flat within a voxel."""
    spread = np.full(field.shape, 1e-3, np.float32)
    for axis, length in enumerate(field.shape):
        if length > 1:
            spread += np.abs(np.gradient(field, axis=axis))
    result: Array = np.clip(0.5 - field / spread, 0, 1)
    return result


def _paint(canvas: Array, slab: Slab, part: Part, texture: Array, where: NDArray[np.bool_] | None = None) -> None:
    """Paint one part over the canvas."""
    box = slab.box(part.shape.bounds())
    if box is None:
        return
    field = slab.evaluate(part.shape, box)
    if field.min() > 3:
        return
    share = _coverage(field)
    if where is not None:
        share *= where[box]
    under = canvas[box]
    under += share * (_content(part.fill, field, slab, box, texture[box]) - under)


def _content(fill: Fill, field: Array, slab: Slab, box: Slices, texture: Array) -> Array | np.float32:
    """HU inside a part, with its texture, wall and gas."""
    hu: Array | np.float32 = np.float32(fill.hu)
    if fill.texture:
        hu = hu + np.float32(fill.texture) * texture
    if fill.gas_above is not None:
        level = slab.axes[1][box[1]][None, :, None] < fill.gas_above
        hu = np.where(level, np.float32(GAS), hu)
    if fill.gas_bubbles:
        hu = hu + _step(texture - 0.7, 0.3) * np.float32(GAS - fill.hu)
    if fill.wall:
        lumen = _coverage(field + np.float32(fill.wall))
        hu = np.float32(fill.wall_hu) + lumen * (hu - np.float32(fill.wall_hu))
    return hu


def _noise(shape: tuple[int, ...], grid: Grid, sigma: float, kernel: float, rng: np.random.Generator) -> Array:
    """Noise in HU, strongest in the middle of the body; kernel: cut-off as a share of the Nyquist frequency."""
    rows, columns = shape[1:]
    fy, fx = np.fft.fftfreq(rows)[:, None] * 2, np.fft.rfftfreq(columns)[None] * 2
    frequency = np.hypot(fy, fx)
    weight = (np.sqrt(frequency + 0.02) * np.exp(-((frequency / kernel) ** 2) / 2)).astype(np.float32)
    white = rng.standard_normal(shape, np.float32)
    noise = fft.irfft2(fft.rfft2(white) * weight, s=(rows, columns))
    gain = sigma / max(float(noise.std()), 1e-6)
    middle = np.exp(-((grid.atlas(1)[:, None] / 120) ** 2) - (grid.atlas(2)[None] / 170) ** 2)
    result: Array = noise * (gain * (0.55 + 0.6 * middle)).astype(np.float32)
    return result
