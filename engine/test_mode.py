"""--mode test: a trained network on archived slices, scored per case and by the published protocol."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from engine.device import choose_device
from engine.evaluate import (
    PUBLISHED_METRICS,
    CaseScores,
    archived_cases,
    format_summary,
    score_case,
    score_case_as_published,
    summarise,
    training_notice,
    write_csv,
)
from engine.segmenter import load_segmenter
from engine.training import open_archive
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
        ("task", args.task, segmenter.task.name),
        (option, network, segmenter.model),
    ):
        if asked and plain(asked) != plain(trained):
            raise UserError(
                f"{args.checkpoint_path}: was trained with --{name} {trained}, not {asked}; "
                f"give --{name} {trained}, or another --checkpoint_path"
            )
    archive = open_archive(args.test_data_path, segmenter.dataset, segmenter.task.name, "test")
    print(f"{path}: {segmenter.model} for task {segmenter.task.name} of {segmenter.dataset}", flush=True)
    rows: list[CaseScores] = []
    published: list[CaseScores] = []
    cases = archived_cases(archive, archive.cases, segmenter.window)
    for case in progress(cases, "testing", total=len(archive.cases), unit="case"):
        rows += score_case(segmenter, case, args.batch_size)
        published += score_case_as_published(segmenter, case, args.batch_size)
    results: dict[str, Any] = {
        "archived slices": summarise(rows),
        "slice protocol": summarise(published, PUBLISHED_METRICS),
        "seen_in_training": training_notice(content, archive.cases),
        "model": segmenter.model,
        "dataset": segmenter.dataset,
        "task": segmenter.task.name,
        "slices from": str(archive.folder),
        "command": " ".join(["python", *sys.argv]),
    }
    write_csv(args.checkpoint_path / "test.csv", rows)
    write_csv(args.checkpoint_path / "test_published.csv", published)
    write_json(args.checkpoint_path / "test.json", results)
    complete = sum(archive.complete(name) for name in archive.cases)
    print(f"archived slices of {len(archive.cases)} cases, {complete} of them complete")
    print(format_summary(results["archived slices"]))
    print(f"slice protocol, as published\n{format_summary(results['slice protocol'])}")
