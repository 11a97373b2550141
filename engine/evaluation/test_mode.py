"""--mode test: a trained network on archived slices, scored per case and by the published protocol."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import open_slices
from engine.device import choose_device
from engine.evaluation.evaluate import (
    PUBLISHED_METRICS,
    CaseScores,
    format_summary,
    score_case,
    score_case_as_published,
    summarise,
    training_notice,
    write_csv,
)
from engine.segmenter import load_segmenter
from utils.errors import UserError
from utils.files import write_json
from utils.progress import progress
from utils.registry import plain


def test(args: argparse.Namespace, option: str, network: str | None) -> None:
    """Score best.ckpt on the test slices; print it and write test.json, test.csv and test_published.csv beside it.

    option: `model` or `smodel`, and network what was given with it. UserError if the checkpoint is of another
    network, data set or task than was asked for.
    """
    path = args.checkpoint_path / "best.ckpt"
    segmenter, content = load_segmenter(path, choose_device(args.device))
    for name, asked, trained in (
        ("dataset", args.dataset, segmenter.dataset),
        ("task", args.task, segmenter.label_map.name),
        (option, network, segmenter.model),
    ):
        if asked and plain(asked) != plain(trained):
            raise UserError(
                f"{args.checkpoint_path}: was trained with --{name} {trained}, not {asked}; "
                f"give --{name} {trained}, or another --checkpoint_path"
            )
    slices = open_slices(args.test_data_path, segmenter.dataset, segmenter.label_map.name, "test")
    print(f"{path}: {segmenter.model} for task {segmenter.label_map.name} of {segmenter.dataset}", flush=True)
    rows: list[CaseScores] = []
    published: list[CaseScores] = []
    cases = cases_in_slices(slices, slices.cases, segmenter.window)
    for case in progress(cases, "testing", total=len(slices.cases), unit="case"):
        rows += score_case(segmenter, case, args.batch_size)
        published += score_case_as_published(segmenter, case, args.batch_size)
    results: dict[str, Any] = {
        "archived slices": summarise(rows),
        "slice protocol": summarise(published, PUBLISHED_METRICS),
        "seen_in_training": training_notice(content, slices.cases),
        "model": segmenter.model,
        "dataset": segmenter.dataset,
        "task": segmenter.label_map.name,
        "slices from": str(slices.folder),
        "command": " ".join(["python", *sys.argv]),
    }
    write_csv(args.checkpoint_path / "test.csv", rows)
    write_csv(args.checkpoint_path / "test_published.csv", published)
    write_json(args.checkpoint_path / "test.json", results)
    complete = sum(slices.complete(name) for name in slices.cases)
    print(f"archived slices of {len(slices.cases)} cases, {complete} of them complete")
    print(format_summary(results["archived slices"]))
    print(f"slice protocol, as published\n{format_summary(results['slice protocol'])}")
