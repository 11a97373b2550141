"""What scripts/fuzz_readers.py damages: a valid file of each kind, how it is read, and how it can be damaged."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from datasets.raw import open_layout
from datasets.raw.layout import Case
from datasets.raw.volume import read_volume, write_labels
from datasets.slices.slice_folder import SliceFolder
from datasets.splits import load_split, saved_split
from datasets.window import volume_window
from engine.options import PredictionOptions
from engine.runtime.metadata import KEY
from engine.saved_segmenter import load_segmenter, open_segmenter
from engine.segmenter import Segmenter
from networks import build
from tests.data import ct_and_label, cut_slices, kits_case, save
from tests.onnx_files import CONTENT, small_onnx
from utils.checkpoint import save_checkpoint

Generator = np.random.Generator
Mutation = Callable[[bytes, Generator], bytes]
WINDOW = (-200.0, 300.0)
SHAPE = (4, 12, 14)
NUMBERS = (0, -1, 1, 2**31, 10**12, 10**400, -(10**12), 0.5, 1e308, float("nan"), float("inf"))
VALUES = (None, True, "", "../x", "a", [], [[]], {}, {"": None}, *NUMBERS)


def mutate_bytes(content: bytes, rng: Generator) -> bytes:
    """One to four small damages anywhere."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        start = int(rng.integers(0, len(data) + 1))
        length = int(rng.integers(1, 1 + min(64, max(1, len(data) - start))))
        match rng.integers(6):
            case 0:
                for place in rng.integers(0, max(1, len(data)), 3) if data else ():
                    data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[start : start + length] = rng.bytes(length)
            case 2:
                del data[start : start + length]
            case 3:
                data[start:start] = rng.bytes(length)
            case 4:
                data[start:start] = data[start : start + length]
            case 5 if rng.random() < 0.2:
                del data[start:]
    return bytes(data)


def mutate_header(content: bytes, rng: Generator) -> bytes:
    """Damage a NIfTI header's fields, whose values are two or four bytes."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        size = int(rng.choice([1, 2, 4]))
        start = int(rng.integers(0, 352 // size)) * size
        largest, infinite = b"\xff" * (size - 1) + b"\x7f", b"\0\0\x80\x7f"[-size:]
        values = (b"\0" * size, b"\xff" * size, largest, infinite, rng.bytes(size))
        data[start : start + size] = values[rng.integers(len(values))]
    return bytes(data)


def inside_gzip(mutation: Mutation) -> Mutation:
    return lambda content, rng: gzip.compress(mutation(gzip.decompress(content), rng), compresslevel=1)


def mutate_member(content: bytes, rng: Generator) -> bytes:
    """Damage one file inside of a zip archive, the checksums being right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = list(members)[rng.integers(len(members))]
    # The start of an array or a pickle says what it is.
    split = len(members[chosen]) if rng.random() < 0.5 else 128
    members[chosen] = mutate_bytes(members[chosen][:split], rng) + members[chosen][split:]
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return result.getvalue()


def replace_value(content: Any, rng: Generator) -> Any:
    """Replace, remove or bury a value anywhere inside of lists and dicts, in place."""
    parent, key, node = None, None, content
    while isinstance(node, dict | list) and node and (parent is None or rng.random() < 0.8):
        keys = list(node) if isinstance(node, dict) else range(len(node))
        parent, key = node, keys[rng.integers(len(keys))]
        node = parent[key]
    value = VALUES[rng.integers(len(VALUES))]
    if parent is None:
        return value
    match rng.integers(4):
        case 0:
            del parent[key]
        case 1:
            parent[key] = [node, node]
        case _:
            parent[key] = value
    return content


def mutate_json(content: bytes, rng: Generator) -> bytes:
    if rng.random() < 0.02:
        return b"[" * 100_000
    return json.dumps(replace_value(json.loads(content), rng)).encode()


def mutate_checkpoint(content: bytes, rng: Generator) -> bytes:
    changed = io.BytesIO()
    torch.save(replace_value(torch.load(io.BytesIO(content), weights_only=True), rng), changed)
    return changed.getvalue()


@dataclass(frozen=True)
class Reader:
    """make: writes a valid file, and what it needs, into an empty folder; read: as the commands do."""

    make: Callable[[Path], Path]
    read: Callable[[Path], None]
    mutations: tuple[Mutation, ...]


def mutated(reader: Reader, content: bytes, seed: int, number: int) -> bytes:
    rng = np.random.default_rng([seed, number])
    return reader.mutations[rng.integers(len(reader.mutations))](content, rng)


def image_as(dtype: type, name: str) -> Callable[[Path], Path]:
    return lambda folder: save(ct_and_label(SHAPE)[0].astype(dtype), folder / name)


def read_image(path: Path) -> None:
    volume = read_volume(Case("1", path, None), (), hounsfield=True)
    volume_window(volume, WINDOW)
    write_labels(path.with_name("written.nii"), np.zeros(volume.image.shape, np.uint8), volume)


def make_label(folder: Path) -> Path:
    image, label = ct_and_label(SHAPE)
    save(image, folder / "image.nii.gz")
    return save(label, folder / "label.nii.gz")


def read_label(path: Path) -> None:
    read_volume(Case("1", path.with_name("image.nii.gz"), path), (0, 1, 2))


def slices(folder: Path) -> Path:
    """Two cases cut into slices, one of them to validate on."""
    for number in (0, 1):
        kits_case(folder / "raw", number, (4, 20, 24))
    cut_slices(folder / "raw", folder / "out", val_fraction=0.5)
    return folder / "out"


def bare_slice(folder: Path) -> Path:
    """A slice as in the published archive, which has no manifest."""
    image, label = ct_and_label(SHAPE)
    np.savez(folder / "1_0.npz", ct=image[0], mask=label[1])
    np.save(folder / "kits_tumor_slices.npy", np.array(["1_0.npz"]))
    return folder / "1_0.npz"


def read_slices(path: Path) -> None:
    opened = SliceFolder.open(path.parent, "kits", "tumor")
    for case in opened.cases:
        opened.complete(case), opened.spacing(case), opened.window(case)
        opened.read_case(case)
    for name in opened.train:
        opened.read_ct(name)


def read_split(path: Path) -> None:
    load_split(path)
    saved_split(path, {}, False)


def make_description(folder: Path) -> Path:
    image, label = ct_and_label(SHAPE)
    save(image, folder / "imagesTr" / "a.nii.gz")
    save(image, folder / "imagesTs" / "b.nii.gz")
    save(label, folder / "labelsTr" / "a.nii.gz")
    entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "organ", "2": "tumor"}, "training": [entry]}
    (folder / "dataset.json").write_text(json.dumps({**content, "test": ["./imagesTs/b.nii.gz"]}))
    return folder / "dataset.json"


def read_description(path: Path) -> None:
    layout = open_layout("msd", path.parent)
    for case in layout.find(path.parent):
        read_volume(case, layout.labels, hounsfield=layout.hounsfield)


def make_list(folder: Path) -> Path:
    image, label = ct_and_label(SHAPE)
    save(image, folder / "a.nii.gz")
    save(label, folder / "a_label.nii.gz")
    (folder / "cases.csv").write_text("image,label,patient,split\na.nii.gz,a_label.nii.gz,a,train\n")
    return folder / "cases.csv"


def read_list(path: Path) -> None:
    layout = open_layout("list", path, ("1=organ", "2=tumor"), WINDOW)
    for case in layout.find(path):
        read_volume(case, layout.labels, hounsfield=layout.hounsfield)


def make_checkpoint(folder: Path) -> Path:
    segmenter = Segmenter(build("enet", 2), "enet", "kits", organ_and_tumor()["tumor"], Frame(32, 0), WINDOW, (0.5,))
    content = {"weights": segmenter.network.state_dict(), "config": {}, "cases": {"train": ["0"], "val": ["1"]}}
    save_checkpoint(folder / "best.ckpt", {**segmenter.description(), **content})
    return folder / "best.ckpt"


def make_onnx(folder: Path) -> Path:
    return small_onnx(folder / "model.onnx")


def make_safetensors(folder: Path) -> Path:
    save_file(build("enet", 2).state_dict(), folder / "model.safetensors", {KEY: json.dumps(CONTENT)})
    return folder / "model.safetensors"


def mutate_metadata(content: bytes, rng: Generator) -> bytes:
    """Damage the JSON text in an exported file, at its length, which the formats state elsewhere."""
    start, stop = content.index(b"format") - 3, content.index(b"gmacs_at")
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        data[int(rng.integers(start, stop))] = int(rng.choice(list(b'{}[],:"0129ntf.- ')))
    return bytes(data)


def read_export(path: Path) -> None:
    use(open_segmenter(PredictionOptions(path, device="cpu"))[0])


def read_checkpoint(path: Path) -> None:
    use(load_segmenter(path, torch.device("cpu"))[0])


def use(segmenter: Segmenter) -> None:
    segmenter.describe_decision()
    segmenter.source_labels()[segmenter.segment(np.zeros((1, 20, 24), np.int16), segmenter.window or WINDOW)]


READERS = {
    "nifti": Reader(image_as(np.int16, "image.nii"), read_image, (mutate_bytes, mutate_header)),
    "nifti of floats": Reader(image_as(np.float32, "image.nii"), read_image, (mutate_bytes, mutate_header)),
    "nifti.gz": Reader(
        image_as(np.int16, "image.nii.gz"),
        read_image,
        (mutate_bytes, inside_gzip(mutate_bytes), inside_gzip(mutate_header)),
    ),
    "label": Reader(make_label, read_label, (mutate_bytes, inside_gzip(mutate_bytes), inside_gzip(mutate_header))),
    "slice": Reader(bare_slice, read_slices, (mutate_bytes, mutate_member)),
    "list of slices": Reader(lambda folder: slices(folder) / "kits_tumor_slices.npy", read_slices, (mutate_bytes,)),
    "cases.json": Reader(lambda folder: slices(folder) / "cases.json", read_slices, (mutate_bytes, mutate_json)),
    "splits.json": Reader(lambda folder: slices(folder) / "splits.json", read_split, (mutate_bytes, mutate_json)),
    "dataset.json": Reader(make_description, read_description, (mutate_bytes, mutate_json)),
    "cases.csv": Reader(make_list, read_list, (mutate_bytes,)),
    "onnx": Reader(make_onnx, read_export, (mutate_bytes, mutate_metadata)),
    "safetensors": Reader(make_safetensors, read_export, (mutate_bytes, mutate_header, mutate_metadata)),
    "checkpoint": Reader(make_checkpoint, read_checkpoint, (mutate_bytes, mutate_member, mutate_checkpoint)),
}
