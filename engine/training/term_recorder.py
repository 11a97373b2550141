"""What each term of a distillation loss is worth over a training, as `train_kd.py --record_terms` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distillation.gradients import gradient_norms, stage_groups
from utils.errors import UserError
from utils.files import atomic_write, make_folder

Record = dict[str, Any]


class TermRecorder:
    """Every `every` steps appends a line to `path`: the step, each term's value, its gradient on each stage.

    A line is {"step": int, "values": {term: value}, "norms": {term: {stage: L2 norm}}}; the stages are those of
    `distillation.gradients.stage_groups`.
    """

    def __init__(self, path: Path, every: int, step: int = 0) -> None:
        """step: the one to come; what `path` holds from there on is dropped, for it is taken again."""
        self.path, self.every, self.step = path, every, step
        if path.exists():
            kept = [record for record in read_records(path) if record["step"] < step]
            with atomic_write(path) as temporary:
                temporary.write_text("".join(map(_line, kept)), encoding="utf-8")

    def __call__(self, terms: Mapping[str, Tensor], student: nn.Module) -> None:
        if self.step % self.every == 0:
            record = {
                "step": self.step,
                "values": {term: float(value.detach()) for term, value in terms.items()},
                "norms": {
                    term: {stage: float(norm) for stage, norm in of.items()}
                    for term, of in gradient_norms(terms, stage_groups(student)).items()
                },
            }
            make_folder(self.path.parent)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(record))
        self.step += 1


def read_records(path: Path) -> list[Record]:
    """The lines that a `TermRecorder` wrote, without a last one that it could not end; UserError if they are none."""
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise UserError(
            f"{path}: is not what train_kd.py --record_terms writes ({error}); move it away, or name another"
        ) from None


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"
