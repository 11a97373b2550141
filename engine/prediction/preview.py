"""A picture of a case for a quick look: three slices with the contours of what was found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.contours import PREDICTION_COLOUR, Picture, draw_contours, grey_picture, montage
from engine.prediction.volume import Prediction

COLOURS = (PREDICTION_COLOUR, (90, 180, 255), (255, 220, 60), (80, 220, 100))
"""Of class 1, 2, ...; further ones begin again."""


def draw_preview(prediction: Prediction) -> Picture:
    """uint8 [H, 3 W, 3], seen as radiologists do: from the feet, the patient's right at the left edge."""
    pictures = []
    for index in preview_slices(prediction.classes):
        picture = grey_picture(prediction.volume.image[index], prediction.window)
        for number in np.unique(prediction.classes[index])[1:]:
            colour = COLOURS[(int(number) - 1) % len(COLOURS)]
            picture = draw_contours(picture, (prediction.classes[index] == number).astype(np.uint8), colour)
        pictures.append(picture)
    return montage(pictures, columns=3)


def preview_slices(classes: NDArray[np.uint8]) -> list[int]:
    """The slice [Z] with the largest foreground, and those at a quarter and three quarters of the others with any.

    Of a volume without foreground, the middle and those at its quarters.
    """
    areas = np.array([np.count_nonzero(plane) for plane in classes])
    filled = np.flatnonzero(areas) if areas.any() else np.arange(len(areas))
    largest = int(areas.argmax()) if areas.any() else len(areas) // 2
    return [largest, int(filled[len(filled) // 4]), int(filled[len(filled) * 3 // 4])]
