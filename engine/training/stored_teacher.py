"""A teacher that is answers on disk, for the slices that a run learns from and validates on."""

from __future__ import annotations

from collections.abc import Sequence

from datasets.slices.answers import FLAG, StoredAnswers
from datasets.slices.slice_folder import SliceFolder
from engine.options import RunOptions
from utils.errors import UserError


def open_answers(
    run: RunOptions, slices: SliceFolder, files: Sequence[tuple[SliceFolder, str]]
) -> StoredAnswers | None:
    """The answers that a run is distilled from, None where its teacher is a network, or where it has none.

    slices: to train on; files: all that are learnt from or validated on. UserError for answers of another task, or
    where one of the files has none.
    """
    if run.distillation is None or not run.distillation.teacher_probabilities:
        return None
    if run.training.init == "teacher":
        raise UserError("--init teacher: answers on disk have no weights; give the path of a checkpoint")
    answers = StoredAnswers.open(run.distillation.teacher_probabilities, slices.label_map.name)
    if (answers.label_map, answers.dataset) != (slices.label_map, slices.dataset):
        raise UserError(
            f"{FLAG} {run.distillation.teacher_probabilities[0]}: answers for task {answers.label_map.name} of "
            f"{answers.dataset} with other classes than {slices.folder}; cut the answers again"
        )
    answers.check(files)
    return answers
