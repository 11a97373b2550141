"""The volumes of predicted labels, and the tables of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels import LabelMap
from datasets.raw.volume import Volume

COLUMNS = ("case", "label", "name", "voxels", "ml", "first_slice", "last_slice", "seconds", "notes")
IN_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
NO_SPACING = "its header does not say how large a voxel is: no ml"


def measure(classes: NDArray[np.uint8], label_map: LabelMap, volume: Volume) -> list[dict[str, Any]]:
    """Of each label that is written: voxels, ml (None where the spacing is unknown), and the source's slice numbers."""
    spacing = spacing_mm(volume)
    foreground = range(1, label_map.num_classes)
    counts = np.array([[np.count_nonzero(plane == index) for index in foreground] for plane in classes])
    rows = []
    for index, (name, labels) in enumerate(zip(label_map.classes, label_map.labels, strict=True), start=1):
        voxels = int(counts[:, index - 1].sum())
        slices = volume.slices[counts[:, index - 1] > 0]
        rows.append(
            {
                "label": labels[0],
                "name": name,
                "voxels": voxels,
                "ml": None if spacing is None else round(voxels * float(np.prod(spacing)) / 1000, 6),
                "first_slice": int(slices.min()) if voxels else None,
                "last_slice": int(slices.max()) if voxels else None,
            }
        )
    return rows


def spacing_mm(volume: Volume) -> tuple[float, float, float] | None:
    """(z, y, x) in mm; None where the header has neither an orientation nor a voxel size other than 1."""
    header = volume.header
    placed = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    if not placed and np.allclose(volume.spacing, 1):
        return None
    factor = IN_MM.get(header.get_xyzt_units()[0], 1.0)
    z, y, x = (size * factor for size in volume.spacing)
    return z, y, x


def table(cases: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each label of each case, and one for a case that failed. cases: as `Record` keeps them."""
    rows = []
    for case, record in cases.items():
        shared = {"case": case, "seconds": record.get("seconds"), "notes": record.get("notes", [])}
        if "error" in record:
            shared["notes"] = [f"failed: {record['error']}"]
        rows += [dict.fromkeys(COLUMNS) | shared | row for row in record.get("labels", [{}])]
    return rows


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """What is unknown is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "notes": "; ".join(row["notes"])} for row in rows)
    return text.getvalue()
