"""How threads wait is set before PyTorch is loaded, unless the user has set it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from utils.waiting import SPINS, spin_briefly


@pytest.mark.parametrize(
    ("chosen", "spins"),
    [({}, str(SPINS)), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_what_the_user_chose_stays(chosen: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first, so that whatever is set below is undone.
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    spin_briefly()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_entry_points_choose_before_pytorch_is_loaded() -> None:
    program = (
        "import os, sys\n"
        "from utils.errors import run\n"
        "import engine.options\n"
        "assert 'torch' not in sys.modules\n"
        "run(lambda: print(os.environ['GOMP_SPINCOUNT']))\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(SPINS)
