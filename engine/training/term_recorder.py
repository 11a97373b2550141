"""What each term of a distillation loss is worth over a training, as `train_kd.py --record_terms` writes it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distillation.gradients import gradient_norms, stage_groups
from utils.errors import UserError
from utils.files import atomic_write, make_folder, writing

TermRecord = dict[str, Any]


class TermRecorder:
    """Every `every` steps appends a line to `path`: the step, each term's value, its gradient on each stage.

    A line is {"step": int, "values": {term: value}, "norms": {term: {stage: L2 norm}}}; the stages are those of
    `distillation.gradients.stage_groups`.
    """

    def __init__(self, path: Path, every: int, writes: bool = True) -> None:
        """writes: False only measures, which all processes that train together have to do."""
        self.path, self.every, self.writes = path, every, writes
        self.opened = False

    def __call__(self, step: int, terms: Mapping[str, Tensor], student: nn.Module) -> None:
        if not self.opened and self.writes:
            self._drop_from(step)
            self.opened = True
        if step % self.every:
            return
        record = {
            "step": step,
            "values": {term: float(value.detach()) for term, value in terms.items()},
            "norms": {
                term: {stage: float(norm) for stage, norm in norms.items()}
                for term, norms in gradient_norms(terms, stage_groups(student)).items()
            },
        }
        if not self.writes:
            return
        make_folder(self.path.parent)
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())  # It may not lag behind last.ckpt, or a resumed run would lack lines.

    def _drop_from(self, step: int) -> None:
        """Drop the lines of an earlier run, or of steps that a resumed run takes again."""
        if self.path.exists():
            kept = [record for record in read_records(self.path) if record["step"] < step]
            with atomic_write(self.path) as temporary:
                temporary.write_text("".join(map(_line, kept)), encoding="utf-8")


def read_records(path: Path) -> list[TermRecord]:
    """The lines that a `TermRecorder` wrote, without a last one that was cut off; UserError if they are none."""
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise UserError(
            f"{path}: is not what train_kd.py --record_terms writes ({error}); move it away, or name another"
        ) from None


def _line(record: TermRecord) -> str:
    return json.dumps(record) + "\n"
