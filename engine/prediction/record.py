"""What was predicted from which file by what: run.json and the tables beside it, and which cases are done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from datasets.raw.layout import Case
from datasets.raw.options import DicomOptions, IntensityOptions
from engine.options import PredictionOptions
from engine.prediction.options import OutputOptions
from engine.prediction.outputs import Outputs, Reports
from engine.prediction.volumes import table, to_csv
from engine.provenance import digest_of, provenance
from engine.segmenter import Segmenter
from utils.errors import UserError
from utils.files import read_json, write_json, write_text
from utils.fingerprint import file_digest
from utils.options import identity
from utils.shards import Place, Shard

SAVE_EVERY = 5.0
"""Seconds from one run.json to the next: what a killed run has not recorded is predicted again."""


def made_by(
    segmenter: Segmenter,
    prediction: PredictionOptions,
    options: OutputOptions,
    reading: IntensityOptions,
    dicom: DicomOptions,
) -> dict[str, Any]:
    """What decides a result besides the image."""
    return {
        "checkpoint": file_digest(prediction.ckpt),
        "offsets": list(segmenter.offsets),
        "threshold": prediction.threshold,
        "any_intensity": reading.any_intensity,
        "labelmap": dicom.labelmap,
        "runtime": prediction.runtime,
        **identity(options),
    }


class CaseRecord:
    """What is recorded of cases, by their names, in memory.

    made_by: what decides the results, besides the image: checkpoint and options. A case was done by the same, or else
    is done again.
    """

    def __init__(self, root: Path, made_by: Mapping[str, Any], cases: Mapping[str, Any]) -> None:
        """root: the folder that the images' names in the record are relative to; cases: what is known of before."""
        self.root, self.made_by = root, dict(made_by)
        self.launches: list[Any] = []
        self.cases = dict(cases)
        self.lock = Lock()

    def names_of(self, case: Case, source: Mapping[str, Any]) -> list[str]:
        """The files of an earlier launch that still hold: made by the same of the same image, as `source` tells."""
        record = self.cases.get(case.name, {})
        before = record.get("source", {})
        same = all(before.get(key) == source[key] for key in ("digest", "channel"))
        return record.get("files", []) if same and record.get("made_by") == self.made_by else []

    def files_of(self, case: Case, outputs: Outputs) -> set[Path]:
        """What is written of a case now, and what was before, by whichever options."""
        before = self.cases.get(case.name, {}).get("files", [])
        return {*outputs.files, *(outputs.folder / str(name) for name in before)}

    def describe(self, case: Case) -> dict[str, Any]:
        """An image's name below the root, size and time, of a series its folder's; UserError if it is gone."""
        try:
            states = [path.stat() for path in case.sources]
        except OSError as error:
            reason = f"{error.filename}: cannot be read ({error.strerror}); look for it, then run this again"
            raise UserError(reason) from None
        return {
            "file": self.shown(case.image),
            "bytes": sum(state.st_size for state in states),
            "modified_ns": [state.st_mtime_ns for state in states],
        }

    def shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def add(self, case: Case, content: Mapping[str, Any]) -> None:
        """A case that is done, by the last launch unless the content names another."""
        with self.lock:
            self.cases[case.name] = {"made_by": self.made_by, "launch": len(self.launches) - 1, **content}

    def fail(self, case: Case, reason: str) -> None:
        """A case without a result; the reason is kept without the folders of this machine."""
        for folder in (self.root, self.root.resolve(), case.image.parent):
            reason = reason.replace(f"{folder}/", "")
        content = {"launch": len(self.launches) - 1, "error": reason, "source": {"file": self.shown(case.image)}}
        with self.lock:
            self.cases[case.name] = content

    def save(self) -> None:
        """Nothing, of what is kept in memory."""


class Record(CaseRecord):
    """The content of run.json: `launches`, one for each command, and `cases`."""

    def __init__(
        self, reports: Reports, place: Place, root: Path, made_by: Mapping[str, Any], shard: Shard | None = None
    ) -> None:
        """A shard keeps its cases in a file of its own; the whole command takes the cases of all shards over."""
        launches, cases = _read(reports.run)
        super().__init__(root, made_by, cases)
        self.reports, self.launches = reports, launches
        self.part = place.part(shard) if shard else None
        self.of_part: set[str] = set()
        for part in [self.part] if self.part else place.parts():
            self.of_part |= self._take_over(*_read(part))
        self.saved = time.monotonic()

    def _take_over(self, launches: list[Any], cases: Mapping[str, Any]) -> set[str]:
        """Add what a shard has done; the names of its cases."""
        self.launches += [launch for launch in launches if launch not in self.launches]
        for name, record in cases.items():
            self.cases[name] = {**record, "launch": self.launches.index(launches[record["launch"]])}
        return set(cases)

    def add_launch(self, segmenter: Segmenter, decision: str, where: Mapping[str, Any] | None = None) -> int:
        """This command, of which only the last components of paths are kept, and the network; its place among all.

        decision: in words; where: device, packages and machine, where these are not this process's.
        """
        label_map = segmenter.label_map
        classes = [
            {"class": index, "name": name, "label": labels[0]}
            for index, (name, labels) in enumerate(zip(label_map.classes, label_map.labels, strict=True), start=1)
        ]
        started = datetime.now(UTC).isoformat(timespec="seconds")
        network = {"model": segmenter.model, "task": label_map.name, "device": str(segmenter.device)}
        labels = [list(group) for group in label_map.labels]
        made = {"made_by": self.made_by, "decision": decision, "classes": classes, "labels": labels}
        launch = {"started": started, **provenance(segmenter.device), **network, **made}
        self.launches.append(launch | dict(where or {}))
        return len(self.launches) - 1

    def is_done(self, case: Case, outputs: Outputs) -> bool:
        """Whether all files are there that are asked for, made of the same image by the same."""
        record = self.cases.get(case.name)
        if record is None or record.get("made_by") != self.made_by or not set(outputs.names) <= set(record["files"]):
            return False
        if not all(path.is_file() for path in outputs.files):
            return False
        try:
            source, now = record["source"], self.describe(case)
        except UserError:
            return False
        if source["bytes"] != now["bytes"] or source["channel"] != case.channel:
            return False
        return bool(source["modified_ns"] == now["modified_ns"] or source.get("digest") == digest_of(case.sources))

    def add(self, case: Case, content: Mapping[str, Any]) -> None:
        super().add(case, content)
        self.of_part.add(case.name)
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def fail(self, case: Case, reason: str) -> None:
        super().fail(case, reason)
        self.of_part.add(case.name)

    def save(self) -> None:
        """Write the reports; none where no case has, or had, a result: then there is only the error to tell."""
        with self.lock:
            cases = dict(sorted(self.cases.items()))
            of_part = {name: record for name, record in cases.items() if name in self.of_part}
        self.saved = time.monotonic()
        if self.part:
            write_json(self.part, {"launches": self.launches, "cases": of_part})
            return
        if not self.reports.run.exists() and all("error" in record for record in cases.values()):
            return
        rows = table(cases)
        write_text(self.reports.csv, to_csv(rows))
        write_json(self.reports.json, rows)
        write_json(self.reports.run, {"launches": self.launches, "cases": cases})


def _read(path: Path) -> tuple[list[Any], dict[str, Any]]:
    """Launches and cases in an earlier run.json; UserError if it is something else."""
    if not path.exists():
        return [], {}
    content = read_json(path)
    try:
        whole = all("error" in each or {"files", "source"} <= each.keys() for each in content["cases"].values())
        whole = whole and isinstance(content["launches"], list)
    except (AttributeError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path}: is not what predict.py writes; move it away, or give another --outpath")
    return content["launches"], content["cases"]
