"""An export from the checkpoint to the files that stay: each is made and checked before any is put in its place."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file

from datasets.slices.digests import CONTENTS, contents_fingerprint, files_of
from datasets.slices.slice_folder import SliceFolder, open_slices
from engine.evaluation.evaluate import CHECKPOINT
from engine.export.content import describe_export
from engine.export.fold import fold_decision
from engine.export.int8 import quantise
from engine.export.model_card import model_card
from engine.export.onnx_file import quiet, save_onnx, takes_one_size, to_onnx, trace
from engine.export.options import ExportOptions, Int8Options
from engine.export.verify import sizes_to_check, verify
from engine.names import coded_name
from engine.provenance import RUN_FILE, digest_of, read_launches, write_shown_run_file
from engine.runtime.metadata import KEY, encode
from engine.saved_segmenter import load_exported, load_segmenter
from engine.segmenter import Segmenter
from networks import refuse_blocks
from networks.contract import SegmentationNetwork
from utils.errors import UserError
from utils.files import UNFINISHED, atomic_write, make_folder, write_text
from utils.fingerprint import file_digest
from utils.progress import print_line, progress

MODEL, INT8, PROGRAM, WEIGHTS, CARD = "model.onnx", "model_int8.onnx", "model.pt2", "model.safetensors", "model_card.md"


@dataclass(frozen=True)
class Exporter:
    """network: the segmenter's with its decision folded in; content: what files say; folder: where they are made.

    cases: the checkpoint's, by their own names.
    """

    segmenter: Segmenter
    network: SegmentationNetwork
    content: dict[str, Any]
    folder: Path
    cases: Mapping[str, list[str]]

    @property
    def side(self) -> int | None:
        """The only size that ONNX and torch.export files take, where it is not any."""
        size: int | None = self.content["input"]["size"]
        return size

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) that the files are checked at."""
        return ((self.side, self.side),) if self.side else sizes_to_check(self.content["cost"]["gmacs_at"])

    def programs(self, formats: tuple[str, ...]) -> None:
        """model.onnx and model.pt2, of one trace."""
        program = trace(self.network, self.side)
        content = {**self.content, "offsets": [], "folded_offsets": [*map(float, self.segmenter.offsets)]}
        if "torch" in formats:
            path = self.folder / PROGRAM
            with quiet():
                torch.export.save(program, path, extra_files={KEY: encode(content)})
            # Guards of the trace would refuse sizes that a stride does not divide, though the program computes them.
            run = torch.export.load(path).module(check_guards=False)
            checked = verify(path, self.network, run, self.sizes)
            print_line(f"{PROGRAM}: {describe_check(checked)}")
        if "onnx" in formats:
            path, model = self.folder / MODEL, to_onnx(program, self.side)
            save_onnx(model, content, path)
            # What the file's reader gives has the decision taken off again.
            checked = verify(path, self.segmenter.network, load_exported(path, "onnxruntime")[0].network, self.sizes)
            save_onnx(model, {**content, "checked": checked}, path)
            print_line(f"{MODEL}: {describe_check(checked)}")

    def weights(self, options: ExportOptions) -> None:
        """model.safetensors, as trained and with the decision beside the weights, and model_card.md."""
        path = self.folder / WEIGHTS
        state = {name: value.contiguous().clone() for name, value in self.segmenter.network.state_dict().items()}
        save_file(state, path, {KEY: encode(self.content)})
        checked = verify(path, self.segmenter.network, load_segmenter(path, torch.device("cpu"))[0].network, self.sizes)
        card = model_card(self.segmenter, self.content, options.ckpt, options.results, options.licence)
        write_text(self.folder / CARD, card)
        print_line(f"{WEIGHTS}: {describe_check(checked)}")

    def int8(self, options: Int8Options, slices: SliceFolder) -> None:
        """model_int8.onnx, where it is worth it; slices: that train and validate."""
        content = load_exported(self.folder / MODEL, "onnxruntime")[1]
        content = {**content, "offsets": []}
        output = self.folder / INT8
        result = quantise(self.folder / MODEL, content, self.cases, slices, output, options.calibration, options.vnni)
        print_line(f"{INT8}: {result}")
        if not result.worth_keeping:
            output.unlink()
            print_line(f"{INT8}: not kept, for it must be faster and cost less than 0.5 points")


def export(options: ExportOptions, int8: Int8Options) -> list[Path]:
    """Write the files that the options name, with a run file beside them, and return them.

    UserError, and nothing written, if one is not right.
    """
    started = time.monotonic()
    if int8.int8 and "onnx" not in options.formats:
        raise UserError("--int8 quantises the ONNX file; add onnx to --formats")
    run_file = options.outpath / RUN_FILE
    read_launches(run_file)
    segmenter, checkpoint = load_segmenter(options.ckpt, torch.device("cpu"))
    refuse_blocks(segmenter.network, segmenter.model, options.ckpt, "exported")
    if options.decision == "argmax":
        segmenter = replace(segmenter, offsets=())
    side = segmenter.frame.side if takes_one_size(segmenter.network) else None
    if side == 0 and {"onnx", "torch"} & {*options.formats}:
        raise UserError(
            f"{options.ckpt}: {segmenter.model} is exported for one size, and its frame keeps each slice's own; give "
            "--formats safetensors, or train it with a --size"
        )
    steps: list[Callable[[Exporter], None]] = []
    if "safetensors" in options.formats:
        steps.append(lambda made: made.weights(options))
    if {"onnx", "torch"} & {*options.formats}:
        steps.append(lambda made: made.programs(options.formats))
    digests = {CHECKPOINT: file_digest(options.ckpt)}
    if int8.int8:
        # Opened here, for tracing takes minutes and needs none.
        slices = open_slices(int8.train_data_path, segmenter.dataset, segmenter.label_map.name, "train")
        digests[CONTENTS] = contents_of(slices, checkpoint["cases"])
        steps.append(lambda made: made.int8(int8, slices))
    content = describe_export(segmenter, checkpoint, options.ckpt, side or None)
    network = fold_decision(segmenter.network, segmenter.offsets)
    make_folder(options.outpath)
    with TemporaryDirectory(prefix=UNFINISHED, dir=options.outpath) as name:
        made = Exporter(segmenter, network, content, Path(name), checkpoint["cases"])
        for step in progress(steps, "exporting", unit="file"):
            step(made)
        files = [publish(Path(name) / each, options.outpath / each) for each in sorted(files_in(Path(name)))]
    if options.results:
        digests["results"] = digest_of([options.results, options.results.with_suffix(".csv")])
    shown = {name: coded_name(name) for names in checkpoint["cases"].values() for name in names}
    classes = segmenter.label_map.classes
    write_shown_run_file(run_file, segmenter.device, digests, classes, time.monotonic() - started, shown)
    return files


def contents_of(slices: SliceFolder, cases: Mapping[str, list[str]]) -> str:
    """The digest of the slices of a checkpoint's cases."""
    names = [name for part in ("train", "val") for name in cases[part] if name in slices.cases]
    return contents_fingerprint(files_of(slices, (), names))


def files_in(folder: Path) -> list[str]:
    """The finished files."""
    return [each for each in (MODEL, INT8, PROGRAM, WEIGHTS, CARD) if (folder / each).exists()]


def publish(made: Path, path: Path) -> Path:
    """Put a file in its place."""
    with atomic_write(path) as temporary:
        shutil.copyfile(made, temporary)
    return path


def describe_check(checked: dict[str, Any]) -> str:
    """For the user, what `verify` found."""
    sizes = " and ".join(f"{height} x {width}" for height, width in checked["sizes"])
    return (
        f"as PyTorch at {sizes}, in batches of 1 and 2: logits within {checked['largest_difference']:.0e} of the "
        f"largest, {checked['equal_labels']:.2%} of the labels equal"
    )
