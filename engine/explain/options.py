"""The command line of scripts/explain.py. Nothing heavy is imported, for `--help` should answer at once."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from engine.evaluation.options import CaseOptions
from utils.errors import UserError
from utils.numbers import NonNegativeInt, PositiveInt
from utils.options import option

Layer = Literal["e1", "e2", "e3", "e4", "e5", "d5", "d4", "d3", "d2"]


class SliceName(NamedTuple):
    """number: the source's own, of the slice."""

    case: str
    number: int


def read_slice_name(text: str) -> SliceName:
    """An argparse type: CASE:INDEX."""
    case, colon, index = text.rpartition(":")
    if not (case and colon and index.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no slice: write CASE:INDEX, such as 00012:47")
    return SliceName(case, int(index))


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(CaseOptions):
    """explanation: of which networks, where in them, on which slices"""

    ckpt: tuple[Path, ...] = option(
        MISSING, "one or several; the first is the teacher, and the last is compared with the one before it"
    )
    names: tuple[str, ...] = option((), "what to call the networks (default: the folders of --ckpt)")
    target: str | None = option(None, "the class to explain (default: the last of the task)", metavar="CLASS")
    layers: tuple[Layer, ...] = option(("e3", "e5", "d2"), "stages of the networks", metavar="STAGE")
    method: tuple[Literal["gcam", "gcampp"], ...] = option(("gcam", "gcampp"), "Grad-CAM, Grad-CAM++")
    slices: tuple[Annotated[SliceName, read_slice_name], ...] = option(
        (), "to draw (default: chosen by gain, size of the target, and a draw)", metavar="CASE:INDEX"
    )
    random: NonNegativeInt = option(2, "how many slices to draw at random, before any result is known")
    seed: NonNegativeInt = option(0, "of the random draw")
    batch_size: PositiveInt = option(8, "slices at once")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")
    outpath: Path = option(MISSING, "folder for index.html, the pictures, attention.csv and attention.json")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.names and len(self.names) != len(self.ckpt):
            raise UserError(f"--names: {len(self.names)} names for {len(self.ckpt)} checkpoints; give one for each")
        if twice := [name for name, count in Counter(self.network_names).items() if count > 1]:
            raise UserError(f"{twice[0]}: is the name of several networks; tell them apart with --names")

    @property
    def network_names(self) -> tuple[str, ...]:
        return self.names or tuple(path.resolve().parent.name for path in self.ckpt)
