"""Scores on data that no run has seen: what a network is worth away from home."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from datasets.labelled_cases import LabelledCase, cases_in_slices, raw_cases
from datasets.labels import LabelMap
from datasets.raw import LIST, channel_choice, open_layout
from datasets.slices.slice_folder import open_slices, slice_files
from engine.benchmark.runs import Fold, OtherData, is_scored_on, scores_file
from engine.evaluation.reference import in_labels_of
from engine.evaluation.score import RegionScores, score_cases
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from utils.errors import UserError
from utils.files import read_json, write_json


def name_other_data(paths: Sequence[Path]) -> tuple[OtherData, ...]:
    """Each folder with its own name, or, where several have the same, its parent's too; UserError for a missing one."""
    if missing := [path for path in paths if not path.is_dir()]:
        raise UserError(f"--also_test {missing[0]}: is no folder; give one of raw cases, or of slices")
    places = list(dict.fromkeys(path.resolve() for path in paths))
    same = Counter(place.name for place in places)
    names = [place.name if same[place.name] == 1 else f"{place.parent.name}_{place.name}" for place in places]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"--also_test: there are two folders {twice[0]}; rename one of them")
    return tuple(OtherData(*named) for named in zip(names, places, strict=True))


def labelled_cases(
    data: OtherData, dataset: str, label_map: LabelMap, window: tuple[float, float] | None, channel: int | None
) -> Iterator[LabelledCase]:
    """All cases with a segmentation, from slices or from raw files in the layout of a data set.

    dataset, label_map, window, channel: of the networks; UserError for raw files whose labels only a user can name.
    """
    trained = (dataset, label_map)
    if slice_files(data.path) or slice_files(data.path / "test"):
        slices = open_slices(data.path, dataset, label_map.name, "test")
        cases = cases_in_slices(slices, slices.cases, window)
        return in_labels_of(trained, cases, dataset, slices.label_map, slices.folder)
    if dataset == LIST:
        raise UserError(
            f"--also_test {data.path}: what do the labels of a list mean? cut slices of it with SliceMaker.py "
            "and give these"
        )
    layout = open_layout(dataset, data.path, channel=channel_choice(dataset, channel))
    cases = raw_cases(layout, data.path, None, window)
    return in_labels_of(trained, cases, dataset, layout.label_map(label_map.name), data.path)


def score_elsewhere(fold: Fold, folder: Path, device: torch.device) -> None:
    """Score the best.ckpt in a folder on all other data, where that was not done before."""
    if missing := [data for data in fold.also_test if not is_scored_on(folder, data)]:
        segmenter, _ = load_segmenter(folder / "best.ckpt", device)
        for data in missing:
            rows = score_on(data, segmenter, fold.distances)
            write_json(scores_file(folder, data), {"path": str(data.path), "rows": rows})


def score_on(data: OtherData, segmenter: Segmenter, distances: bool) -> list[RegionScores]:
    """All cases of other data, by both protocols."""
    cases = labelled_cases(data, segmenter.dataset, segmenter.label_map, segmenter.window, segmenter.channel)
    return score_cases(segmenter, cases, distances=distances, slice_protocol=True).joined()


def scores_elsewhere(folder: Path, also_test: Sequence[OtherData]) -> dict[str, list[RegionScores]]:
    """Name of other data -> what `score_on` gave, where that is there."""
    return {data.name: read_json(scores_file(folder, data))["rows"] for data in also_test if is_scored_on(folder, data)}
