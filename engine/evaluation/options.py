"""The command line of scripts/evaluate.py. Nothing heavy is imported, for `--help` should answer at once."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal

from utils.errors import UserError
from utils.options import option

ALIASES = {"data_path": "test_data_path", "out": "outpath"}


@dataclass(frozen=True, kw_only=True)
class CaseOptions:
    """cases: which"""

    inpath: Path | None = option(
        None, "raw cases, or a CSV file of them: whole volumes, distances in mm", exclusive="source"
    )
    test_data_path: Path | None = option(
        None, "slices that SliceMaker wrote, or the published archive", exclusive="source"
    )
    dataset: str | None = option(None, "layout of the raw cases (default: the checkpoint's)")
    cases: tuple[str, ...] = option((), "only these cases", exclusive="cases")
    splits: Path | None = option(None, "a splits.json: only its test cases (see --part)", exclusive="cases")
    part: Literal["train", "val", "test"] | None = option(None, "of --splits (default: test)")

    def __post_init__(self) -> None:
        if not (self.inpath or self.test_data_path):
            raise UserError("on which cases? give raw cases with --inpath, or slices with --test_data_path")
        if self.part and not self.splits:
            raise UserError(f"--part {self.part}: of which split? name its file with --splits")

    @property
    def place(self) -> Path:
        """Where the cases are."""
        place = self.inpath or self.test_data_path
        assert place is not None
        return place


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(CaseOptions):
    """evaluation: on which cases, and how"""

    outpath: Path = option(MISSING, "the JSON summary to write")
    slice_protocol: bool = option(False, "score as the published code does")
    report: Path | None = option(None, "also write a page of the scores with a viewer of the cases, an .html file")

    def __post_init__(self) -> None:
        if self.outpath.suffix != ".json":
            raise UserError(f"--outpath {self.outpath}: must end in .json; the table is written next to it as .csv")
        if self.report and self.report.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"--report {self.report}: must end in .html")
        if self.report and self.slice_protocol:
            raise UserError("--report: is of whole cases, and the slice protocol scores none; leave one out")
        super().__post_init__()

    @property
    def protocol(self) -> str:
        """What the scores are called."""
        return "slice protocol" if self.slice_protocol else "whole volumes" if self.inpath else "archived slices"
