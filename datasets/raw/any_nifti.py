"""Any folder of NIfTI files, as images without segmentation: masks next to them and further channels are no cases."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from datasets.raw.cases import OTHER_CHANNELS, Candidate, FoundCases, identify
from datasets.raw.tree import nifti_stem, scan, split_channel

EXPECTED = "images as .nii.gz or .nii files"
MASKS = "taken for segmentations by their names"
BELOW = "in a folder below; give that folder"
_WORD = "(segmentations?|segs?|masks?|labels?|labelmaps?|gt|annotations?|pred|predictions?)"
MASK_NAME = re.compile(rf"{_WORD}|.*[-_.]{_WORD}|{_WORD}[-_.].*")


def is_mask(path: Path) -> bool:
    """Whether the name is one that segmentations usually have: ct_1_seg, label_7, segmentation-3, case_gt."""
    return MASK_NAME.fullmatch((nifti_stem(path) or "").lower()) is not None


def find(root: Path, channel: int | None = None) -> FoundCases:
    """The images in `root`, not below it. NAME_0000, NAME_0001, ... of one geometry are the channels of one case.

    channel: to read of images with several, in one file or in files of their own; None for the first of files.
    """
    tree = scan(root)
    files = [path for path in tree.folders.get(root, []) if not is_mask(path)]
    candidates = []
    other: dict[str, list[Path]] = defaultdict(list)
    for name, paths in _grouped(files):
        wanted = 0 if len(paths) == 1 else channel or 0
        if wanted >= len(paths):
            other[f"without channel {wanted}, which the network was trained on"] += paths
            continue
        other[OTHER_CHANNELS] += [path for path in paths if path != paths[wanted]]
        candidates.append(Candidate(name, paths[wanted], channel=channel_of(paths[wanted], channel)))
    other |= {
        MASKS: [path for path in tree.folders.get(root, []) if is_mask(path)],
        BELOW: [path for path in tree.files if path.parent != root],
    }
    return identify(candidates, tree, EXPECTED, other={reason: paths for reason, paths in other.items() if paths})


def name_of(path: Path) -> str:
    """The file's name; case_00007/imaging.nii.gz is named 00007, as the KiTS layout names it."""
    name = nifti_stem(path) or path.name
    return path.resolve().parent.name.removeprefix("case_") if name == "imaging" else name


def channel_of(path: Path, channel: int | None) -> int | None:
    """`channel` if the file holds several, else None."""
    shape, _ = _geometry(path)
    return channel if len(shape) > 3 and int(np.prod(shape[3:])) > 1 else None


def _grouped(files: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Each case's name with its files, one for each channel."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        groups[split_channel(nifti_stem(path) or "")[0]].append(path)
    for base, paths in groups.items():
        if _are_channels(paths):
            yield base, paths
        else:
            yield from ((name_of(path), [path]) for path in paths)


def _are_channels(paths: Sequence[Path]) -> bool:
    """Numbered from 0 on without a gap, and of one geometry."""
    if [split_channel(nifti_stem(path) or "")[1] for path in paths] != list(range(len(paths))):
        return False
    (shape, affine), *others = map(_geometry, paths)
    return all(other[0] == shape and np.allclose(other[1], affine, atol=1e-3) for other in others)


def _geometry(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine in the header; of a file that cannot be read, none, which reading will say."""
    try:
        image: Any = nib.load(path)
        return image.shape, image.affine
    except (OSError, EOFError, ValueError, HeaderDataError, ImageFileError):
        return (), np.zeros((4, 4))
