"""Checkpoints: which files are read, what is said of others, and what a full disk leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.faults import files_of_at_most
from utils.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from utils.errors import UserError


def test_what_is_saved_is_read_with_its_format(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.ckpt", {"weights": {"w": torch.ones(2)}})
    content = load_checkpoint(tmp_path / "a.ckpt")
    assert content["format"] == FORMAT and torch.equal(content["weights"]["w"], torch.ones(2))


@pytest.mark.parametrize("number", [{}, {"format": 1}, {"format": 2}])
def test_earlier_formats_are_read(tmp_path: Path, number: dict[str, int]) -> None:
    torch.save({"weights": {}, "model": "raunet", **number}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["model"] == "raunet"


@pytest.mark.parametrize("number", [0, FORMAT + 1, "new"])
def test_an_unknown_format_is_refused(tmp_path: Path, number: object) -> None:
    torch.save({"weights": {}, "format": number}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt: has the unknown checkpoint format .*; update the code"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("key", ["weights", "state_dict", "model", None])
def test_weights_are_found_wherever_others_put_them(tmp_path: Path, key: str | None, prefix: str) -> None:
    weights = {f"{prefix}head.weight": torch.ones(2), f"{prefix}module.bias": torch.zeros(1)}
    torch.save(weights if key is None else {key: weights, "epoch": 3}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["weights"].keys() == {"head.weight", "module.bias"}


def test_a_file_without_weights_names_what_it_has(tmp_path: Path) -> None:
    torch.save({"generator": {"w": torch.ones(1)}, "current_epoch": 3}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"holds no network weights \(its keys are generator, current_epoch\); give a"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_file_with_objects_names_them_and_nothing_of_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"weights": {}, "harm": Harm(tmp_path / "harm")}, path)
    with pytest.raises(UserError) as refused:
        load_checkpoint(path)
    assert not (tmp_path / "harm").exists()
    assert "it holds Python objects (" in str(refused.value) and "\x1b" not in str(refused.value)
    torch.save({"weights": {}, "epoch": np.float64(3)}, path)
    with pytest.raises(UserError, match=r"it holds Python objects \(numpy.*\), which are never loaded"):
        load_checkpoint(path)


def test_what_is_no_fault_of_the_disk_is_not_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a tensor has no storage")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(RuntimeError, match="a tensor has no storage"):
        save_checkpoint(tmp_path / "a.ckpt", {"weights": {}})
    assert not list(tmp_path.iterdir())


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99, None])
def test_a_damaged_file_is_told_from_a_foreign_one(tmp_path: Path, part: float | None) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, {"weights": {"w": torch.ones(1000)}})
    whole = path.read_bytes()
    path.write_bytes(b"<html>404</html>" if part is None else whole[: int(part * len(whole))])
    with pytest.raises(UserError) as refused:
        load_checkpoint(path)
    assert f"({path.stat().st_size} bytes, damaged, cut short, or not of PyTorch)" in str(refused.value)


@pytest.mark.parametrize("most", [100, 3000])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, most: int) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"weights": {"w": torch.ones(5000)}})
    before = path.read_bytes()
    with files_of_at_most(most), pytest.raises(UserError, match=r"last\.ckpt: cannot be written \(File too large\)"):
        save_checkpoint(path, {"weights": {"w": torch.zeros(5000)}})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
