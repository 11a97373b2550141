"""The pipeline: while the network is at work on some slices, others are read, and those before them written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from datasets.raw.arriving import Arriving, Read
from datasets.raw.layout import Case
from datasets.raw.options import DicomOptions, IntensityOptions
from datasets.raw.volume import LabelFile, read_volume
from engine.contours import Picture
from engine.options import PredictionOptions
from engine.prediction.options import OutputOptions
from engine.prediction.outputs import Outputs
from engine.prediction.preview import draw_preview
from engine.prediction.probabilities import write_probabilities
from engine.prediction.record import CaseRecord
from engine.prediction.volume import Prediction, keep_largest, predict_volume, to_source_labels
from engine.prediction.volumes import NO_SPACING, measure, spacing_mm
from engine.provenance import digest_of
from engine.segmenter import Segmenter
from utils.ahead import one_behind
from utils.errors import UserError
from utils.files import write_bytes
from utils.progress import print_line, progress

if TYPE_CHECKING:
    from engine.prediction.seg_files import SegFiles

MOST_AHEAD = 1 << 29
"""Bytes of voxels in an image's own type up to which it is read ahead, so that two fit into memory."""


@dataclass
class Summary:
    """notes: by case; failed: a line for each case without a result."""

    notes: dict[str, list[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


@dataclass
class Pipeline:
    """record: knows what was done before; it is told what is done."""

    segmenter: Segmenter
    prediction: PredictionOptions
    options: OutputOptions
    reading: IntensityOptions
    record: CaseRecord
    seg_files: SegFiles | None = None
    summary: Summary = field(default_factory=Summary)

    def run(self, outputs: Mapping[Case, Outputs]) -> Summary:
        """Predict the cases and write their files; a case that fails leaves none, and the others go on."""
        cases = list(outputs)
        try:
            with ThreadPoolExecutor(1) as digests, one_behind() as later:
                for arriving in progress(self._read(cases), "segmenting", total=len(cases), unit="case"):
                    case = arriving.case
                    source = digests.submit(self._source, case)
                    try:
                        started = time.perf_counter()
                        result, labels, picture = self._compute(arriving, outputs[case])
                        seconds = time.perf_counter() - started
                    except (UserError, MemoryError, torch.OutOfMemoryError) as error:
                        self._fail(case, outputs[case], error)
                        continue
                    finally:
                        del arriving
                    later(self._write, outputs[case], result, labels, picture, source, seconds)
                    del result, labels
        finally:
            self.record.save()
        return self.summary

    def _read(self, cases: Sequence[Case]) -> Iterator[Arriving]:
        """Each case while it is being read; where two fit into memory, the next one is begun before it is needed."""
        depth = 2 if len(cases) > 1 and max(map(_voxel_bytes, cases)) <= MOST_AHEAD else 1
        thread = ThreadPoolExecutor(1)
        begun: deque[Arriving] = deque()
        try:
            for case in cases:
                begun.append(Arriving(case, self._reader(case)))
                thread.submit(begun[-1].read)
                if len(begun) == depth:
                    yield begun.popleft()
            while begun:
                yield begun.popleft()
        finally:
            thread.shutdown(cancel_futures=True)

    def _reader(self, case: Case) -> Read:
        hounsfield, reading = self.segmenter.hounsfield, self.reading
        return partial(read_volume, case, (), with_label=False, hounsfield=hounsfield, reading=reading)

    def _compute(self, arriving: Arriving, outputs: Outputs) -> tuple[Prediction, LabelFile, Picture | None]:
        """What the network says of a case, with its labels as a file that is yet to be saved."""
        prediction, table = self.prediction, self.segmenter.source_labels()
        # The percentiles of an MR volume need all of it.
        volume = arriving.volume() if self.segmenter.window is None else arriving.begun()
        labels = LabelFile(volume, volume.image.shape, outputs.labels)

        def add(part: slice, classes: NDArray[np.uint8]) -> None:
            labels.add(part, to_source_labels(classes, table))

        # Blocks come from the first slice to the last, which need not be the order of the file.
        at_once = bool(self.options.largest_component or self.segmenter.network.block)
        result = predict_volume(
            self.segmenter,
            volume,
            prediction.batch_size,
            prediction.threshold,
            bool(self.options.probabilities),
            arriving.parts(prediction.batch_size),
            None if at_once else add,
        )
        result.volume = arriving.volume()
        if self.options.largest_component:
            keep_largest(result.classes, self.options.largest_component)
        if at_once:
            add(slice(None), result.classes)
        picture = draw_preview(result) if self.options.preview else None
        return result.without_image(), labels, picture

    def _write(
        self,
        outputs: Outputs,
        result: Prediction,
        labels: LabelFile,
        picture: Picture | None,
        source: Future[dict[str, Any]],
        seconds: float,
    ) -> None:
        """One case's results: its files, its record and its line. What else is written of a case belongs here."""
        volume, label_map = result.volume, self.segmenter.label_map
        case = volume.case
        started = time.perf_counter()
        try:
            if outputs.seg is not None and self.seg_files is not None:
                of_source = to_source_labels(result.classes, self.segmenter.source_labels())
                self.seg_files.write(outputs.seg, of_source, volume)
            if outputs.probabilities is not None:
                write_probabilities(outputs.probabilities, result)
            if outputs.preview is not None and picture is not None:
                write_bytes(outputs.preview, _png(picture))
            found = source.result()
            labels.save()  # last, so that where it stands all else of the case does
        except (UserError, MemoryError) as error:
            self._fail(case, outputs, error)
            return
        measured = measure(result.classes, label_map, volume)
        spacing = spacing_mm(volume)
        notes = [*volume.notes, *([NO_SPACING] if spacing is None else [])]
        self.summary.notes[case.name] = notes
        names = sorted({*outputs.names, *self.record.names_of(case, found)})
        self._remove(outputs, self.record.files_of(case, outputs) - {outputs.folder / name for name in names})
        self.record.add(
            case,
            {
                "source": found,
                "files": names,
                "shape": list(result.classes.shape),
                "spacing_mm": spacing and list(spacing),
                "seconds": round(seconds + time.perf_counter() - started, 3),
                "labels": measured,
                "notes": notes,
            },
        )
        print_case(outputs, measured)

    def _source(self, case: Case) -> dict[str, Any]:
        return {**self.record.describe(case), "channel": case.channel, "digest": digest_of(case.sources)}

    def _fail(self, case: Case, outputs: Outputs, error: BaseException) -> None:
        """An earlier result must not be taken for one of this image."""
        reason = str(error)
        if not isinstance(error, UserError):
            reason = f"{case.image}: does not fit into memory; give a smaller --batch_size, or use a larger machine"
        self._remove(outputs, self.record.files_of(case, outputs))
        self.summary.failed.append(reason)
        self.record.fail(case, reason)

    def _remove(self, outputs: Outputs, paths: Set[Path]) -> None:
        """Below the folder of the outputs alone, whatever a record says."""
        for path in paths:
            if path.parent.resolve().is_relative_to(outputs.folder.resolve()):
                with suppress(OSError):
                    path.unlink(missing_ok=True)


def _voxel_bytes(case: Case) -> int:
    """By the header, of a series by its files; of a file that cannot be read 0, for reading it will say so."""
    try:
        if case.files:
            return sum(path.stat().st_size for path in case.files)
        image: Any = nib.load(case.image)
        return int(np.prod(image.shape[:3])) * int(image.get_data_dtype().itemsize)
    except Exception:
        return 0


def _png(picture: Picture) -> bytes:
    from engine.reporting import picture_png

    return picture_png(picture)


def open_seg_files(
    segmenter: Segmenter, made_by: Mapping[str, Any], dicom: DicomOptions, cases: Iterable[Case] = ()
) -> SegFiles | None:
    """What writes DICOM SEG, where that was asked for; UserError if one of the cases is no series."""
    if not dicom.dicom_seg:
        return None
    from engine.prediction.seg_files import SegFiles  # highdicom takes seconds to load

    return SegFiles(segmenter, made_by["checkpoint"], dicom.labelmap, cases)


def print_case(outputs: Outputs, measured: Sequence[Mapping[str, Any]]) -> None:
    """The line of a case that is done."""
    print_line(f"{outputs.labels}: {'; '.join(map(_described, measured))}")


def _described(label: Mapping[str, Any]) -> str:
    volume = "" if label["ml"] is None else f" ({label['ml']:.4g} ml)"
    return f"{label['voxels']} voxels of label {label['label']}{volume}"
