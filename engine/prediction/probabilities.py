"""Class probabilities as files, on the image's own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.raw.volume import write_nifti
from engine.prediction.volume import Prediction
from utils.files import atomic_write


def write_probabilities(path: Path, prediction: Prediction) -> None:
    """As `path` is named: .npz, as nnU-Net's --save_probabilities writes it, or 4D NIfTI with the classes last.

    npz: `probabilities`, float32 [C, z, y, x], of which z, y, x are the file's own axes, its last one first.
    """
    assert prediction.probabilities is not None
    if path.suffix != ".npz":
        write_nifti(path, prediction.probabilities, prediction.volume)
        return
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, probabilities=prediction.probabilities.T)
