"""Raw cases in the layouts in which they are published. A layout is one file here and one line in `LAYOUTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.registry import lookup, match_name, normalise_name

if TYPE_CHECKING:
    from datasets.raw.layout import Layout

LIST = "list"
# The data sets whose labels a file or the user names.
OWN_LABELS = ("msd", LIST)
LAYOUTS: dict[str, str] = {
    "kits": "datasets.raw.kits:layout",
    "lits": "datasets.raw.lits:layout",
    "acdc": "datasets.raw.acdc:layout",
    "heart": "datasets.raw.msd:heart",
    "msd": "datasets.raw.msd:layout",
    LIST: "datasets.raw.case_list:layout",
}

MR_LAYOUTS = ("acdc", "heart")


def channel_choice(dataset: str, channel: int | None) -> str | None:
    """The channel that a network was trained on, as `open_layout` takes it for data of any layout."""
    return str(channel) if channel is not None and normalise_name(dataset) == "msd" else None


def open_layout(
    name: str,
    root: Path,
    labels: Sequence[str] = (),
    window: tuple[float, float] | None = None,
    channel: str | None = None,
) -> Layout:
    """The layout `name` for the raw data in `root`, where msd and kits read what labels there are.

    labels, window: of `list` alone, as `datasets.raw.case_list.layout` takes them; channel: of `msd` alone. UserError
    for another layout.
    """
    factory: Callable[..., Layout] = lookup(LAYOUTS, "dataset", name)
    name = match_name("dataset", name, LAYOUTS)
    for flag, value, owner in (("labels", labels, LIST), ("window", window, LIST), ("channel", channel, "msd")):
        if value and name != owner:
            raise UserError(f"--{flag}: is of --dataset {owner} alone, not of {name}; leave it out")
    if name == LIST:
        return factory(labels, window)
    return factory(root, channel) if name == "msd" else factory(root)
