"""What a command costs, and what is said of one that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.paths import SCRIPTS


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import _memory

    return _memory


def test_the_memory_of_children_counts(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that holds 200 MiB while its parent waits."""
    (tmp_path / "child.py").write_text("import time; held = b'x' * (200 << 20); time.sleep(0.5)")
    (tmp_path / "parent.py").write_text(
        f"import subprocess, sys; subprocess.run([sys.executable, {str(tmp_path / 'child.py')!r}], check=True)"
    )
    monkeypatch.setattr(memory._root, "ROOT", tmp_path)
    cost = memory.spend("parent.py")
    assert 200 < cost.mebibytes < 300 and cost.seconds > 0.5


def test_a_command_that_fails_is_one_line(memory: Any) -> None:
    with pytest.raises(memory.UserError, match=r"scripts/predict\.py failed: error: "):
        memory.spend("scripts/predict.py", "--ckpt", "absent.ckpt", "--inpath", "absent", "--outpath", "absent")


@pytest.mark.parametrize(
    ("line", "ending"),
    [
        ("os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("sys.exit(3)", "ended with status 3"),
        (r"sys.stderr.buffer.write(b'first\nno \xff text\n'); sys.exit(1)", "no \ufffd text"),
    ],
)
def test_a_command_that_says_nothing_is_told_by_its_end(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, ending: str
) -> None:
    (tmp_path / "script.py").write_text(f"import os, sys; {line}")
    monkeypatch.setattr(memory._root, "ROOT", tmp_path)
    with pytest.raises(memory.UserError, match=f"script.py failed: {ending}$"):
        memory.spend("script.py")
