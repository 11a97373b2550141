"""Surface distances of one case in millimetres, by MONAI.

Apart from the other metrics because MONAI takes seconds to import, and training needs overlap only.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from monai.metrics.utils import get_edge_surface_distance
from numpy.typing import NDArray

TOLERANCE_MM = 1.0


def distance_scores(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> dict[str, float]:
    """HD95 and ASSD in mm, NSD at 1 mm, of masks [Z, Y, X] with spacing (z, y, x) in mm.

    All from one search for the nearest surface voxels; MONAI's own functions, which these equal, search once each.
    """
    if not predicted.any() or not reference.any():
        both = not predicted.any() and not reference.any()
        return {"hd95_mm": math.nan, "assd_mm": math.nan, "nsd_1mm": math.nan if both else 0.0}
    masks = (torch.from_numpy(np.pad(mask, 1)) for mask in (predicted, reference))
    with warnings.catch_warnings():
        # MONAI 1.6 warns of an option that it sets itself.
        warnings.simplefilter("ignore", FutureWarning)
        _, (there, back), _ = get_edge_surface_distance(*masks, spacing=list(spacing), symmetric=True)
    everywhere = torch.cat([there, back])
    return {
        "hd95_mm": max(float(torch.quantile(distances, 0.95)) for distances in (there, back)),
        "assd_mm": float(everywhere.mean()),
        "nsd_1mm": float((everywhere <= TOLERANCE_MM).double().mean()),
    }
