"""The teacher answers as nnU-Net's own predictor does: axes, normalisation, resampling, padding and tiles."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datasets.frame import Frame
from datasets.raw.nifti import Orientation
from engine.nnunet.folder import read_model_folder
from engine.nnunet.teacher import NnunetTeacher
from tests.engine.nnunet import predictor_reference
from tests.engine.nnunet.predictor_reference import SPACINGS, volume
from tests.networks.test_nnunet import PACKAGE
from tests.nnunet import settings, tiny_network, write_model_folder
from utils.batch import Stored
from utils.stored_as import StoredAs

TRANSPOSES = {"IPL": [2, 0, 1], "LPS": [0, 1, 2], "LAI": [0, 2, 1]}
"""transpose_forward of the plans, by where the axes of the files run to; the last one swaps rows and columns."""
GOLDEN = {
    "IPL": {
        (36, 28, 1): [0.03361, 0.41549, 0.5509],
        (18, 7, 3): [0.01693, 0.65635, 0.32672],
        (36, 10, 0): [0.02466, 0.53656, 0.43878],
        (0, 8, 4): [0.01255, 0.72943, 0.25802],
    },
    "LPS": {
        (2, 13, 29): [0.03737, 0.37054, 0.59209],
        (4, 24, 2): [0.02159, 0.58059, 0.39782],
        (1, 11, 28): [0.0294, 0.4702, 0.5004],
        (0, 0, 19): [0.01626, 0.66606, 0.31768],
    },
    "LAI": {
        (1, 13, 23): [0.03995, 0.33999, 0.62006],
        (4, 6, 29): [0.02538, 0.52649, 0.44813],
        (4, 16, 33): [0.03174, 0.43958, 0.52868],
        (2, 8, 35): [0.01941, 0.61635, 0.36424],
    },
}
"""Probabilities of nnU-Net 2.8.1, mirroring off, by the place in SimpleITK's array."""
RUNS_TO = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
HALF = 1e-3
"""nnU-Net adds up its tiles in half precision."""


def plans(codes: str) -> dict[str, Any]:
    forward = TRANSPOSES[codes]
    return {**settings(), "transpose_forward": forward, "transpose_backward": [forward.index(i) for i in range(3)]}


def orientation(codes: str) -> Orientation:
    """Of a file whose axes run there."""
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([RUNS_TO[code] for code in codes])
    assert "".join(nib.aff2axcodes(affine)) == codes
    return Orientation.of(affine)


def answers(folder: Path, codes: str) -> NDArray[np.float32]:
    """The teacher's probabilities [C, ...] of the reference's volume, in SimpleITK's order of axes."""
    turn = orientation(codes)
    values = torch.from_numpy(np.ascontiguousarray(turn.array_view(volume(codes).transpose(2, 1, 0))))
    origin = StoredAs(turn.to_zyx(SPACINGS[codes][::-1]), 1.0, 0.0, codes)
    plan = read_model_folder(Path(f"nnunet:{folder}")).plan
    teacher = NnunetTeacher(tiny_network(plans(codes)), plan, [(0,), (1,), (2,)])
    found = teacher.answer(Stored(values[:, None], [origin] * len(values))).logits.softmax(dim=1).numpy()
    return np.stack([turn.file_view(found[:, c]).transpose(2, 1, 0) for c in range(found.shape[1])])


@pytest.mark.parametrize("codes", GOLDEN)
def test_probabilities_are_those_of_nnunets_predictor(codes: str, tmp_path: Path) -> None:
    found = answers(write_model_folder(tmp_path / "model", plans(codes)), codes)
    for place, expected in GOLDEN[codes].items():
        assert found[(slice(None), *place)] == pytest.approx(expected, abs=HALF)


@pytest.mark.parametrize("codes", GOLDEN)
def test_nnunets_predictor_reads_the_folder_and_answers_the_same(codes: str, tmp_path: Path) -> None:
    python = os.environ.get(PACKAGE)
    if not python:
        pytest.skip(f"{PACKAGE} names no Python that has nnU-Net (python -m venv V; V/bin/pip install nnunetv2)")
    folder, out = write_model_folder(tmp_path / "model", plans(codes)), tmp_path / "out.npz"
    subprocess.run([python, predictor_reference.__file__, folder, out, codes], check=True)
    with np.load(out) as content:
        expected = content["probabilities"]
    found = answers(folder, codes)
    assert np.abs(found - expected).max() < HALF
    assert np.abs(found - expected).mean() < HALF / 10
    for place, values in GOLDEN[codes].items():
        assert expected[(slice(None), *place)] == pytest.approx(values, abs=1e-4)


def test_every_orientation_of_a_file_shows_the_network_what_that_file_shows_nnunet(tmp_path: Path) -> None:
    """By NumPy alone: the array as SimpleITK reads it, its slices first, normalised."""
    content = settings()
    content["configurations"]["2d"] |= {"spacing": [1.0, 1.0], "patch_size": [32, 32]}
    folder = write_model_folder(tmp_path / "model", content)
    plan = read_model_folder(Path(f"nnunet:{folder}")).plan
    teacher = NnunetTeacher(tiny_network(content), plan, [(0,), (1,), (2,)])
    ours = np.random.default_rng(0).integers(-900, 900, (1, 32, 32)).astype(np.int16)
    outcomes = []
    for codes in [f"I{rest}" for rest in ("PL", "AL", "PR", "AR", "LP", "RP", "LA", "RA")]:
        turn = orientation(codes)
        read = turn.file_view(ours).transpose(2, 1, 0)
        plane = (read.transpose(2, 0, 1)[0].clip(-600, 700).astype(np.float32) - 40) / 350
        with torch.no_grad():
            logits = teacher.network(torch.from_numpy(plane)[None, None])[0].numpy()
        expected = np.stack([turn.array_view(each[None].transpose(1, 2, 0).transpose(2, 1, 0))[0] for each in logits])
        stored = Stored(torch.from_numpy(ours)[None], [StoredAs((5.0, 1.0, 1.0), 1.0, 0.0, codes)])
        found = teacher.answer(stored).logits[0].numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        outcomes.append(found)
    assert min(np.abs(a - b).max() for i, a in enumerate(outcomes) for b in outcomes[:i]) > 0.1


def test_a_frame_of_another_size_is_brought_to_the_same_spacing() -> None:
    frame = Frame(64, 0)
    assert frame.spacing((5.0, 0.8, 0.6), (128, 32)) == (5.0, 1.6, pytest.approx(0.3))
    assert Frame(0, 16).spacing((5.0, 0.8, 0.6), (128, 32)) == (5.0, 0.8, 0.6)
