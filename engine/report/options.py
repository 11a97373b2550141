"""The command line of scripts/report.py. Nothing heavy is imported, for `--help` should answer at once."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal

from engine.evaluation.options import CaseOptions
from utils.errors import UserError
from utils.numbers import NonNegativeInt, PositiveInt
from utils.options import option

ALIASES = {"out": "outpath"}
CHECKPOINTS = ("best", "last", "checkpoint")
"""Names of files that say nothing: the folder's does."""


@dataclass(frozen=True)
class ReportOptions:
    """report: which networks, on which cases"""

    outpath: Path = option(MISSING, "the page to write, an .html file")
    ckpt: tuple[Path, ...] = option(
        (), "checkpoints of one task, the one to compare with first", metavar="CKPT", exclusive="networks"
    )
    results: tuple[Path, ...] = option(
        (),
        "in place of checkpoints, results that evaluate.py wrote, with their .csv: no viewer",
        metavar="JSON",
        exclusive="networks",
    )
    names: tuple[str, ...] = option((), "of the networks, in the page (default: of their folders)", metavar="NAME")
    title: str | None = option(None, "of the page")
    inpath: Path | None = option(None, "raw cases, or a CSV file of them")
    dataset: str | None = option(None, "layout of the raw cases (default: the checkpoints')")
    cases: tuple[str, ...] = option((), "only these cases", exclusive="cases")
    splits: Path | None = option(None, "a splits.json: only its test cases (see --part)", exclusive="cases")
    part: Literal["train", "val", "test"] | None = option(None, "of --splits (default: test)")
    attention: Path | None = option(
        None, "the folder that explain.py wrote for networks of the page: where they look", metavar="FOLDER"
    )
    viewer_cases: NonNegativeInt = option(12, "how many cases to look at, those with the lowest Dice", metavar="N")
    batch_size: PositiveInt = option(8, "slices at once")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")

    def __post_init__(self) -> None:
        if self.outpath.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"--outpath {self.outpath}: must end in .html")
        if not self.paths:
            raise UserError("what shall be reported? give checkpoints with --ckpt, or results with --results")
        if self.ckpt and not self.inpath:
            raise UserError("--ckpt: on which cases? give raw ones with --inpath")
        if self.results and (self.inpath or self.cases or self.splits):
            raise UserError("--results: are of their own cases; leave --inpath, --cases and --splits out")
        if self.part and not self.splits:
            raise UserError(f"--part {self.part}: of which split? name its file with --splits")
        if self.names and len(self.names) != len(self.paths):
            raise UserError(f"--names: {len(self.names)} for {len(self.paths)} networks; give one for each")
        if len(set(self.network_names)) < len(self.network_names):
            raise UserError("--names: two networks have the same; give each its own")

    @property
    def of_cases(self) -> CaseOptions:
        """Which cases, as scripts/evaluate.py has it."""
        return CaseOptions(
            inpath=self.inpath, dataset=self.dataset, cases=self.cases, splits=self.splits, part=self.part
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.ckpt or self.results

    @property
    def network_names(self) -> list[str]:
        """Those given, or else the names of the folders where these differ, or of the files."""
        if self.names:
            return list(self.names)
        folders = [path.absolute().parent.name for path in self.paths]
        files = [path.stem for path in self.paths]
        if len(set(folders)) == len(folders) and (self.results or all(stem in CHECKPOINTS for stem in files)):
            return folders
        if len(set(files)) == len(files):
            return files
        return [f"{folder} {stem}" for folder, stem in zip(folders, files, strict=True)]
