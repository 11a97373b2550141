"""What the timer of predictions prints."""

from __future__ import annotations

import re

from tests.commands import in_process, output_of


def test_a_prediction_is_timed_beside_its_network() -> None:
    words = ("--slices", 6, "--size", 48, "--batch_size", 2, "--repeats", 1)
    printed = output_of(in_process("scripts/bench_predict.py", *words))
    assert re.search(r"^NIfTI to NIfTI +\d+\.\d\d ms a slice", printed, re.M)
    share = re.search(r"^(\d+\.\d)% of the bare throughput \(malunet, 6 slices, batches of 2, ", printed, re.M)
    assert share and float(share[1]) > 0
