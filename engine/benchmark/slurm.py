"""A benchmark as one array of Slurm: each of its tasks is the same command with a share of the runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.numbers import PositiveInt
from utils.options import Parser, add_options, option
from utils.shards import Shard, ShardOptions

INSTALL = "pip install submitit==1.5.4"
DAY = 24 * 60
"""Minutes that a task may take before it is put back into the queue, to go on from there."""
MOST_TIMEOUTS = 1000
LOGS = "slurm"


@dataclass(frozen=True)
class SlurmOptions(ShardOptions):
    """Slurm"""

    slurm: PositiveInt | None = option(
        None, "start the N shares as one array of Slurm", identity=False, exclusive="processes", metavar="N"
    )
    at_once: PositiveInt | None = option(
        None, "of --slurm: how many of them run at the same time (default: all)", identity=False, metavar="M"
    )
    sbatch: tuple[str, ...] = option(
        (), "of --slurm: options of sbatch, as in partition=gpu gres=gpu:1 time=4:00:00", identity=False,
        metavar="KEY=VALUE",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("at_once", "sbatch"):
            if getattr(self, name) and not self.slurm:
                raise UserError(f"--{name}: is of --slurm; say with it into how many shares")


def submit(options: SlurmOptions, outpath: Path, command: Sequence[str], cluster: str = "slurm") -> list[Any]:
    """Start the shares, and print where they are; the jobs, as submitit has them.

    command: script and words as typed, whose place the tasks take; cluster: one that submitit knows. UserError without
    submitit or Slurm, and where sbatch refuses.
    """
    try:
        import submitit
    except ImportError:
        raise UserError(f"--slurm: the package submitit is not installed; {INSTALL}") from None
    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise UserError("--slurm: there is no sbatch here; start it on a machine of the cluster, or use --shard")
    count = options.slurm
    assert count is not None
    script, *words = command
    kept = _without_own(words)
    folder = outpath.absolute() / LOGS
    try:
        executor = submitit.AutoExecutor(folder, cluster, slurm_max_num_timeout=MOST_TIMEOUTS)
        executor.update_parameters(
            name="benchmark",
            timeout_min=DAY,
            slurm_array_parallelism=options.at_once or count,
            slurm_additional_parameters={"requeue": True, **dict(map(_pair, options.sbatch))},
        )
        # submitit repeats what sbatch says, which stands in its error too.
        with redirect_stderr(StringIO()), executor.batch():
            jobs = [
                executor.submit(_share(Path(script), [*kept, "--shard", str(Shard(number, count))]))
                for number in range(1, count + 1)
            ]
    except (RuntimeError, OSError) as error:
        raise UserError(f"--slurm: sbatch refuses: {error}") from None
    at_once = min(options.at_once or count, count)
    print(f"array {jobs[0].job_id.partition('_')[0]}: {count} tasks, {at_once} at once, with their output in {folder}")
    print("the last to end writes the tables; until then --report writes those of the runs that are finished")
    return jobs


def _pair(text: str) -> tuple[str, str | bool]:
    """KEY=VALUE, or KEY alone for a flag."""
    key, equals, value = text.removeprefix("--").partition("=")
    return key, value if equals else True


def _without_own(words: Sequence[str]) -> list[str]:
    """The command's words but those that are of Slurm."""
    parser = Parser(None)
    add_options(parser, SlurmOptions, ("slurm", "at_once", "sbatch"))
    return parser.parse_known_args(words)[1]


def _share(script: Path, words: list[str]) -> Callable[[], None]:
    """A task: defined in here, it travels as it is, for the nodes do not have this project on their path."""

    class Share:
        def __init__(self, script, words, folder):  # type: ignore[no-untyped-def]
            self.script, self.words, self.folder = script, words, folder

        def __call__(self):  # type: ignore[no-untyped-def]
            import os
            import runpy
            import sys
            from pathlib import Path

            os.chdir(self.folder)
            sys.argv = [self.script, *self.words]
            sys.path.insert(0, str(Path(self.script).parent))
            runpy.run_path(self.script, run_name="__main__")

        def checkpoint(self):  # type: ignore[no-untyped-def]
            """For the task that takes this one's place when it is preempted: the same, which goes on where it was."""
            from submitit.helpers import DelayedSubmission

            return DelayedSubmission(self)

    return Share(str(script.absolute()), words, str(Path.cwd()))  # type: ignore[no-untyped-call]
