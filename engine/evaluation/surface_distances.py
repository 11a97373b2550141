"""Surface distances of one case in millimetres, by MONAI.

Apart from the other metrics because MONAI takes seconds to import, and training needs overlap only.
"""

from __future__ import annotations

import math

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance
from numpy.typing import NDArray

TOLERANCE_MM = 1.0
ROUNDING_MM = 1e-4
"""Of spacings as headers print them: slices 1.0000005 mm apart are 1 mm apart."""


def distance_scores(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> dict[str, float]:
    """HD95 and ASSD in mm, NSD at 1 mm, of masks [Z, Y, X] with spacing (z, y, x) in mm.

    All from one search for the nearest surface voxels; MONAI's own functions, which these equal, search once each.
    """
    if not predicted.any() or not reference.any():
        both = not predicted.any() and not reference.any()
        return {"hd95_mm": math.nan, "assd_mm": math.nan, "nsd_1mm": math.nan if both else 0.0}
    ours, theirs = get_mask_edges(np.pad(predicted, 1), np.pad(reference, 1))
    there, back = (
        np.asarray(get_surface_distance(*pair, "euclidean", list(spacing))) for pair in ((ours, theirs), (theirs, ours))
    )
    everywhere = np.concatenate([there, back])
    return {
        "hd95_mm": max(float(np.percentile(distances, 95)) for distances in (there, back)),
        "assd_mm": float(everywhere.mean()),
        "nsd_1mm": float((everywhere <= TOLERANCE_MM + ROUNDING_MM).mean()),
    }
