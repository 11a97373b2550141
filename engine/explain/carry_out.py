"""scripts/explain.py: what lies between its options and its files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from datasets.labelled_cases import LabelledCase
from datasets.raw.options import ListOptions, ReadingOptions
from engine.comparable import refuse_another_kind
from engine.device import choose_device
from engine.evaluation.evaluate import cases_seen_in_training, cases_to_score
from engine.explain.attention import Attention, field_of_view
from engine.explain.choose import ShownSlice, SliceChoice, merge
from engine.explain.mass import CaseAttention, attention_mass, mean_of_case
from engine.explain.options import ExplainOptions, SliceName
from engine.explain.report import write_report
from engine.names import print_hidden, shown_names
from engine.provenance import RUN_FILE, digest_of, of_networks, read_launches, write_shown_run_file
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from networks import refuse_blocks
from utils.errors import UserError
from utils.files import make_folder
from utils.fingerprint import file_digest
from utils.registry import match_name

Files: TypeAlias = dict[str, list[Path]]
"""Of each case, those that were read."""


@dataclass
class Networks:
    """segmenters: by the names that the user gave, in that order; target: the class index to explain.

    attention: by network and method.
    """

    segmenters: dict[str, Segmenter]
    target: int
    attention: dict[tuple[str, str], Attention]

    @property
    def first(self) -> Segmenter:
        return next(iter(self.segmenters.values()))

    def target_of(self, label: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Where source labels are the class to explain."""
        inside: NDArray[np.bool_] = self.first.label_map.encode(label) == self.target
        return inside


def explain(options: ExplainOptions, of_list: ListOptions, reading: ReadingOptions) -> None:
    """Measure the attention of all slices with the target, draw some, and write the report."""
    started = time.monotonic()
    run_file = options.outpath / RUN_FILE
    read_launches(run_file)
    networks, checkpoints = open_networks(options)
    make_folder(options.outpath)
    files: Files = {}
    requested = list(read_requested(networks, options, of_list, reading, files))
    lines, choice = measure(networks, options, of_list, reading, files)
    if not lines:
        target = networks.first.label_map.classes[networks.target - 1]
        raise UserError(
            f"{options.inpath or options.test_data_path}: no slice holds the class {target}, so there is nothing to "
            "look at; give other cases, or another --target"
        )
    cases = dict.fromkeys(line.case for line in lines)
    for content in checkpoints:
        cases_seen_in_training(content, cases)
    drawn = requested or choice.chosen()
    shown = shown_names([*cases, *files, *(each.name.case for each in drawn)])
    lines = [replace(line, case=shown[line.case]) for line in lines]
    drawn = [replace(each, name=each.name._replace(case=shown[each.name.case])) for each in drawn]
    digests = {name: file_digest(path) for name, path in zip(networks.segmenters, options.ckpt, strict=True)}
    write_report(networks.segmenters, networks.attention, networks.target, options, lines, drawn, shown, digests)
    write_shown_run_file(
        run_file,
        networks.first.device,
        {**of_networks(digests), **{name: digest_of(of_case) for name, of_case in files.items()}},
        networks.first.label_map.classes,
        time.monotonic() - started,
        shown,
    )
    print_hidden(shown)


def open_networks(options: ExplainOptions) -> tuple[Networks, list[dict[str, Any]]]:
    """The networks, and what their checkpoints hold; UserError if they can't be compared."""
    device = choose_device(options.device)
    segmenters: dict[str, Segmenter] = {}
    checkpoints = []
    for name, path in zip(options.network_names, options.ckpt, strict=True):
        segmenters[name], content = load_segmenter(path, device)
        refuse_blocks(segmenters[name].network, segmenters[name].model, path, "explained")
        checkpoints.append(content)
        refuse_another_kind(
            segmenters[name],
            path,
            next(iter(segmenters.values())),
            options.ckpt[0],
            "give networks of one kind",
            but=("list of labels", "data set"),
        )
    first = next(iter(segmenters.values()))
    classes = first.label_map.classes
    target = classes.index(match_name("class", options.target, classes)) + 1 if options.target else len(classes)
    attention: dict[tuple[str, str], Attention] = {
        (name, method): Attention(segmenter, target, options.layers, method)
        for (name, segmenter), method in product(segmenters.items(), options.method)
    }
    return Networks(segmenters, target, attention), checkpoints


def read_requested(
    networks: Networks, options: ExplainOptions, of_list: ListOptions, reading: ReadingOptions, files: Files
) -> Iterator[ShownSlice]:
    """The slices that --slices names; UserError if a case or its slice does not exist.

    files: gets those of each case.
    """
    wanted: dict[str, list[int]] = {}
    for case_name, number in options.slices:
        wanted.setdefault(case_name, []).append(number)
    for name, asked in wanted.items():
        (case,) = cases_to_score(networks.first, options, of_list, reading, names=[name], text="reading")
        files[case.name] = case.files
        numbers = list(case.numbers or range(len(case.image)))
        for number in asked:
            if number not in numbers:
                there = f"{min(numbers)} to {max(numbers)}"
                raise UserError(f"--slices {name}:{number}: case {case.name} has no such slice, but {there}")
            place = numbers.index(number)
            yield from merge([("chosen", shown_slice(case, place, networks.target_of(case.label[place])))])


def shown_slice(case: LabelledCase, place: int, target: NDArray[np.bool_]) -> ShownSlice:
    """A copy, so that the rest of the case can be forgotten."""
    number = case.numbers[place] if case.numbers else place
    return ShownSlice(SliceName(case.name, number), case.image[place].copy(), target.copy(), case.window)


def measure(
    networks: Networks, options: ExplainOptions, of_list: ListOptions, reading: ReadingOptions, files: Files
) -> tuple[list[CaseAttention], SliceChoice]:
    """The attention of every network in every slice with the target, and the slices that are worth drawing.

    files: gets those of each case.
    """
    lines: list[CaseAttention] = []
    choice = SliceChoice(options.random, options.seed)
    for case in cases_to_score(networks.first, options, of_list, reading, text="looking"):
        files[case.name] = case.files
        inside = networks.target_of(case.label)
        places = np.flatnonzero(inside.any(axis=(1, 2)))
        if not len(places):
            continue
        image, inside = case.image[places], inside[places]
        for name, segmenter in networks.segmenters.items():
            chances = attention_mass(field_of_view(segmenter.frame, image.shape[1:])[None, None], inside)[:, 0]
            for method in options.method:
                attention = networks.attention[name, method]
                masses = masses_of_case(attention, image, inside, case.window, options.batch_size)
                lines += [
                    mean_of_case(masses[:, i], chances, case.name, name, layer, method)
                    for i, layer in enumerate(options.layers)
                ]
        gains = dice_gains(list(networks.segmenters.values()), networks.target, image, inside, case.window, options)
        for i, place in enumerate(places):
            choice.consider(shown_slice(case, int(place), inside[i]), None if gains is None else float(gains[i]))
    return lines, choice


def masses_of_case(
    attention: Attention,
    image: NDArray[np.int16],
    inside: NDArray[np.bool_],
    window: tuple[float, float],
    batch_size: int,
) -> NDArray[np.float64]:
    """[N, layers], a batch at a time: the maps of a whole case would fill gigabytes."""
    batches = [slice(start, start + batch_size) for start in range(0, len(image), batch_size)]
    return np.concatenate([attention_mass(attention(image[part], window), inside[part]) for part in batches])


def dice_gains(
    segmenters: Sequence[Segmenter],
    target: int,
    image: NDArray[np.int16],
    inside: NDArray[np.bool_],
    window: tuple[float, float],
    options: ExplainOptions,
) -> NDArray[np.float64] | None:
    """[N]: how much higher the last network's Dice is than that of the one before it; None where there is one."""
    if len(segmenters) < 2:
        return None
    before, last = (
        slice_dice(segmenter.segment(image, window, options.batch_size) == target, inside)
        for segmenter in segmenters[-2:]
    )
    return last - before


def slice_dice(predicted: NDArray[np.bool_], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[N] of masks [N, H, W]; the target is never empty here."""
    both = (predicted & inside).sum(axis=(1, 2))
    dice: NDArray[np.float64] = 2 * both / (predicted.sum(axis=(1, 2)) + inside.sum(axis=(1, 2)))
    return dice
