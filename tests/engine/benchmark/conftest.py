"""The benchmark's command line with tiny networks."""

from __future__ import annotations

import runpy
import signal
from collections.abc import Iterator

import pytest

from networks import NETWORKS
from tests.engine.benchmark.tiny import Command
from tests.paths import ROOT


@pytest.fixture(scope="module")
def run() -> Iterator[Command]:
    """Runs a script in this process, as if its words had been typed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tiny", "tiny_teacher"):
            patch.setitem(NETWORKS, name, f"tests.engine.benchmark.tiny:{name}")
        patch.setenv("TQDM_DISABLE", "1")
        patch.syspath_prepend(ROOT / "scripts")

        def command(script: str, *words: object) -> None:
            patch.setattr("sys.argv", [script, *map(str, words)])
            runpy.run_path(str(ROOT / script))["main"]()

        before = signal.getsignal(signal.SIGTERM)
        yield command
        signal.signal(signal.SIGTERM, before)
