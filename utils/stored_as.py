"""How slices lie in the files that they are from. Loading processes start fast without torch."""

from __future__ import annotations

from typing import NamedTuple

from utils.errors import UserError


class StoredAs(NamedTuple):
    """How a slice lies in its source: spacing (z, y, x) in mm; physical value = stored * scale + shift.

    orientation: where the source file's three axes run to, as LPS.
    """

    spacing: tuple[float, float, float]
    scale: float
    shift: float
    orientation: str


def known(origin: StoredAs | None, whose: str) -> StoredAs:
    """The same; UserError, with the name of the case, where it was not recorded when its slices were cut."""
    if origin is None:
        raise UserError(
            f"{whose}: its slices do not say how their source lies, which a network of nnU-Net has to know; cut the "
            "raw cases again, into a new folder"
        )
    return origin
