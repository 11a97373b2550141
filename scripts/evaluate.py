"""Score a checkpoint on whole volumes of raw cases, or on archived slices.

    python scripts/evaluate.py --ckpt best.ckpt --inpath data/raw/kits19 --out results.json
    python scripts/evaluate.py --ckpt best.ckpt --inpath RAW --splits data/kits/splits.json --out results.json
    python scripts/evaluate.py --ckpt best.ckpt --data_path data/kits --out results.json
    python scripts/evaluate.py --ckpt best.ckpt --data_path data/kits --slice_protocol --out published.json
    python scripts/evaluate.py --ckpt best.ckpt --data_path SLICES --splits SLICES/splits.json --part val --out val.json

Writes the summary as JSON and, beside it, one CSV line for each case and region.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import _root  # noqa: F401

from engine.options import Parser, prediction_options
from utils.errors import UserError, run
from utils.files import make_folder, write_json


def main() -> None:
    parser = Parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--inpath", type=Path, help="raw cases: whole volumes, distances in mm")
    source.add_argument("--data_path", type=Path, help="slices that SliceMaker wrote, or the published archive")
    parser.add_argument("--out", type=Path, required=True, help="the JSON summary to write")
    parser.add_argument("--dataset", help="layout of the raw cases (default: the checkpoint's)")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--cases", nargs="+", help="only these cases")
    chosen.add_argument("--splits", type=Path, help="a splits.json: only its test cases (see --part)")
    parser.add_argument("--part", choices=["train", "val", "test"], help="of --splits (default: test)")
    parser.add_argument("--slice_protocol", action="store_true", help="score as the published code does")
    prediction_options(parser)
    args = parser.parse_args()
    if args.out.suffix != ".json":
        raise UserError(f"--out {args.out}: must end in .json; the table goes beside it as .csv")
    if args.slice_protocol and args.threshold is not None:
        raise UserError("--threshold: the slice protocol has its own, 0.4; leave one of the two out")
    if args.part and not args.splits:
        raise UserError(f"--part {args.part}: of which split? name its file with --splits")
    part = args.part or "test"
    make_folder(args.out.parent)

    import torch

    from datasets.labelled_cases import cases_in_slices, raw_cases
    from datasets.raw import open_layout
    from datasets.slices.slice_folder import SliceFolder
    from datasets.splits import load_split
    from engine.device import choose_device, environment
    from engine.evaluation import evaluate
    from engine.evaluation.metrics import METRICS
    from engine.segmenter import load_segmenter
    from networks.count import count
    from utils.progress import progress

    device = choose_device(args.device)
    segmenter, content = load_segmenter(args.ckpt, device)
    dataset = args.dataset or segmenter.dataset
    names: list[str] | None = args.cases
    if args.splits:
        names = list(getattr(load_split(args.splits), part))
        if not names:
            raise UserError(f"{args.splits}: has no {part} cases; choose another --part")
    if args.inpath:
        cases = raw_cases(open_layout(dataset, args.inpath), args.inpath, names, segmenter.window)
        protocol = "whole volumes"
    else:
        slices = SliceFolder.open(
            args.data_path, dataset, segmenter.label_map.name, "test" if part == "test" else "train"
        )
        names = list(slices.cases) if names is None else names
        cases = cases_in_slices(slices, names, segmenter.window)
        protocol = "archived slices"

    metrics: tuple[str, ...] = (*METRICS, "crop_lost")
    if args.slice_protocol:
        protocol, metrics = "slice protocol", evaluate.PUBLISHED_METRICS

    rows: list[dict[str, Any]] = []
    for case in progress(cases, "evaluating", total=len(names) if names else None, unit="case"):
        if args.slice_protocol:
            rows += evaluate.score_case_as_published(segmenter, case, args.batch_size)
        else:
            rows += evaluate.score_case(segmenter, case, args.batch_size, args.threshold)
    side = segmenter.frame.image(torch.zeros(1, 512, 512)).shape[-1]
    parameters, macs = count(segmenter.network, side)
    result = {
        "protocol": protocol,
        "regions": evaluate.summarise(rows, metrics),
        "cases": len({row["case"] for row in rows}),
        "model": segmenter.model,
        "task": segmenter.label_map.name,
        "checkpoint": str(args.ckpt),
        "seen_in_training": evaluate.training_notice(content, {row["case"] for row in rows}),
        "config": content["config"],
        "parameters": parameters,
        "gmacs": round(macs / 1e9, 3),
        "gmacs_at": side,
        "command": " ".join(["python", *sys.argv]),
        "environment": environment(device),
    }
    if not args.slice_protocol:
        result["slices_per_second"] = round(evaluate.slices_per_second(rows), 2)
    table = args.out.with_suffix(".csv")
    evaluate.write_csv(table, rows)
    write_json(args.out, result)
    print(f"{protocol}, {result['cases']} cases\n{evaluate.format_summary(result['regions'])}")
    print(f"written: {args.out}, {table}")


if __name__ == "__main__":
    run(main)
