"""What each term of a distillation loss is worth over a training, as `train_kd.py --record_terms` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distillation.gradients import gradient_norms, stage_groups
from utils.files import make_folder

Record = dict[str, Any]


class TermRecorder:
    """Every `every` steps appends a line to `path`: the step, each term's value, its gradient on each stage.

    A line is {"step": int, "values": {term: value}, "norms": {term: {stage: L2 norm}}}; the stages are those of
    `distillation.gradients.stage_groups`. A resumed run goes on counting from the last line.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        before = read_records(path) if path.exists() else []
        self.step = before[-1]["step"] + 1 if before else 0

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
                file.write(json.dumps(record) + "\n")
        self.step += 1


def read_records(path: Path) -> list[Record]:
    """The lines that a `TermRecorder` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
