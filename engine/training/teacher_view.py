"""Whether a teacher sees what it was trained on."""

from __future__ import annotations

from datasets.frame import Frame
from engine.options import DataOptions
from engine.segmenter import Segmenter


def other_view_note(data: DataOptions, teacher: Segmenter) -> str | None:
    """What of a student's decided data is not as the teacher was trained; None if nothing is."""
    ours, theirs = Frame(data.size or 0, data.crop), teacher.frame
    # Of another size the same share is the same field of view; native sizes have no shares.
    scale = ours.size / theirs.size if ours.size and theirs.size else 1
    crop = ours.side if bool(ours.size) != bool(theirs.size) else round(scale * theirs.side)
    pairs = {
        "window": (_describe(data.window), _describe(teacher.window)),
        "size": (ours.size, theirs.size),
        "crop": (ours.side, crop),
    }
    if not (changed := [f"{name} {one}, not {other}" for name, (one, other) in pairs.items() if one != other]):
        return None
    return (
        f"note: the teacher is shown slices unlike those it was trained on: {', '.join(changed)}; leave these options "
        "out, or train a teacher with them"
    )


def _describe(window: tuple[float, float] | None) -> str:
    return "of each volume's own" if window is None else f"{window[0]:g} to {window[1]:g}"
