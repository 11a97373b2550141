"""Commands of this repository that are killed, for the scripts that check that nothing is lost.

Each command is a process of its own, forked from this one, which has imported PyTorch already: a real process, killed
by a real signal, that starts in a tenth of a second. This process must therefore never train itself.
"""

from __future__ import annotations

import os
import random
import resource
import runpy
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import _root

from utils.errors import UserError

FAULTS = {"SIGKILL": (-signal.SIGKILL,), "SIGTERM": (130, -signal.SIGTERM), "full disk": (2,)}
"""With the statuses in which a command may end by them."""
ORPHANS_END = 1.0
"""Seconds to wait for at most: where nobody takes note of their end, they seem to be there for ever."""
NOT_COMPARED = ("environment", "preparation", "command", "seconds")
"""In files: what is measured, where it was, and how it was typed."""


def preload() -> None:
    """Import here, once, what the commands need."""
    for module in ("datasets.slicing.slicemaker", "engine.training.run"):
        import_module(module)


class Process:
    """A command that runs; log: what it prints; largest_file: bytes, beyond which it finds the disk full."""

    def __init__(self, log: Path, script: str, *words: object, largest_file: int | None = None) -> None:
        self.log, self.started = log, time.monotonic()
        self.line = shlex.join(["python", script, *map(str, words)])
        self.status: int | None = None
        sys.stdout.flush()
        self.number = os.fork()
        if self.number == 0:
            _become(log, self.line, [str(_root.ROOT / script), *map(str, words)], largest_file)

    def has_ended(self) -> bool:
        """Whether it has; its status is then as of subprocess: negative for a signal."""
        if self.status is None:
            number, status = os.waitpid(self.number, os.WNOHANG)
            if number:
                self.status = os.waitstatus_to_exitcode(status)
                self._end_group()
        return self.status is not None

    def wait(self, until: Callable[[], bool] = lambda: False) -> None:
        """Until it has ended, or something else is the case."""
        while not (self.has_ended() or until()):
            time.sleep(0.002)

    def kill(self, fault: str) -> None:
        """Send it, and for SIGKILL all that it has started, as in a power failure, a signal, and wait for its end."""
        if not self.has_ended():
            if fault == "SIGKILL":
                self._kill_group()
            else:
                os.kill(self.number, signal.SIGTERM)
        self.wait()

    def succeed(self) -> None:
        """Wait for its end; UserError if it is not a good one."""
        self.wait()
        if self.status:
            raise UserError(f"{self.log}: ended with status {self.status}: {self.last_words()}")

    def refuse_bad_end(self, fault: str) -> None:
        """UserError if it has ended otherwise than by this fault, or by a full disk without a line that says so."""
        in_a_line = fault != "full disk" or self.last_words().startswith("error: ")
        if self.status not in FAULTS[fault] or not in_a_line:
            raise UserError(f"{self.log}: ended with status {self.status} by {fault}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line that it printed."""
        lines = self.log.read_text(encoding="utf-8").replace("\r", "\n").strip().splitlines()
        return lines[-1] if lines else "nothing was printed"

    def _end_group(self) -> None:
        """Kill all that it has started until that is gone: until then a fork holds the locks of its parent."""
        moment = time.monotonic() + ORPHANS_END
        while self._kill_group() and time.monotonic() < moment:
            time.sleep(0.002)

    def _kill_group(self) -> bool:
        """Whether there was anything left to kill; not before it has made its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.number, signal.SIGKILL)
            return True
        return False


@contextmanager
def empty_folder(outpath: Path | None) -> Iterator[Path]:
    """A folder to work in, by default a temporary one; UserError if it is not empty."""
    with tempfile.TemporaryDirectory() as temporary:
        out = outpath or Path(temporary)
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out}: is not empty; give another --outpath")
        out.mkdir(parents=True, exist_ok=True)
        yield out


def _become(log: Path, line: str, argv: list[str], largest_file: int | None) -> None:
    """Turn a forked process into the command, which ends it."""
    status = 1
    try:
        os.setsid()
        os.environ["TQDM_DISABLE"] = "1"
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.write(file, f"$ {line}\n".encode())
        os.dup2(file, 1)
        os.dup2(file, 2)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


@dataclass
class Training:
    """A training in `folder` that meets faults; words: the script and its options, without the folder and --resume."""

    words: tuple[object, ...]
    folder: Path
    draws: random.Random
    faults: list[str] = field(default_factory=list)
    """What it has met."""
    steps: list[int] = field(default_factory=list)
    """Where last.ckpt stood after each of them; -1 where there was none yet."""

    def start(self, **options: Any) -> Process:
        return Process(self.log, *self.words, "--checkpoint_path", self.folder, "--resume", **options)

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    def meet(self, fault: str, pace: float) -> bool:
        """Start or continue it, and let the fault come at a random moment; False if it ended well before.

        pace: seconds from one last.ckpt to the next, about. UserError if anything is lost.
        """
        before, size = self.step(), self.last.stat().st_size if self.last.exists() else 0
        if fault == "full disk":
            # Less than a checkpoint, sometimes less than TensorBoard's events, always more than what is printed.
            process = self.start(largest_file=self.draws.choice([6000, max(6000, size // 3)]))
            process.wait()
        else:
            process = self.start()
            for _ in range(self.draws.choice((0, 0, 1, 1, 2, 3))):
                written = self._written()
                process.wait(until=lambda: self._written() != written)  # noqa: B023
            moment = time.monotonic() + self.draws.uniform(0, 2 * pace)
            process.wait(until=lambda: time.monotonic() > moment)
            process.kill(fault)
        if process.status == 0:
            return False
        process.refuse_bad_end(fault)
        self.faults.append(fault)
        self.steps.append(self.step())
        if self.steps[-1] < before:
            raise UserError(f"{self.last}: stood at step {before} before {fault}, and at {self.steps[-1]} after it")
        return True

    def step(self) -> int:
        """Of last.ckpt, which must be readable at any moment; -1 without one."""
        from utils.checkpoint import load_checkpoint

        return int(load_checkpoint(self.last)["progress"]["step"]) if self.last.exists() else -1

    def _written(self) -> int:
        with suppress(FileNotFoundError):
            return self.last.stat().st_mtime_ns
        return 0


def refuse_differences(one: Path, other: Path) -> None:
    """UserError if the folders of two finished trainings differ in more than the time that they took."""
    from utils.checkpoint import load_checkpoint
    from utils.files import read_json

    names = [sorted(path.name for path in folder.iterdir() if path.name != "log") for folder in (one, other)]
    if names[0] != names[1]:
        raise UserError(f"{other}: holds {', '.join(names[1])}, not {', '.join(names[0])}")
    for name in names[0]:
        if (read := {".ckpt": load_checkpoint, ".json": read_json}.get(Path(name).suffix)) is not None:
            contents = [read(folder / name) for folder in (one, other)]
            if (where := next(differences(*contents), None)) is not None:
                raise UserError(f"{other / name}: differs from that of {one} in {where}")
        elif (one / name).read_bytes() != (other / name).read_bytes():
            raise UserError(f"{other / name}: differs from that of {one}")


def differences(one: Any, other: Any, where: str = "it") -> Iterator[str]:
    """Where two contents of checkpoints differ, bit for bit."""
    import torch

    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            if key not in NOT_COMPARED:
                yield from differences(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{where}[{i}]")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        if not (same and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()):
            yield where
    elif one != other:
        yield where
