"""What nnU-Net's own predictor answers for a small volume: run by a test in a Python that has nnU-Net.

    PYTHON tests/engine/nnunet/predictor_reference.py FOLDER OUT.npz CODES

FOLDER is a model folder. Writes "probabilities" [C, ...] of `volume()`, in the order in which SimpleITK reads it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPES = {"IPL": (40, 30, 5), "LPS": (5, 30, 40), "LAI": (5, 30, 40)}
"""Of SimpleITK's array, by where the file's axes run to; the last axis of the file is the first of the array."""
SPACINGS = {"IPL": (0.8, 1.3, 2.5), "LPS": (2.5, 1.3, 0.8), "LAI": (2.5, 1.3, 0.8)}


def volume(codes: str) -> NDArray[np.int16]:
    """HU by a closed formula, beyond what is clipped on both sides, and never 0."""
    places = np.indices(SHAPES[codes])
    smooth = 500 * np.sin(places[0] * 0.31 + 0.2) + 400 * np.cos(places[1] * 0.23) + 300 * np.sin(places[2] * 0.17)
    values = np.rint(smooth + 90 * np.cos(places.sum(axis=0) * 2.1)).astype(np.int16)
    return np.where(values == 0, 1, values).astype(np.int16)


def main(folder: Path, out: Path, codes: str) -> None:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=(0,))
    about: dict[str, Any] = {"spacing": SPACINGS[codes]}
    image = volume(codes)[None].astype(np.float32)
    _, probabilities = predictor.predict_single_npy_array(image, about, None, None, True)
    np.savez(out, probabilities=probabilities)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
