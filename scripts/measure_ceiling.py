"""The highest Dice that a network's map of logits can reach, by fitting the map to the truth of test cases.

    python scripts/measure_ceiling.py --data_path data/lits --dataset lits --task organ --size 96 128 256 --crop 0
    python scripts/measure_ceiling.py --data_path data/lits --dataset lits --task organ --model resnet_18 resnet_18_os8

A network without a decoder predicts one value of each class for a square of pixels; whatever it learns, its Dice stays
below that of the best such values. They are upsampled as by the network, brought back to the source's slices and scored
over each case.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal

import _root  # noqa: F401

from utils.errors import UserError, run
from utils.numbers import NonNegativeInt, PositiveInt
from utils.options import Parser, option


@dataclass(frozen=True)
class CeilingOptions:
    """ceiling: of which maps, on which slices"""

    data_path: Path = option(MISSING, "slices that SliceMaker wrote")
    dataset: str = option("kits", "of the slices")
    task: str = option("tumor", "of the slices")
    part: Literal["test", "val"] = option("test", "which of the cases")
    size: tuple[NonNegativeInt, ...] = option((512,), "slices are resized to SIZE x SIZE; 0 keeps them")
    crop: NonNegativeInt | None = option(None, "pixels a side of the frame; 0 for all (default: 3/4 of SIZE)")
    stride: tuple[PositiveInt, ...] = option((32, 16, 8), "pixels of the frame to one logit", exclusive="map")
    model: tuple[str, ...] = option(
        (), "networks without a decoder, for their strides", metavar="NAME", exclusive="map"
    )
    steps: PositiveInt = option(200, "of gradient ascent")
    markdown: bool = option(False, "print Markdown tables")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")


def main() -> None:
    (options,) = Parser(__doc__).read(CeilingOptions)
    measure(options)


def measure(options: CeilingOptions) -> None:
    """Print a table for each region: a line for each size, a column for each stride."""
    # PyTorch takes seconds to load, and --help should not wait for it.
    import pandas as pd

    from datasets.frame import Frame
    from datasets.labelled_cases import cases_in_slices
    from datasets.slices.slice_folder import open_slices
    from engine.device import choose_device
    from engine.evaluation.ceiling import ceiling_scores
    from engine.evaluation.summaries import summarise
    from engine.reporting import format_number, format_table, markdown_table
    from utils.progress import progress

    device, strides = choose_device(options.device), strides_of(options)
    frames = [Frame(size, options.crop) for size in options.size]
    folder = "test" if options.part == "test" else "train"
    slices = open_slices(options.data_path, options.dataset, options.task, folder)
    names = list(slices.cases) if options.part == "test" else slices.val_cases
    if not names:
        raise UserError(f"{slices.folder}: has no validation cases set apart; choose --part test")
    cases = list(cases_in_slices(slices, names, None))
    lines: dict[str, list[dict[str, str]]] = {}
    for frame in progress(frames, "fitting", unit="size"):
        columns = {
            title: summarise(
                [
                    entry
                    for case in cases
                    for entry in ceiling_scores(case, slices.label_map, frame, stride, options.steps, device)
                ],
                ("dice",),
            )
            for title, stride in strides.items()
        }
        for region in slices.label_map.regions:
            dice = {title: summary[region]["dice"] for title, summary in columns.items()}
            counted = max(value["count"] for value in dice.values())
            lines.setdefault(region, []).append(
                {
                    f"highest Dice ({region}, {counted} cases)": f"{frame.side or 'native'} pixels",
                    **{title: format_number(value["mean"], ".3f") for title, value in dice.items()},
                }
            )
    show = markdown_table if options.markdown else format_table
    print("\n\n".join(show(pd.DataFrame(table)) for table in lines.values()))


def strides_of(options: CeilingOptions) -> dict[str, int]:
    """The table's columns: title -> stride; UserError for a network that predicts from something else than e5."""
    from networks import build, network_name

    strides = {}
    for name in map(network_name, options.model):
        channels = build(name, classes=2).channels
        if channels.has_decoder:
            raise UserError(f"--model {name}: has a decoder, and does not predict from one coarse map; give --stride")
        strides[name] = channels.stage("e5").stride
    return strides or {f"stride {stride}": stride for stride in options.stride}


if __name__ == "__main__":
    run(main)
