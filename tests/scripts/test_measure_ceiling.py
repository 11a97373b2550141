"""The highest Dice of a map of logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.evaluation.ceiling import fit_logits
from networks.contract import resize
from tests.commands import error_of, in_process, output_of
from tests.small import write_bare_archive

SCRIPT = "scripts/measure_ceiling.py"


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs of 26 pixels, and tumours of 16 in them, in slices of 64."""
    return write_bare_archive(tmp_path_factory.mktemp("slices"), cases=2, slices=2)


def words(slices: Path, *more: object) -> tuple[object, ...]:
    return ("--data_path", slices, "--steps", 60, "--crop", 0, "--device", "cpu", *more)


def test_finer_maps_and_frames_reach_more(slices: Path) -> None:
    done = output_of(in_process(SCRIPT, *words(slices, "--size", 32, 64, "--stride", 32, 8, 1)))
    header, _, *lines = done.splitlines()
    assert header.split("  ")[0] == "highest Dice (tumor, 2 cases)"
    small, large = ([float(cell) for cell in line.split()[-3:]] for line in lines)
    assert small == sorted(small) and large == sorted(large)
    assert small[0] < 0.6 < small[1] < large[1] < 0.99 < large[2]


def test_networks_stand_for_their_strides(slices: Path) -> None:
    given = words(slices, "--size", 64, "--markdown")
    by_stride = output_of(in_process(SCRIPT, *given, "--stride", 32, 8))
    by_name = output_of(in_process(SCRIPT, *given, "--model", "resnet18", "resnet_18_os8"))
    assert by_name.splitlines()[0].endswith("| resnet_18 | resnet_18_os8 |")
    assert by_name.splitlines()[1:] == by_stride.splitlines()[1:]


def test_a_network_with_a_decoder_has_no_such_map(slices: Path) -> None:
    line = error_of(in_process(SCRIPT, *words(slices, "--size", 64, "--model", "unet_r18")))
    assert "--model unet_r18: has a decoder" in line


def test_validation_cases_that_are_none(slices: Path) -> None:
    assert "choose --part test" in error_of(in_process(SCRIPT, *words(slices, "--part", "val")))


def test_every_class_is_fitted_and_empty_slices_stay_background() -> None:
    truth = torch.zeros(3, 32, 32, dtype=torch.uint8)
    truth[0, 4:20, 4:20] = 1
    truth[1, 10:30, 8:26] = 2
    decided = resize(fit_logits(truth, 4, rows=8, columns=8, steps=80), (32, 32)).argmax(dim=1)
    assert set(decided.unique().tolist()) == {0, 1, 2} and not decided[2].any()
    for index in (1, 2):
        found, true = decided == index, truth == index
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.93
