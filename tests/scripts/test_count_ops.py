"""The table of what networks cost."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable

import pytest

from tests.paths import SCRIPTS

Command = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the script in this process and returns what it prints."""

    def run(*words: str) -> str:
        monkeypatch.syspath_prepend(str(SCRIPTS))
        monkeypatch.setattr(sys, "argv", ["count_ops.py", *words, "--repeats", "1", "--device", "cpu"])
        runpy.run_path(str(SCRIPTS / "count_ops.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_prints_an_aligned_line_for_each_network(run: Command) -> None:
    header, _, *lines = run("--model", "ResNet-18", "smp/fpn/resnet-18", "--size", "96").splitlines()[:4]
    assert len({len(line) for line in (header, *lines)}) == 1
    name, parameters, unit, gmacs, *_, e5, d5, d4, d3, d2 = lines[0].split()
    assert (name, parameters, unit, gmacs) == ("resnet_18", "11.17", "M", "0.32")
    assert [e5, d5, d4, d3, d2] == ["512/32", "256/16", "128/8", "64/4", "64/2"]
    assert lines[1].startswith("smp/fpn/resnet18 ")


def test_prints_markdown(run: Command) -> None:
    header, rule, line, *_ = run("--models", "resnet_18", "--size", "32", "--markdown").splitlines()
    assert header.startswith("| network | parameters | GMACs | peak memory (MiB) |")
    assert line.startswith("| resnet_18 | 11.17 M |")
    assert header.count("|") == rule.count("|") == line.count("|")


def test_unknown_network_is_one_line(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("--model", "resnet_18", "resnet_19")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is no network 'resnet_19'")
