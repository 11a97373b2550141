"""dataset.json in the forms in which it circulates: the Decathlon's, nnU-Net's, MONAI's, and made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.labels import HIGHEST_LABEL, plain_name
from datasets.raw.modality import is_ct
from datasets.raw.tree import SUFFIXES, conversion, is_foreign
from utils.errors import UserError
from utils.files import read_json
from utils.registry import normalise_name

# Lists of items, and the part of a split that an item with a segmentation belongs to.
LISTS = {"training": None, "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Item:
    """images: one file, or one for each channel; label: None where it is not listed; paths relative to the folder."""

    images: tuple[Path, ...]
    label: Path | None
    part: str | None


@dataclass(frozen=True)
class Description:
    """labels: name -> source labels, without the background; channels: their names in order, empty if there are none.

    items: None where the folders say what there is.
    """

    labels: dict[str, tuple[int, ...]]
    channels: tuple[str, ...]
    items: tuple[Item, ...] | None

    def channel_of(self, choice: str | None, path: Path) -> int:
        """The channel of a name or number, by default the first.

        UserError if there is none of that name, or if a later channel is CT and nobody chose: a network would be
        trained on PET in Hounsfield units.
        """
        listed = ", ".join(f"{number} ({name})" for number, name in enumerate(self.channels))
        if choice is None:
            if any(map(is_ct, self.channels)) and not is_ct(self.channels[0]):
                raise UserError(f"{path}: holds the channels {listed}; choose one, as in --channel CT")
            return 0
        for number, name in enumerate(self.channels or ("",)):
            if choice == str(number) or normalise_name(choice) == normalise_name(name):
                return number
        raise UserError(f"{path}: has no channel {choice}; choose one of {listed or '0'}")


def read_description(path: Path) -> Description:
    """UserError that names the file and the key, for what cannot be understood."""
    content = read_json(path)
    if not isinstance(content, dict) or not content.get("labels"):
        raise UserError(f"{path}: has no labels; expected the format of the Decathlon or of nnU-Net")
    ending = content.get("file_ending", SUFFIXES[0])
    if not isinstance(ending, str) or ending.lower() not in SUFFIXES:
        raise UserError(f"{path}: file_ending is {ending!r}, and only .nii.gz and .nii are read; {_convert(ending)}")
    return Description(_labels(path, content["labels"]), _channels(path, content), _items(path, content))


def _convert(ending: object) -> str:
    example = Path(f"CASE_0000{ending}")
    command = conversion(example) if is_foreign(example) else "convert the images to NIfTI"
    return f"{command}, and change file_ending to .nii.gz"


def _labels(path: Path, content: Any) -> dict[str, tuple[int, ...]]:
    """MSD writes number -> name, nnU-Net 2 name -> number or numbers; a list names the labels from 0 on."""
    if isinstance(content, list):
        content = {str(number): name for number, name in enumerate(content)}
    if not isinstance(content, dict):
        raise _unexpected(path, "labels", content, 'names such as {"0": "background", "1": "liver"}')
    labels: dict[str, tuple[int, ...]] = {}
    for key, value in content.items():
        name, number = (str(value), key) if key.strip().isdigit() else (key, value)
        group = number if isinstance(number, list) else [number]
        try:
            numbers = tuple(int(item) for item in group)
        except (TypeError, ValueError):
            raise UserError(f"{path}: label {name!r} must be an integer") from None
        if not numbers or min(numbers) < 0 or max(numbers) > HIGHEST_LABEL:
            raise UserError(f"{path}: label {name!r} must be from 0 to {HIGHEST_LABEL}, not {group}")
        if (plain := plain_name(name)) in labels:
            raise UserError(f"{path}: labels names {name!r} twice; give each label a name of its own")
        labels[plain] = numbers
    if "ignore" in labels:
        raise UserError(f"{path}: an ignore label cannot be trained on; relabel those voxels")
    labels = {name: group for name, group in labels.items() if group != (0,)}
    if not labels:
        raise UserError(f"{path}: labels names nothing but the background; add what is segmented")
    return labels


def _channels(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """Text, a list, number -> name in any order, or name -> number."""
    key = "channel_names" if content.get("channel_names") else "modality"
    value = content.get(key) or {}
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        value = dict(enumerate(value))
    numbered = {}
    if isinstance(value, dict):
        for name, number in value.items():
            if not str(name).isdigit():
                name, number = number, name
            if str(name).isdigit() and isinstance(number, str):
                numbered[int(name)] = number
    if not isinstance(value, dict) or sorted(numbered) != list(range(len(value))):
        raise _unexpected(path, key, value, 'channels such as {"0": "CT"}')
    return tuple(numbered[number] for number in sorted(numbered))


def _items(path: Path, content: Mapping[str, Any]) -> tuple[Item, ...] | None:
    """The items of every list; those of nnU-Net 2's `dataset`, case -> images and label, are for training."""
    lists = {key: content.get(key) or [] for key in LISTS}
    if isinstance(content.get("dataset"), dict):
        lists["dataset"] = list(content["dataset"].values())
    if not lists["training"] and not lists.get("dataset"):
        return None
    items = []
    for key, entries in lists.items():
        if not isinstance(entries, list):
            raise _unexpected(path, key, entries, "a list of images")
        items += [_item(path, f"{key}[{number}]", entry) for number, entry in enumerate(entries)]
    return tuple(items)


def _item(path: Path, where: str, entry: Any) -> Item:
    image, label = entry, None
    if isinstance(entry, dict):
        image, label = entry.get("image", entry.get("images")), entry.get("label")
    images = image if isinstance(image, list) else [image]
    label = label[0] if isinstance(label, list) and len(label) == 1 else label
    if not images or not all(isinstance(name, str) and name for name in images):
        raise _unexpected(path, where, entry, 'an image such as {"image": "imagesTr/a.nii.gz", "label": ...}')
    if label is not None and not isinstance(label, str):
        raise _unexpected(path, f"{where}.label", label, "the name of one file")
    return Item(
        tuple(Path(name) for name in images), Path(label) if label else None, LISTS.get(where.partition("[")[0])
    )


def _unexpected(path: Path, key: str, value: Any, expected: str) -> UserError:
    text = repr(value)
    return UserError(f"{path}: {key} is {text[:80]}{'...' if len(text) > 80 else ''}; expected {expected}")
