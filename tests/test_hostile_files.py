"""Files from others run nothing: no pickle, no import of a name in a file, no path out of a folder, no shell."""

from __future__ import annotations

import ast
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.slices.manifest import Manifest
from datasets.slices.slice_folder import SliceFolder
from engine.saved_segmenter import load_segmenter
from engine.training.initial_weights import build_initialised
from networks import build
from tests.data import cut_slices, kits_case
from tests.paths import ROOT
from tests.small import write_bare_archive
from tests.training import CPU, small_trainer
from utils.errors import UserError


class Hostile:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """The file that must not be there in the end; it would be, if anything were unpickled."""
    path = tmp_path / "trace"
    pickle.loads(pickle.dumps(Hostile(path)))
    assert path.exists()
    path.unlink()
    yield path
    assert not path.exists()


def save_with_torch(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_as_earlier_torch(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_as_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [save_with_torch, save_as_earlier_torch, save_as_pickle])
@pytest.mark.parametrize("use", ["network", "init", "resume"])
def test_a_checkpoint_that_carries_code_is_refused(
    tmp_path: Path, trace: Path, save: Callable[[Any, Path], None], use: str
) -> None:
    slices = SliceFolder.open(write_bare_archive(tmp_path / "slices"), "kits", "tumor")
    path = tmp_path / "run" / "last.ckpt"
    path.parent.mkdir()
    save({"weights": {}, "config": Hostile(trace), "optimizers": []}, path)
    with pytest.raises(UserError, match=r"last\.ckpt: "):
        if use == "network":
            load_segmenter(path, CPU)
        elif use == "init":
            build_initialised("malunet", 2, str(path))
        else:
            small_trainer(slices, path.parent).resume()


@pytest.mark.parametrize("array", ["ct", "mask"])
def test_slices_with_objects_in_them_are_refused(tmp_path: Path, trace: Path, array: str) -> None:
    folder = write_bare_archive(tmp_path / "slices")
    slices = SliceFolder.open(folder, "kits", "tumor")
    arrays: dict[str, Any] = {"ct": np.zeros((4, 4), np.int16), "mask": np.zeros((4, 4), np.uint8)}
    arrays[array] = np.array([Hostile(trace)], dtype=object)
    np.savez(folder / "00000_0.npz", **arrays)
    with pytest.raises(UserError, match=r"00000_0\.npz: is not a slice file"):
        slices.read("00000_0.npz")


def test_a_list_of_objects_is_refused(tmp_path: Path, trace: Path) -> None:
    folder = write_bare_archive(tmp_path / "slices")
    np.save(folder / "kits_tumor_slices.npy", np.array([Hostile(trace)], dtype=object))
    with pytest.raises(UserError, match=r"kits_tumor_slices\.npy: is not a list of slice names"):
        print(SliceFolder.open(folder, "kits", "tumor").train)


def test_a_slice_that_names_a_place_elsewhere_writes_nothing(tmp_path: Path) -> None:
    folder = write_bare_archive(tmp_path / "slices")
    with zipfile.ZipFile(folder / "00000_0.npz", "w") as content:
        content.writestr("../../escaped.npy", b"x")
    with pytest.raises(UserError, match=r"00000_0\.npz: is not a slice file"):
        SliceFolder.open(folder, "kits", "tumor").read("00000_0.npz")
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize("name", ["../out", "a/b", "..", "", "c:\\x"])
@pytest.mark.parametrize("kind", ["tasks", "cases"])
def test_no_name_in_a_manifest_leads_out_of_its_folder(tmp_path: Path, kind: str, name: str) -> None:
    kits_case(tmp_path / "raw", 0)
    cut_slices(tmp_path / "raw", tmp_path / "out")
    path = tmp_path / "out" / "cases.json"
    content = json.loads(path.read_text())
    content[kind][name] = next(iter(content[kind].values()))
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"cases\.json: is damaged"):
        Manifest.load(tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "networks.raunet:RAUNet",
        "../raunet",
        "smp/fpn/tu-hf-hub:someone/net",
        "smp/fpn/resnet34.a/b",
        "smp",
    ],
)
def test_no_network_is_imported_by_a_name_that_a_file_can_hold(name: str) -> None:
    with pytest.raises(UserError, match="there is no "):
        build(name, 2)


OF_A_CLUSTER = {"utils/cluster.py", "utils/on_worker.py"}
"""Messages of Dask, which pickles all of them, and this code itself, from a scheduler that the user has named."""
IMPORTERS = {"utils/registry.py": "of registries in the code", "distillation/__init__.py": "what a user typed"}
"""The only files of the packages that import by name, and which names; scripts are what a user runs."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the project's code: its file, its name such as `torch.load`, and itself."""
    folders = ("utils", "datasets", "networks", "phantoms", "distillation", "engine", "scripts")
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def test_the_code_calls_nothing_that_runs_what_a_file_says() -> None:
    never = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "__import__", "pd.read_pickle"}
    needed = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
    seen = set()
    for path, name, call in calls():
        options = {each.arg: each.value for each in call.keywords}
        if path in OF_A_CLUSTER and name.endswith(("pickle.loads", ".extractall")):
            continue
        assert name not in never and not name.endswith((".extractall", ".extract")), f"{path}: {name}"
        assert "shell" not in options, f"{path}: {name} with a shell"
        by_name = name.rpartition(".")[2] == "import_module" and not path.startswith("scripts/")
        assert not by_name or path in IMPORTERS, f"{path}: {name}"
        if name in needed:
            option, value = needed[name]
            assert option in options and ast.literal_eval(options[option]) is value, f"{path}: {name} without {option}"
            seen.add(name)
    assert seen == needed.keys()
