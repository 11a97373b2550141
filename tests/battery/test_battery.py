"""Whatever is wrong: status 2, one line that names file, fault and remedy, no traceback, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.battery.raw_faults import RAW
from tests.battery.result_faults import RESULTS
from tests.battery.spoil import COMMANDS, Fault, Place
from tests.battery.training_faults import TRAINING
from tests.commands import as_process, error_of, in_process, output_of
from tests.data import kits_case

FAULTS = [*RAW, *TRAINING, *RESULTS]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where nothing is wrong."""
    place = Place(tmp_path_factory.mktemp("good"))
    for number in range(4):
        kits_case(place.raw, number)
    cut = Fault("", "cut", "--outpath {root}/slices --test_fraction 0.25 --val_fraction 0.25")
    output_of(in_process(*cut.line(place)))
    output_of(in_process(*Fault("", "train", "--checkpoint_path {root}/teacher").line(place)))
    return place


@pytest.fixture
def place(good: Place, tmp_path: Path) -> Place:
    """A copy to spoil."""
    shutil.copytree(good.root, tmp_path / "place")
    return Place(tmp_path / "place")


def left(place: Place) -> list[str]:
    """What a command has left at its output, and unfinished files anywhere."""
    found = [path for path in place.out.rglob("*") if path.is_file()] if place.out.is_dir() else []
    return [str(path.relative_to(place.root)) for path in (*found, *place.root.rglob(".writing-*"))]


@pytest.mark.parametrize(
    ("command", "words"), [("cut", ""), ("train", ""), ("distil", ""), ("rescore", "--slice_protocol"), ("predict", "")]
)
def test_where_nothing_is_wrong_the_commands_work(place: Place, command: str, words: str) -> None:
    """So what the others are refused for is their fault; the slow ones are tested elsewhere."""
    output_of(in_process(*Fault("", command, words).line(place)))
    assert left(place)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_one_line(place: Place, fault: Fault) -> None:
    fault.spoil(place)
    before = left(place)
    done = (as_process if fault.real else in_process)(*fault.line(place))
    line = error_of(done)
    at = 0
    for part in fault.says:
        assert part in line[at:], f"{part!r} is not in: {line[at:]}"
        at = line.index(part, at)
    assert "Traceback" not in done.stdout + done.stderr
    results = [name for name in left(place) if name not in before]
    if fault.midway:  # What was cut before the fault was met stays, but no list makes it something to train on.
        results = [name for name in results if name.endswith("_slices.npy") or ".writing-" in name]
    assert not results


def test_the_battery_is_large_enough() -> None:
    assert len(FAULTS) >= 60 and len({str(fault) for fault in FAULTS}) == len(FAULTS)
    assert sum(fault.real for fault in FAULTS) >= 10
    assert {fault.command for fault in FAULTS} >= COMMANDS.keys()
