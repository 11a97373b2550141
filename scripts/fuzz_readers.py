"""Damage the files that are read from outside at random, and show that nothing comes of it but one-line errors.

    python scripts/fuzz_readers.py --files 2000 --seed 0
    python scripts/fuzz_readers.py --only 731

Each file is valid but for a mutation that its number and the seed decide: bits flipped, bytes cut out, put in or
repeated, a number, a header field, a part inside of a compressed file or a value inside of its content replaced. It is
read as the commands read it, under limits of memory and time. A file may be refused by a UserError or, where the damage
does not matter, be read; anything else is listed, with the number that --only takes, and the exit status is 2.
"""

from __future__ import annotations

import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import _root  # noqa: F401

from utils.errors import UserError, run
from utils.numbers import NonNegativeInt, Positive, PositiveInt
from utils.options import Parser, option


@dataclass(frozen=True)
class FuzzOptions:
    """damage"""

    files: PositiveInt = option(2000, "how many files, of all kinds in turn")
    seed: NonNegativeInt = option(0, "of the mutations")
    only: NonNegativeInt | None = option(None, "this file alone, with the traceback of what it ends in")
    memory: Positive = option(1.0, "GiB that reading may take beside what the programs themselves need")
    seconds: PositiveInt = option(20, "that reading a file may take")


def main() -> None:
    (options,) = Parser(__doc__).read(FuzzOptions)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from tests.fuzzing import READERS, mutated
    from utils.progress import progress

    kinds = list(READERS)
    numbers = [options.only] if options.only is not None else range(options.files)
    outcomes: Counter[tuple[str, str]] = Counter()
    faults = []
    with tempfile.TemporaryDirectory() as temporary, limited_memory(options.memory):
        valid = {}
        for kind in kinds:
            (Path(temporary) / kind).mkdir()
            valid[kind] = READERS[kind].make(Path(temporary) / kind)
            READERS[kind].read(valid[kind])
        contents = {kind: path.read_bytes() for kind, path in valid.items()}
        for number in progress(numbers, "fuzzing", unit="file"):
            kind = kinds[number % len(kinds)]
            valid[kind].write_bytes(mutated(READERS[kind], contents[kind], options.seed, number))
            try:
                with limited_time(options.seconds):
                    READERS[kind].read(valid[kind])
                outcome = "read"
            except UserError as error:
                outcome = "refused"
                if options.only is not None:
                    print(f"refused: {error}")
            except Exception as error:
                outcome = "fault"
                place = traceback.extract_tb(error.__traceback__)[-1]
                faults.append(f"{number} ({kind}): {type(error).__name__}: {error} ({place.filename}:{place.lineno})")
                if options.only is not None:
                    traceback.print_exc()
            outcomes[kind, outcome] += 1
    for kind in kinds:
        print(f"{kind:<18}", *(f"{outcomes[kind, name]:>5} {name}" for name in ("refused", "read", "fault")))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, programs included")
    for fault in faults:
        print(" ".join(fault.split())[:300], file=sys.stderr)
    if faults:
        raise UserError(f"{len(faults)} of {len(numbers)} damaged files ended in something else than a UserError")


@contextmanager
def limited_memory(gibibytes: float) -> Iterator[None]:
    """Allow the process so much more address space than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(gibibytes * 2**30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def limited_time(seconds: int) -> Iterator[None]:
    """TimeoutError in the main thread after so many seconds."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    run(main)
