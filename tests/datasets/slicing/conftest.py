"""What the tests of SliceMaker cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data import kits_case


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Five KiTS cases; 00004 has no tumour."""
    for number in range(5):
        kits_case(tmp_path / "raw", number, tumor=number != 4)
    return tmp_path / "raw"
