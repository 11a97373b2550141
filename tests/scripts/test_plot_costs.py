"""The figure of costs from a benchmark's results.csv, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Done, error_of, in_process, output_of

HEAD = "student,method,dice,training_time\n"


def plot(tmp_path: Path, content: bytes) -> Done:
    (tmp_path / "results.csv").write_bytes(content)
    words = ["--results", tmp_path / "results.csv", "--model", "raunet", "--dice", 0.9, "--outpath", tmp_path / "a.png"]
    return in_process("scripts/plot_costs.py", *words)


def test_results_are_drawn(tmp_path: Path) -> None:
    output_of(plot(tmp_path, f"{HEAD}enet,undistilled,0.8,1\nenet,hlfd,,1.3\n".encode()))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read as CSV"),
        (bytes(range(256)), "cannot be read as CSV"),
        (b"a,b\n1,2\n3,4,5\n", "cannot be read as CSV"),
        (b"student,method,dice\nenet,hlfd,0.8\n", "has no column training_time"),
        (f"{HEAD}enet,hlfd,good,1\n".encode(), "its column dice does not hold numbers"),
        (HEAD.encode(), "holds no run"),
    ],
)
def test_what_is_no_benchmark_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    line = error_of(plot(tmp_path, content))
    assert "results.csv: " in line and says in line and not (tmp_path / "a.png").exists()
