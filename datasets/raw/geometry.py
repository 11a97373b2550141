"""How a segmentation lies on its image: orientation, spacing and origin, each by itself."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from datasets.raw.light_nibabel import nib
from datasets.raw.nifti import Orientation, Source
from utils.errors import UserError

# In mm, and of direction cosines: what rounding in headers leaves.
TOLERANCE = 1e-3
# In voxels, how far a turned segmentation may lie from the image.
NEAR = 0.5

Affine = NDArray[np.float64]


def image_notes(image: Source) -> list[str]:
    """Notes where an image's header leaves open how its voxels lie: no orientation, or two that disagree."""
    if not image.forms:
        return [f"its header has no orientation: taken as {codes(image.affine)}"]
    return form_notes(image, "its")


def form_notes(source: Source, whose: str) -> list[str]:
    """A note if the header's sform and qform disagree."""
    forms = source.forms
    if len(forms) == 2:
        sform, qform = forms.values()
        if relative_orientation(sform, qform) != Orientation((0, 1, 2), (1, 1, 1)):
            return [f"{whose} sform is {codes(sform)}, but its qform {codes(qform)}: the sform is used"]
        if (apart := distance(sform, qform, source.shape)) > NEAR:
            return [f"{whose} sform and qform lie {apart:.3g} voxels apart: the sform is used"]
    return []


def place_label(label: Source, image: Source, choice: str | None) -> tuple[Orientation, list[str], str | None]:
    """How to read a segmentation's voxels onto the image's, notes, and `choice` if it decided that.

    choice: for headers that differ in orientation, "header" or "array"; UserError without one, or if the
    segmentation does not fit.
    """
    as_image = Orientation.of(image.affine)
    turn = relative_orientation(image.affine, label.affine)
    same = turn == Orientation((0, 1, 2), (1, 1, 1))
    if same or not label.forms:
        if label.shape != image.shape:
            swapped = sorted(label.shape) == sorted(image.shape)
            remedy = "its axes are swapped, and its header does not say so: save it again" if swapped else "replace one"
            raise UserError(f"{label.path}: has shape {label.shape}, but {image.path} has {image.shape}; {remedy}")
        if not label.forms:
            return as_image, ["the segmentation's header has no orientation: taken as that of the image"], None
        return as_image, _differences(label.affine, image.affine), None
    turned = compose(as_image, turn)
    fits = {"header": _lies_on(label, image, turn), "array": label.shape == image.shape}
    differ = f"has the orientation {codes(label.affine)}, but {image.path.name} {codes(image.affine)}"
    if choice is None:
        verdicts = {name: "fits" if fit else "does not fit" for name, fit in fits.items()}
        raise UserError(
            f"{label.path}: {differ}; --label_geometry header turns it by its header (then it {verdicts['header']} the "
            f"image), --label_geometry array takes its voxels as they are ({verdicts['array']})"
        )
    if not fits[choice]:
        raise UserError(f"{label.path}: {differ}, and by --label_geometry {choice} it does not fit; resample it")
    how = "turned by its header" if choice == "header" else "its voxels are taken as they are"
    return turned if choice == "header" else as_image, [f"the segmentation {differ}: {how}"], choice


def compose(image: Orientation, turn: Orientation) -> Orientation:
    """The orientation of a file that is turned relative to an image of this one (`relative_orientation`)."""
    return Orientation(
        tuple(image.axes[axis] for axis in turn.axes),
        tuple(image.directions[axis] * sign for axis, sign in zip(turn.axes, turn.directions, strict=True)),
    )


def relative_orientation(image: Affine, other: Affine) -> Orientation:
    """For each axis of `other` the nearest axis of `image`, and -1 where it runs the other way.

    Compared with each other, not with the patient's axes, so that two oblique files near 45 degrees agree.
    """
    pairs = nib.orientations.io_orientation(np.linalg.inv(image) @ other).astype(int)
    return Orientation(tuple(pairs[:, 0].tolist()), tuple(pairs[:, 1].tolist()))


def distance(image: Affine, other: Affine, shape: tuple[int, ...], turn: Orientation | None = None) -> float:
    """The largest distance, in the image's voxels, of a corner of `other` from where it should lie on the image.

    shape: of `other`; turn: its orientation relative to the image, by default the same.
    """
    turn = turn or Orientation((0, 1, 2), (1, 1, 1))
    relative = np.linalg.inv(image) @ other
    ends = [np.array((0, size - 1)) for size in shape]
    worst = 0.0
    for corner in itertools.product((0, 1), repeat=3):
        place = np.array([end[which] for end, which in zip(ends, corner, strict=True)])
        expected = np.empty(3)
        for axis, sign, value, size in zip(turn.axes, turn.directions, place, shape, strict=True):
            expected[axis] = value if sign > 0 else size - 1 - value
        worst = max(worst, float(np.abs(relative[:3, :3] @ place + relative[:3, 3] - expected).max()))
    return worst


def codes(affine: Affine) -> str:
    """Such as LPS: where the file's axes run to."""
    return "".join(str(code) for code in nib.orientations.aff2axcodes(affine))


def _lies_on(label: Source, image: Source, turn: Orientation) -> bool:
    shape = turn.to_zyx(label.shape)
    return shape == image.shape and distance(image.affine, label.affine, label.shape, turn) <= NEAR


def _differences(label: Affine, image: Affine) -> list[str]:
    """One note on direction, spacing and origin, which hardly matter where the voxels are the same."""
    parts: list[str] = []
    spacings = [nib.affines.voxel_sizes(affine) for affine in (label, image)]
    cosines = [affine[:3, :3] / spacing for affine, spacing in zip((label, image), spacings, strict=True)]
    if np.abs(cosines[0] - cosines[1]).max() > TOLERANCE:
        cosine = np.clip((cosines[0] * cosines[1]).sum(axis=0).min(), -1, 1)
        parts.append(f"orientation by {np.degrees(np.arccos(cosine)):.2g} degrees")
    if np.abs(spacings[0] - spacings[1]).max() > TOLERANCE:
        of_label, of_image = (" x ".join(f"{size:.4g}" for size in each) for each in spacings)
        parts.append(f"spacing ({of_label} instead of {of_image} mm)")
    if (apart := float(np.linalg.norm(label[:3, 3] - image[:3, 3]))) > TOLERANCE:
        parts.append(f"origin by {apart:.3g} mm")
    return [f"the segmentation's header differs in {', '.join(parts)}: the image's is used"] if parts else []
