"""Medical Segmentation Decathlon and nnU-Net folders: labels, tasks and cases are read from dataset.json.

M. Antonelli et al.: The Medical Segmentation Decathlon, Nature Communications 13, 2022.
F. Isensee et al.: nnU-Net, Nature Methods 18, 2021, for format 2 (imagesTr/NAME_0000, labelsTr/NAME).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.labels import LabelMap, one_class
from datasets.raw.layout import Case, Layout, find_nifti, make_case, nifti_stem, require_cases
from utils.errors import UserError
from utils.files import read_json

EXPECTED = "dataset.json with imagesTr/ and labelsTr/"
SOFT_TISSUE = (-200.0, 300.0)


def heart(root: Path) -> Layout:
    """MSD Task02_Heart: the left atrium (1) on MR, a task that the published HLFD code calls `organ`."""
    tasks = {name: one_class("left_atrium", 1) for name in ("left_atrium", "organ", "all")}
    return Layout("heart", find, tasks, {0: "background", 1: "left atrium"}, window=None)


def layout(root: Path) -> Layout:
    """Labels and tasks from `root/dataset.json`; CT gets a soft tissue window, other modalities percentiles."""
    content = _description(root)
    labels = _labels(content, root)
    numbers = sorted({number for group in labels.values() for number in group})
    names = {group[0]: name for name, group in labels.items() if len(group) == 1}
    classes = tuple(names.get(number, f"label_{number}") for number in numbers)
    regions = {name: tuple(numbers.index(number) + 1 for number in group) for name, group in labels.items()}
    tasks = {name: one_class(name, *group) for name, group in labels.items()}
    tasks["all"] = LabelMap("all", classes, tuple((number,) for number in numbers), regions)
    return Layout(
        name="msd",
        find=find,
        tasks=tasks,
        labels={0: "background"} | dict(zip(numbers, classes, strict=True)),
        window=SOFT_TISSUE if "CT" in _modalities(content) else None,
    )


def find(root: Path) -> list[Case]:
    """The cases listed under `training` and `test`; without these lists, the files in imagesTr and imagesTs."""
    content = _description(root)
    channel = 0 if len(_modalities(content)) > 1 else None
    found = _listed_cases(root, content) if content.get("training") else _cases_in_folders(root)
    cases = [Case(case.name, case.image, case.label, channel) for case in found]
    return require_cases(sorted(cases, key=lambda case: case.name), root, EXPECTED)


def _description(root: Path) -> dict[str, Any]:
    """The content of dataset.json; NoCases if there is none."""
    if not (root / "dataset.json").is_file():
        require_cases([], root, EXPECTED)
    content = read_json(root / "dataset.json")
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise UserError(f"{root / 'dataset.json'}: has no labels; expected the format of the Decathlon or of nnU-Net")
    return content


def _labels(content: dict[str, Any], root: Path) -> dict[str, tuple[int, ...]]:
    """Name -> source labels, without the background; MSD writes number -> name, nnU-Net v2 name -> number."""
    labels: dict[str, tuple[int, ...]] = {}
    for key, value in content["labels"].items():
        name, number = (str(value), key) if key.isdigit() else (key, value)
        group = number if isinstance(number, list) else [number]
        try:
            labels[name.strip().lower().replace(" ", "_")] = tuple(int(item) for item in group)
        except (TypeError, ValueError):
            raise UserError(f"{root / 'dataset.json'}: label {name!r} must be an integer") from None
    if "ignore" in labels:
        raise UserError(f"{root / 'dataset.json'}: an ignore label cannot be trained on; relabel those voxels")
    return {name: group for name, group in labels.items() if group != (0,)}


def _modalities(content: dict[str, Any]) -> list[str]:
    return [str(name).upper() for name in (content.get("channel_names") or content.get("modality") or {}).values()]


def _listed_cases(root: Path, content: dict[str, Any]) -> Iterator[Case]:
    """The cases that dataset.json lists; nnU-Net v1 lists NAME.nii.gz where the file is NAME_0000.nii.gz."""
    entries = [(entry["image"], entry["label"]) for entry in content["training"]]
    entries += [(entry["image"] if isinstance(entry, dict) else entry, None) for entry in content.get("test") or []]
    for image, label in entries:
        name = nifti_stem(root / image)
        if name is None:
            raise UserError(f"{root / 'dataset.json'}: lists {image}, which is not a .nii or .nii.gz file")
        folder = (root / image).parent
        found = find_nifti(folder, name) or find_nifti(folder, f"{name}_0000")
        if label is not None and not (root / label).is_file():
            raise UserError(f"{root / label}: is listed in dataset.json but missing; restore it")
        if found is None and label is None:
            continue
        yield make_case(name, found, root / label if label else None, image)


def _cases_in_folders(root: Path) -> Iterator[Case]:
    """The cases in imagesTr, imagesTs and labelsTr; the first channel (_0000) is the image."""
    labels = {name: path for path in (root / "labelsTr").glob("*.nii*") if (name := nifti_stem(path))}
    images = {}
    for folder in ("imagesTr", "imagesTs"):
        for path in (root / folder).glob("*.nii*"):
            name, _, channel = (nifti_stem(path) or "").rpartition("_")
            if name and channel == "0000":
                images[name] = path
    for name in sorted(labels.keys() | images.keys()):
        yield make_case(name, images.get(name), labels.get(name), f"{name}_0000.nii.gz in imagesTr/")
