"""Raw cases in the layouts in which they are published. A layout is one file here and one line in `LAYOUTS`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils.registry import lookup

if TYPE_CHECKING:
    from datasets.raw.layout import Layout

LAYOUTS: dict[str, str] = {
    "kits": "datasets.raw.kits:layout",
    "lits": "datasets.raw.lits:layout",
    "acdc": "datasets.raw.acdc:layout",
    "heart": "datasets.raw.msd:heart",
    "msd": "datasets.raw.msd:layout",
}

MR_LAYOUTS = ("acdc", "heart")


def open_layout(name: str, root: Path) -> Layout:
    """The layout `name` for the raw data in `root`; only msd reads something there, its labels (dataset.json)."""
    layout: Layout = lookup(LAYOUTS, "dataset", name)(root)
    return layout
