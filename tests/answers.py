"""A teacher's probabilities for small raw cases, as nnU-Net writes them, and their slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.raw import open_layout
from datasets.slicing.answer_slices import Answers, AnswerSummary, answer_slices
from datasets.slicing.options import AnswerOptions, SliceMakerOptions
from datasets.slicing.slicemaker import find_raw, make_slices
from tests.data import voxels

SURE = 0.9


def near_mask(mask: NDArray[np.uint8], seed: int = 0, classes: int = 3) -> NDArray[np.float32]:
    """Probabilities [C, ...] of which the highest is the mask's, other ones at each voxel and for each seed."""
    draws = np.random.default_rng(seed).uniform(0.01, 1 - SURE, (classes, *mask.shape)).astype(np.float32)
    draws += SURE * (mask == np.arange(classes)[:, None, None, None])
    return draws / draws.sum(axis=0)


def write_answer(path: Path, probabilities: NDArray[np.float32]) -> None:
    """probabilities: [C, x, y, z], the file's own axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, probabilities=probabilities.transpose(0, 3, 2, 1))


def answer_masks(raw: Path, folder: Path, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Answers to all KiTS cases of a folder that are near their masks, and these in the files' own axes, by case."""
    answers = {}
    for path in sorted(raw.glob("case_*/segmentation.nii.gz")):
        answers[path.parent.name] = near_mask(voxels(path), seed)
        write_answer(folder / f"{path.parent.name}.npz", answers[path.parent.name])
    return answers


def cut_answered(
    raw: Path, out: Path, *folders: Path, task: str = "all", labels: tuple[str, ...] = (), **options: Any
) -> AnswerSummary:
    """SliceMaker with a teacher's probabilities, in this process."""
    layout = open_layout("kits", raw)
    label_map, chosen = layout.label_map(task), SliceMakerOptions(**{"workers": 1, **options})
    answers = Answers(AnswerOptions(folders, labels), find_raw(raw, layout, chosen))
    make_slices(raw, out, layout, label_map, chosen)
    return answer_slices(out, layout, label_map, answers, workers=1)
