"""Score a checkpoint on whole volumes of raw cases, or on archived slices.

    python scripts/evaluate.py --ckpt best.ckpt --inpath data/raw/kits19 --out results.json
    python scripts/evaluate.py --ckpt best.ckpt --inpath RAW --splits data/kits/splits.json --out results.json
    python scripts/evaluate.py --ckpt best.ckpt --data_path data/kits --out results.json
    python scripts/evaluate.py --ckpt best.ckpt --data_path data/kits --slice_protocol --out published.json

Writes the summary as JSON and, beside it, one CSV line for each case and region.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import _root  # noqa: F401

from engine.options import Parser, device_options
from utils.errors import UserError, run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--ckpt", type=Path, required=True, help="a checkpoint of train.py or train_kd.py")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--inpath", type=Path, help="raw cases: whole volumes, distances in mm")
    source.add_argument("--data_path", type=Path, help="slices that SliceMaker wrote, or the published archive")
    parser.add_argument("--out", type=Path, required=True, help="the JSON summary to write")
    parser.add_argument("--dataset", help="layout of the raw cases (default: the checkpoint's)")
    parser.add_argument("--cases", nargs="+", help="only these raw cases")
    parser.add_argument("--splits", type=Path, help="a splits.json: only its test cases (see --part)")
    parser.add_argument("--part", choices=["train", "val", "test"], default="test", help="default: test")
    parser.add_argument("--slice_protocol", action="store_true", help="score as the published code does")
    parser.add_argument("--threshold", type=float, help="foreground above it (default: the likeliest class)")
    parser.add_argument("--batch_size", type=int, default=8, help="default: 8")
    device_options(parser)
    args = parser.parse_args()

    import torch

    from datasets import open_layout
    from datasets.archive import Archive
    from datasets.splits import load_split
    from engine import evaluate
    from engine.device import choose_device, environment
    from engine.metrics import METRICS
    from engine.segmenter import load_segmenter
    from networks.count import count
    from utils.files import write_json
    from utils.progress import progress

    device = choose_device(args.device)
    segmenter, content = load_segmenter(args.ckpt, device)
    dataset = args.dataset or segmenter.dataset
    names: list[str] | None = args.cases
    if args.splits:
        names = list(getattr(load_split(args.splits), args.part))
    if args.inpath:
        cases = evaluate.raw_cases(open_layout(dataset, args.inpath), args.inpath, names, segmenter.window)
        protocol = "whole volumes"
    else:
        archive = Archive.open(args.data_path, dataset, segmenter.task.name, "test")
        cases = evaluate.archived_cases(archive, names or archive.cases, segmenter.window)
        protocol = "every archived slice"

    metrics: tuple[str, ...] = (*METRICS, "crop_lost")
    if args.slice_protocol:
        protocol, metrics = "slice protocol", evaluate.PUBLISHED_METRICS

    rows: list[dict[str, Any]] = []
    for case in progress(cases, "evaluating", total=len(names) if names else None, unit="case"):
        if args.slice_protocol:
            rows += evaluate.score_case_as_published(segmenter, case, args.batch_size)
        else:
            rows += evaluate.score_case(segmenter, case, args.batch_size, args.threshold)
    if not rows:
        raise UserError(f"{args.splits or args.data_path}: names no case to score")

    side = segmenter.frame.image(torch.zeros(1, 512, 512)).shape[-1]
    parameters, macs = count(segmenter.network, side)
    result = {
        "protocol": protocol,
        "regions": evaluate.summarise(rows, metrics),
        "cases": len({row["case"] for row in rows}),
        "model": segmenter.model,
        "task": segmenter.task.name,
        "checkpoint": str(args.ckpt),
        "trained": content["config"],
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
