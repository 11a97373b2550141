"""A sample of the damaged files that scripts/fuzz_readers.py makes."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from tests.commands import in_process, output_of
from tests.fuzzing import READERS, Reader, mutated

SCRIPT = "scripts/fuzz_readers.py"
SAMPLE = 8  # files of each kind


def test_damaged_files_are_refused_or_read() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    lines = output_of(in_process(SCRIPT, "--files", SAMPLE * len(READERS), "--seed", 7)).splitlines()
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    counts = {line[:18].strip(): line[18:].split()[::2] for line in lines[: len(READERS)]}
    assert counts.keys() == READERS.keys()
    for refused, read, faults in counts.values():
        assert int(refused) > 0 and int(refused) + int(read) == SAMPLE and int(faults) == 0


def test_what_is_no_user_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: Path) -> None:
        if len(path.read_bytes()) != 64:
            np.zeros(2**40)

    def make(folder: Path) -> Path:
        (folder / "file").write_bytes(bytes(64))
        return folder / "file"

    for kind in list(READERS):
        monkeypatch.delitem(READERS, kind)
    monkeypatch.setitem(READERS, "careless", Reader(make, careless, (lambda content, rng: content[1:],)))
    done = in_process(SCRIPT, "--files", 3)
    assert done.returncode == 2 and "3 of 3 damaged files ended in something else" in done.stderr
    assert "2 (careless): MemoryError" in done.stderr


def test_a_mutation_depends_on_its_number_alone() -> None:
    reader = READERS["nifti"]
    first, again, other = (mutated(reader, bytes(1000), 0, number) for number in (5, 5, 6))
    assert first == again != other
