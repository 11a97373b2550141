"""What a user of SliceMaker chooses."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from datasets.splits import SplitOptions
from utils.errors import UserError
from utils.numbers import ClosedShare, PositiveInt, PositiveShare
from utils.options import option

UNLABELLED_SHARE = 0.25


@dataclass(frozen=True)
class RawOptions:
    """raw cases"""

    inpath: Path = option(MISSING, "folder of the raw cases, or, of --dataset list, a CSV file")
    outpath: Path = option(MISSING, "folder for the slices")
    dataset: str = option("kits", "layout of the raw cases: kits, lits, acdc, heart, msd or list")
    task: str = option("tumor", "organ, tumor, all, or a name of the data")
    channel: str | None = option(
        None, "of --dataset msd: which to read of images with several, by name or number (default: the first)"
    )


@dataclass(frozen=True)
class SliceMakerOptions:
    """cutting

    mode, seed, test_fraction, val_fraction and labelled are those of `SplitOptions`, which checks them.
    """

    slices: Literal["target", "all"] = option("target", "what training cases have on disk")
    negatives: ClosedShare = option(0.1, "share of the other slices to train on")
    unlabelled: PositiveShare | None = option(
        None,
        f"also cut cases without segmentation: this share of their slices ({UNLABELLED_SHARE} without SHARE)",
        nargs="?",
        const=UNLABELLED_SHARE,
        metavar="SHARE",
    )
    labelled: int | None = option(
        None,
        "use the masks of N training cases, and cut the others without, into SLICES/unlabelled; 0: use all (default: "
        "as before, or 0)",
        metavar="N",
    )
    mode: Literal["train", "test"] | None = option(
        None, "test: every case is a test case (default: as before, or train)"
    )
    seed: int | None = option(None, "for the split and the choice of slices (default: as before, or 0)")
    test_fraction: float | None = option(
        None, "above 0: writes SLICES/train and SLICES/test (default: as before, or 0)"
    )
    val_fraction: float | None = option(None, "share of the cases to validate on (default: as before, or 0.1)")
    resplit: bool = option(False, "draw a new split and move the slices accordingly")
    keep_going: bool = option(False, "cut the other cases where some cannot be used; exit status 2 all the same")
    workers: PositiveInt | None = option(None, "processes (default: the number of cores)")

    @property
    def requested_split(self) -> dict[str, Any]:
        """The fields of `SplitOptions`; None where the user gave none."""
        return {field.name: getattr(self, field.name) for field in fields(SplitOptions)}


@dataclass(frozen=True)
class AnswerOptions:
    """answers: of a teacher, to distil from without its network"""

    teacher_probabilities: tuple[Path, ...] = option(
        (),
        "folders with each case's class probabilities, CASE.npz of nnU-Net or 4D NIfTI, to cut as the slices are; "
        "several are averaged",
        metavar="DIR",
    )
    teacher_labels: tuple[str, ...] = option(
        (),
        "the labels that the teacher's channels stand for, as in 1=1 2=2, or, for regions, 0=1+2 1=2 (default: as "
        "run.json or dataset.json in DIR says, or channel 1 is label 1, ...)",
        metavar="CHANNEL=LABEL",
    )

    def __post_init__(self) -> None:
        if self.teacher_labels and not self.teacher_probabilities:
            raise UserError(
                "--teacher_labels: are those of a teacher's answers; name their folder with --teacher_probabilities DIR"
            )
