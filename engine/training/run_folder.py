"""The files that a training leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.slices.digests import as_recorded
from utils.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.files import make_folder, remove_unfinished, write_json


@dataclass(frozen=True)
class RunFolder:
    """best.ckpt, last.ckpt, history.json, TensorBoard's events in log/, and the best checkpoint under the run's name.

    name: <dataset>_<task>_<model>, for checkpoint_<name>_<epoch>.ckpt; config: what decides the result, for a run is
    resumed only with the same; cases: names under "train" and "val". The last two are part of every checkpoint. writes:
    whether this process does, of several that train together.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    cases: Mapping[str, Sequence[str]]
    writes: bool = True

    @property
    def best(self) -> Path:
        return self.path / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def log(self) -> Path:
        """Of TensorBoard's events."""
        return self.path / "log"

    def make(self) -> None:
        """Make the folder, or clear it of what a killed process was writing."""
        if self.writes:
            make_folder(self.path)
            remove_unfinished(self.path)

    def save_best(self, network: Mapping[str, Any], epoch: int) -> None:
        """Keep a network as the best, in place of an earlier one; network: what prediction needs."""
        if not self.writes:
            return
        content = self._checkpoint(network)
        save_checkpoint(self.best, content)
        for older in self._named_copies():
            older.unlink()
        save_checkpoint(self.path / f"checkpoint_{self.name}_{epoch}.ckpt", content)

    def save_offsets(self, offsets: Sequence[float]) -> None:
        """Add the decision to the best network's checkpoints."""
        content = {**load_checkpoint(self.best), "offsets": list(offsets)}
        for path in (*self._named_copies(), self.best):
            save_checkpoint(path, content)

    def save_last(self, network: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Keep the latest network with the state that continues its training."""
        save_checkpoint(self.last, {**self._checkpoint(network), **state})

    def load_last(self) -> dict[str, Any]:
        """What `save_last` wrote, on the CPU; UserError if it is of a run with other settings."""
        content = load_checkpoint(self.last)
        advice = "give another --checkpoint_path"
        if "optimizers" not in content:
            raise UserError(f"{self.last}: cannot be resumed, it holds no optimiser; {advice}")
        if content.get("format") != FORMAT:
            raise UserError(f"{self.last}: was written by an earlier version, which trained differently; {advice}")
        before = as_recorded(content["config"], self.config)
        changed = [
            f"{key} = {before.get(key)}, not {self.config.get(key)}"
            for key in {**before, **self.config}
            if before.get(key) != self.config.get(key)
        ]
        if changed:
            raise UserError(
                f"{self.last}: was trained with {'; with '.join(changed)}; give the same options and data, or another "
                "--checkpoint_path"
            )
        return content

    def save_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        if self.writes:
            write_json(self.path / "history.json", history)

    def _named_copies(self) -> list[Path]:
        return named_copies(self.path, self.name)

    def _checkpoint(self, network: Mapping[str, Any]) -> dict[str, Any]:
        return {**network, "config": dict(self.config), "cases": {part: list(n) for part, n in self.cases.items()}}


def named_copies(folder: Path, name: str) -> list[Path]:
    """Of the best network, under a run's name; other runs may be in the same folder."""
    prefix = f"checkpoint_{name}_"
    return [path for path in folder.glob(f"{prefix}*.ckpt") if path.stem.removeprefix(prefix).isdigit()]


def has_begun(folder: Path, name: str, resume: bool) -> bool:
    """Whether a folder holds a run to resume; UserError if it holds one that would be overwritten.

    resume: whether that was asked for. Of an empty folder that is no error, for a job that may be killed and started
    again always asks for it.
    """
    if (folder / "last.ckpt").exists():
        if not resume:
            raise UserError(f"{folder}: holds a run already; add --resume, or give another --checkpoint_path")
        return True
    for path in (folder / "best.ckpt", *named_copies(folder, name)):
        if path.exists():
            raise UserError(
                f"{path}: would be overwritten, and there is no last.ckpt to resume its run from; move it away, or "
                "give another --checkpoint_path"
            )
    return False
