"""Where a result comes from: versions, git commit, command and digests, and what of these may be shown to others."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.slices.digests import slice_digest
from engine.names import hide_names
from utils.cores import machine
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.fingerprint import file_digest, fingerprint
from utils.options import command_line

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
RUN_FILE = "run.json"
OPTIONAL = ("requirements-openvino.txt",)
"""Their packages are imported under the names that they are installed by."""


def provenance(device: torch.device | None) -> dict[str, Any]:
    """For a checkpoint, which is passed on: the command has only the last components of its paths.

    device: None where PyTorch has no part in the work.
    """
    if device is None:
        environment = machine()
    else:
        from engine.device import environment as on_device  # SliceMaker does not wait for PyTorch.

        environment = on_device(device)
    return {
        "command": shown_command(),
        "commit": git_commit(),
        "packages": package_versions(),
        "environment": environment,
    }


def describe_place(device: torch.device) -> dict[str, Any]:
    """Device, packages and machine, for what is made elsewhere than where the command was typed."""
    made = provenance(device)
    return {"packages": made["packages"], "environment": made["environment"], "device": str(device)}


def describe_launch(
    device: torch.device | None, digests: Mapping[str, Any], classes: Sequence[str], seconds: float = 0.0
) -> dict[str, Any]:
    """For what this launch leaves: the command as it was typed, versions, machine, and what it read.

    digests: of data and networks, by their names; None where there is none.
    """
    return {
        **provenance(device),
        "command": command_line(),
        "digests": {name: digest for name, digest in digests.items() if digest is not None},
        "classes": list(classes),
        "seconds": round(seconds, 1),
    }


def digest_of(files: Iterable[Path]) -> str:
    """One digest for the files of a case: its image and segmentation, or its slices."""
    return fingerprint(slice_digest(path) if path.suffix == ".npz" else file_digest(path) for path in files)


def of_networks(digests: Mapping[str, str]) -> dict[str, str]:
    """Digests of checkpoints by the networks' names -> by names that no case has."""
    return {f"checkpoint of {name}": digest for name, digest in digests.items()}


def write_run_file(
    folder: Path,
    device: torch.device | None,
    digests: Mapping[str, Any],
    classes: Sequence[str],
    seconds: float = 0.0,
) -> None:
    """Add this launch, as `describe_launch` does, to the folder's run.json: a list, for a run can be resumed.

    Of a launch that is there already, the seconds are added up.
    """
    _add_launch(folder / RUN_FILE, describe_launch(device, digests, classes, seconds))


def write_shown_run_file(
    path: Path,
    device: torch.device | None,
    digests: Mapping[str, Any],
    classes: Sequence[str],
    seconds: float,
    shown: Mapping[str, str],
) -> None:
    """The same in a run file that is passed on: of paths the last components, and cases as `shown_names` shows them.

    digests: of cases by their own names.
    """
    launch = describe_launch(device, {shown.get(name, name): digests[name] for name in digests}, classes, seconds)
    _add_launch(path, {**launch, "command": hide_names(shown_command(), shown)})


def read_launches(path: Path) -> list[dict[str, Any]]:
    """What a run file holds so far, empty where there is none; UserError if it is another's.

    Commands call it before their work, for which a file in the way would come too late at the end.
    """
    launches = read_json(path) if path.exists() else []
    if not isinstance(launches, list) or not all(isinstance(each, dict) for each in launches):
        raise UserError(f"{path}: is not a list of launches, as a run writes it; move it away")
    return launches


def _add_launch(path: Path, launch: Mapping[str, Any]) -> None:
    launches = read_launches(path)
    same = [each for each in launches if {**launch, "seconds": each.get("seconds")} == each]
    if same:
        same[0]["seconds"] = round(same[0]["seconds"] + launch["seconds"], 1)
    write_json(path, launches if same else [*launches, launch])


@cache
def git_commit() -> str | None:
    """The commit of this code, and whether it was changed; None outside of its own git repository."""
    try:
        place, commit = _git("rev-parse", "--show-toplevel", "HEAD").split()
        if Path(place) != ROOT:
            return None
        return f"{commit} with changes" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()


def package_versions() -> dict[str, str | None]:
    """The installed versions of what requirements.txt names, and of the optional packages that are in use."""
    used = [name for file in OPTIONAL for name in _required(file) if name in sys.modules]
    return {name: _version(name) for name in (*_required("requirements.txt"), *used)}


@cache
def _required(file: str) -> tuple[str, ...]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return tuple(found[0] for line in lines if (found := re.match(r"[A-Za-z0-9][\w.-]*", line)))


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def shown_command(words: Sequence[str] | None = None) -> str:
    """The command with only the last component of each path, for reports and for files that are passed on."""
    return " ".join(["python", *map(shown_word, sys.argv if words is None else words)])


def shown_line(line: str) -> str:
    """A command line of this repository that can be typed again: its script stays as it was typed."""
    python, script, *words = shlex.split(line)
    return shlex.join([python, script, *map(shown_word, words)])


def shown_word(word: str) -> str:
    """The last component of a path, also in `--flag=path`; other words, such as smp/fpn/mit_b1, as they are."""
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{flag}{equals}{Path(value).name}" if _is_path(value) else word


def _is_path(word: str) -> bool:
    """Whether a word names a place on this machine: it is there, its folder is, or it begins as only paths do."""
    if not word or "/" not in word.replace("\\", "/"):
        return False
    path = Path(word)
    return path.is_absolute() or word.startswith(("~", "./", "../")) or path.exists() or path.parent.is_dir()
