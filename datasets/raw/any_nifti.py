"""Any folder of NIfTI files, as images without segmentation: masks next to them and further channels are no cases."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.raw.cases import OTHER_CHANNELS, Candidate, FoundCases, identify
from datasets.raw.light_nibabel import nib
from datasets.raw.tree import NO_CHANNEL, nifti_stem, scan, split_channel

EXPECTED = "images as .nii.gz or .nii files"
MASKS = "taken for segmentations by their names"
BELOW = "in a folder below; give that folder"
# More files than these with one name and four digits are patients rather than channels.
MOST_CHANNELS = 4
_WORD = "(segmentations?|segs?|masks?|labels?|labelmaps?|gt|annotations?|pred|predictions?)"
MASK_NAME = re.compile(rf"{_WORD}|.*[-_.]{_WORD}|{_WORD}[-_.].*")


def is_mask(path: Path) -> bool:
    """Whether the name is one that segmentations usually have: ct_1_seg, label_7, segmentation-3, case_gt."""
    return MASK_NAME.fullmatch((nifti_stem(path) or "").lower()) is not None


def find(root: Path, channel: int | None = None, below: bool = False) -> FoundCases:
    """The images in `root`. NAME_0000, NAME_0001, ... are the channels of one case where they can be.

    channel: to read of images with several, in one file or in files of their own; None for the first of files.
    below: those in the folders below it too, named FOLDER/NAME.
    """
    tree = scan(root)
    candidates = []
    other: dict[str, list[Path]] = defaultdict(list)
    folders = tree.folders if below else {root: tree.folders.get(root, [])}
    for folder, paths in folders.items():
        found = [path for path in paths if not is_mask(path)]
        prefix = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        candidates += [
            replace(each, name=f"{prefix}{each.name}")
            for each in _candidates(folder, found, channel, bool(prefix), other)
        ]
    other |= {
        MASKS: [path for paths in folders.values() for path in paths if is_mask(path)],
        BELOW: [path for path in tree.files if path.parent not in folders],
    }
    return identify(candidates, tree, EXPECTED, other={reason: paths for reason, paths in other.items() if paths})


def _candidates(
    folder: Path, files: Sequence[Path], channel: int | None, as_named: bool, other: dict[str, list[Path]]
) -> Iterator[Candidate]:
    """The cases of one folder; the files that are in none go to `other`. as_named: a file's name is its case's."""
    for name, paths in _grouped(files, channel is not None or _is_of_nnunet(folder), as_named):
        wanted = 0 if len(paths) == 1 else channel or 0
        if wanted >= len(paths):
            other[f"without channel {wanted}, which the network was trained on"] += paths
            continue
        other[OTHER_CHANNELS] += [path for path in paths if path != paths[wanted]]
        yield Candidate(name, paths[wanted], channel=channel_of(paths[wanted], channel))


def name_of(path: Path) -> str:
    """The file's name; case_00007/imaging.nii.gz is named 00007, as the KiTS layout names it."""
    name = nifti_stem(path) or path.name
    # Of the file no link is followed, for where it leads others may lie too.
    return path.parent.resolve().name.removeprefix("case_") if name == "imaging" else name


def channel_of(path: Path, channel: int | None) -> int | None:
    """`channel` if the file holds several, else None."""
    shape, _ = _geometry(path)
    return channel if len(shape) > 3 and int(np.prod(shape[3:])) > 1 else None


def _is_of_nnunet(root: Path) -> bool:
    return root.absolute().name in ("imagesTr", "imagesTs") or (root.absolute().parent / "dataset.json").is_file()


def _grouped(files: Sequence[Path], expects_channels: bool, as_named: bool) -> Iterator[tuple[str, list[Path]]]:
    """Each case's name with its files, one for each channel."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        groups[split_channel(nifti_stem(path) or "")[0]].append(path)
    channels = {base for base, paths in groups.items() if _are_channels(paths)}
    if not _is_plausible(groups, channels, expects_channels):
        channels = set()
    for base, paths in groups.items():
        if base in channels:
            yield base, paths
        else:
            yield from (((nifti_stem(path) if as_named else None) or name_of(path), [path]) for path in paths)


def _is_plausible(groups: Mapping[str, Sequence[Path]], channels: Collection[str], expects_channels: bool) -> bool:
    """Whether the groups in `channels` are cases: numbered patients must not vanish as the channels of one.

    Unless channels are expected, several cases have to agree in their number.
    """
    sizes = [len(groups[base]) for base in channels]
    if max(sizes, default=1) > MOST_CHANNELS:
        return False
    numbered = [base for base, paths in groups.items() if any(_number(path) != NO_CHANNEL for path in paths)]
    agree = len(set(sizes)) == 1 and len(sizes) == len(numbered)
    return expects_channels or max(sizes, default=1) == 1 or (agree and len(sizes) > 1)


def _number(path: Path) -> int:
    return split_channel(nifti_stem(path) or "")[1]


def _are_channels(paths: Sequence[Path]) -> bool:
    """Numbered from 0 on without a gap, and of one geometry."""
    if [_number(path) for path in paths] != list(range(len(paths))):
        return False
    (shape, affine), *others = map(_geometry, paths)
    return all(other[0] == shape and np.allclose(other[1], affine, atol=1e-3) for other in others)


def _geometry(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine in the header; of a file that cannot be read, none, which reading will say."""
    try:
        image: Any = nib.load(path)
        return image.shape, image.affine
    except (OSError, EOFError, ValueError, nib.spatialimages.HeaderDataError, nib.filebasedimages.ImageFileError):
        return (), np.zeros((4, 4))
