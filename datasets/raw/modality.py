"""What a data set's own words say of an image: whether it is CT."""

from __future__ import annotations

import re

CT = {"ct", "cta", "ncct", "cect", "cbct", "ldct", "hrct", "mdct"}
PET = {"pet", "pt"}
MR = {"mr", "mri"}


def is_ct(name: str) -> bool:
    """CT, ct_venous, "CT (portal)", NCCT, CTA; not PET/CT, whose image is not in HU."""
    return bool(_words(name) & CT) and "pet" not in _words(name)


def is_other(name: str) -> bool:
    """PET, PT, MR, MRI, by a name that does not say CT as well."""
    return bool(_words(name) & (PET | MR)) and not _words(name) & CT


def _words(name: str) -> set[str]:
    return set(re.findall("[a-z]+", name.lower()))
