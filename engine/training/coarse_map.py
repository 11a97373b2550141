"""What a network without a decoder cannot see in small frames."""

from __future__ import annotations

import math

from engine.segmenter import Segmenter
from networks import NETWORKS

CEILINGS = {3: 0.70, 4: 0.81, 5: 0.89, 6: 0.91, 7: 0.93, 8: 0.94}
"""Rows of the map -> the highest Dice on the livers of LiTS, uncropped: scripts/measure_ceiling.py."""
STRIDE = 32
ENOUGH = 256  # pixels


def coarse_map_note(segmenter: Segmenter) -> str | None:
    """What the network's map can reach at most in a small frame; None where that is no matter."""
    channels, side = segmenter.network.channels, segmenter.frame.side
    if channels.has_decoder or channels.stage("e5").stride < STRIDE or not 0 < side < ENOUGH:
        return None
    rows = math.ceil(side / STRIDE)
    fewest = min(CEILINGS)
    reaches = f"less than {CEILINGS[fewest]:.2f}" if rows < fewest else f"about {CEILINGS[rows]:.2f}"
    finer = f"{segmenter.model}_os8"
    return (
        f"note: at {side} pixels {segmenter.model} predicts from a map of {rows} x {rows}, of which the best possible "
        f"one has a Dice of {reaches} on livers; {finer if finer in NETWORKS else 'resnet_18_os8'} sees better "
        "(docs/pitfalls.md)"
    )
