"""Anyone's files, as a table names them: a CSV file with the columns image, label, patient and, optionally, split.

An image is a NIfTI file, or the folder of a DICOM series, whose label may be a DICOM SEG.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets.labels import HIGHEST_LABEL, named_regions, plain_name
from datasets.raw.cases import Candidate, FoundCases, identify
from datasets.raw.layout import Layout
from datasets.raw.tree import Tree, conversion, is_dicom, is_foreign, nifti_stem
from utils.errors import UserError

SUFFIX = ".csv"
FILE = "cases.csv"
COLUMNS = ("image", "label", "patient", "split")
EXPECTED = "a CSV file with the columns image, label and patient"
PARTS = ("train", "val", "test")


def layout(labels: Sequence[str], window: tuple[float, float] | None) -> Layout:
    """labels: as typed, such as 1=organ 2=tumor; window: (low, high) in HU of CT, None for MR."""
    named = parse_labels(labels)
    if window is not None and not window[0] < window[1]:
        raise UserError(f"--window {window[0]:g} {window[1]:g}: the first number must be the lower one")
    tasks, meanings = named_regions(named, "--labels")
    return Layout("list", find, tasks, meanings, window)


def parse_labels(labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Name -> source labels. 1,2=organ names two; where organ, tumor and cyst are named, the organ includes them."""
    named: dict[str, tuple[int, ...]] = {}
    for text in labels:
        numbers, _, name = text.partition("=")
        values = [int(number) if number.strip().isdigit() else 0 for number in numbers.split(",")]
        if not name or min(values) < 1 or max(values) > HIGHEST_LABEL:
            raise UserError(f"--labels {text}: expected a label from 1 to {HIGHEST_LABEL} and its name, as in 1=organ")
        if (plain := plain_name(name)) in named:
            raise UserError(f"--labels {text}: the name {plain} is taken; choose another")
        named[plain] = tuple(values)
    if not named:
        raise UserError("--dataset list: what do the labels mean? name them, as in --labels 1=organ 2=tumor")
    if len(named.get("organ", ())) == 1:
        named["organ"] += tuple(number for name in ("tumor", "cyst") for number in named.get(name, ()))
    return named


def find(path: Path) -> FoundCases:
    """The cases in the rows of a CSV file, or of cases.csv in a folder; relative paths start at its folder.

    Named after the images, with the folders' names in front where two are the same.
    """
    file = path / FILE if path.is_dir() or not path.suffix else path
    tree = Tree(file.parent if path.is_dir() or path.suffix else path)
    if not file.is_file():
        return identify([], tree, EXPECTED)
    errors: list[str] = []
    candidates = []
    for number, row in _rows(file):
        try:
            candidates.append(_candidate(file, row))
        except UserError as error:
            errors.append(f"line {number}: {error}")
    if errors:
        raise UserError(f"{file}: {'; '.join(errors)}; correct it")
    return identify(candidates, tree, EXPECTED, named_by_path=True)


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows with their line numbers; separated by commas, semicolons or tabs, as the first line is."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as UTF-8 text ({error}); save it as CSV UTF-8") from None
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except csv.Error as error:
        raise UserError(f"{file}: is no table ({error} in line {reader.line_num}); correct it") from None
    columns = [name.lower() for name in lines[0][1]] if lines else []
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise UserError(f"{file}: has the unknown column {unknown[0]!r}; expected {', '.join(COLUMNS)}")
    if "image" not in columns or len(set(columns)) < len(columns):
        raise UserError(f"{file}: expected the columns {', '.join(COLUMNS)} in its first line, each once")
    rows = []
    for number, cells in lines[1:]:
        if len(cells) > len(columns):
            raise UserError(f"{file}: line {number} has {len(cells)} cells for {len(columns)} columns; correct it")
        if any(cells):
            rows.append((number, dict(zip(columns, cells, strict=False))))
    return rows


def _candidate(file: Path, row: dict[str, str]) -> Candidate:
    if not row.get("image"):
        raise UserError("names no image")
    image = file.parent / row["image"]
    label = file.parent / row["label"] if row.get("label") else None
    series = _series_in(image) if image.is_dir() else None
    if series is None:
        _check_nifti(image, "its image is missing: ")
    if label is not None and not (series and is_dicom(label)):
        _check_nifti(label)
    part = row.get("split", "").lower()
    part = "val" if part == "validation" else part
    if part and part not in PARTS:
        raise UserError(f"split is {part!r}, not {', '.join(PARTS[:-1])} or {PARTS[-1]}")
    if label is not None and label == image:
        raise UserError(f"{image} is both image and label")
    candidate = series or Candidate(nifti_stem(image) or "", image)
    return replace(candidate, label=label, patient=row.get("patient") or None, part=(part or None) if label else None)


def _series_in(folder: Path) -> Candidate:
    from datasets.raw.dicom_series import find_one  # pydicom, which NIfTI need not wait for

    return find_one(folder)


def _check_nifti(path: Path, missing: str = "") -> None:
    """UserError if the name is not that of a NIfTI file, or there is none."""
    if is_foreign(path):
        raise UserError(f"{path} is not a .nii or .nii.gz file, {conversion(path)}")
    if not nifti_stem(path):
        raise UserError(f"{path} is not a .nii or .nii.gz file")
    if not path.exists() and not path.is_symlink():
        raise UserError(f"{missing}{path} does not exist")
