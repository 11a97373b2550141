"""Surface distances of one case in millimetres, by MONAI.

Apart from the other metrics because MONAI takes seconds to import, and training needs overlap only.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from monai.metrics.surface_distance import compute_average_surface_distance
from numpy.typing import NDArray
from scipy import ndimage


def distance_scores(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> dict[str, float]:
    """HD95 and ASSD in mm, NSD at 1 mm, by MONAI, of masks [Z, Y, X] with spacing (z, y, x) in mm."""
    if not predicted.any() or not reference.any():
        both = not predicted.any() and not reference.any()
        return {"hd95_mm": math.nan, "assd_mm": math.nan, "nsd_1mm": math.nan if both else 0.0}
    # Distances between surfaces do not change when the empty space around both is cut away.
    box = ndimage.find_objects((predicted | reference).astype(np.uint8))[0]
    y_pred, y = (torch.from_numpy(np.pad(mask[box], 1))[None, None] for mask in (predicted, reference))
    options: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
    with warnings.catch_warnings():
        # MONAI 1.6 warns of an option that it sets itself.
        warnings.simplefilter("ignore", FutureWarning)
        return {
            "hd95_mm": float(compute_hausdorff_distance(y_pred, y, percentile=95, **options)),
            "assd_mm": float(compute_average_surface_distance(y_pred, y, symmetric=True, **options)),
            "nsd_1mm": float(compute_surface_dice(y_pred, y, class_thresholds=[1.0], **options)),
        }
