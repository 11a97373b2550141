"""Losses against those of torchdistill (Y. Matsubara: torchdistill, RRPR 2021), at equal widths and sizes.

Each function is torchdistill's loss on the features of six images, times what the two deliberately differ by.
Two of its losses are other formulas than their papers' and have no part here: SPKDLoss divides the rows by their L1
norms, where SP takes L2, and KTALoss and AffinityLoss compare whole maps and channels, where KTAAD compares pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torchdistill.losses import mid_level

from distillation.method import Method
from distillation.methods.ickd import ICKD
from distillation.methods.reviewkd import hierarchical_context
from distillation.methods.vid import VID
from networks.contract import Features
from tests.golden.features import TEACHER, TEACHER_SIZES, random_batch, random_features
from tests.small import make_method

IMAGES = 6
CHANNELS = replace(TEACHER, classes=3)
PATHS = ("map", "output", "map", "output")
PAIR = {"pair": {side: {"path": "map", "io": "output"} for side in ("student", "teacher")}}


def six_images(seed: int) -> Features:
    of_two = [random_features(CHANNELS, TEACHER_SIZES, seed + i) for i in range(IMAGES // 2)]
    encoder, decoder = (
        tuple(torch.cat(maps).detach() for maps in zip(*stages, strict=True))
        for stages in ([f.encoder for f in of_two], [f.decoder for f in of_two])
    )
    return Features(encoder, decoder, torch.cat([f.logits for f in of_two]).detach())


def output(value: Any) -> dict[str, dict[str, Any]]:
    """A module's output as torchdistill hands it to a loss."""
    return {"map": {"output": value}}


def pixels(features: Features) -> dict[str, dict[str, Any]]:
    """Logits with each pixel as an instance, [B, C, H, W] -> [B * H * W, C]."""
    return output(features.logits.movedim(1, 3).flatten(0, 2))


def kd(method: Method, student: Features, teacher: Features) -> torch.Tensor:
    """Without its hard loss torchdistill leaves T^2 out, and the weight of 0.1."""
    loss: torch.Tensor = mid_level.KDLoss(*PATHS, temperature=4, alpha=0)(pixels(student), pixels(teacher))
    return 0.1 * 4**2 * loss


def lskd(method: Method, student: Features, teacher: Features) -> torch.Tensor:
    """Its standard deviation has Bessel's correction, for which the temperature makes up; and no weight of 9."""
    temperature = 2 * math.sqrt((CHANNELS.classes - 1) / CHANNELS.classes)
    peer = mid_level.LogitStdKDLoss(*PATHS, temperature=temperature, alpha=0)
    loss: torch.Tensor = peer(pixels(student), pixels(teacher))
    return 9 * 2**2 * loss


def dist(method: Method, student: Features, teacher: Features) -> torch.Tensor:
    loss: torch.Tensor = mid_level.DISTLoss(*PATHS, beta=2, gamma=0.5, tau=3)(pixels(student), pixels(teacher))
    return loss


def at_paper(method: Method, student: Features, teacher: Features) -> torch.Tensor:
    """The weight of 1000 is the training script's there, too; it goes with a mean over these maps' pixels."""
    peer = mid_level.ATLoss(PAIR, mode="code")
    triples = zip(student.encoder[1:], teacher.encoder[1:], (56, 28, 14, 7), strict=True)
    losses = [peer(output(s), output(t)) * t[0, 0].numel() / side**2 for s, t, side in triples]
    return 1000 * torch.stack(losses).sum()


def rkd(method: Method, student: Features, teacher: Features) -> torch.Tensor:
    """Of whole maps there, of their means over the pixels here."""
    peer = mid_level.RKDLoss("map", "map", dist_factor=25, angle_factor=50, reduction="mean")
    s, t = (output(features.encoder[4].mean(dim=(2, 3))) for features in (student, teacher))
    loss: torch.Tensor = peer(s, t)
    return loss


def vid(method: Method, student: Features, teacher: Features) -> torch.Tensor:
    """Given the mean and the variance that the method has learned."""
    assert isinstance(method, VID)
    predicted = method.transforms["e3"](student.encoder[2]), method.variance("e3")
    loss: torch.Tensor = mid_level.VIDLoss(PAIR)(output(predicted), output(teacher.encoder[2]))
    return loss


def ickd(method: Method, student: Features, teacher: Features) -> torch.Tensor:
    """Divided by the batch twice there, once here."""
    assert isinstance(method, ICKD)
    transformed = method.transforms["e5"](student.encoder[4])
    loss: torch.Tensor = mid_level.ChSimLoss(PAIR)(output(transformed), output(teacher.encoder[4]))
    return IMAGES * loss


Peer = Callable[[Method, Features, Features], torch.Tensor]
PEERS: dict[str, Peer] = {
    "kd_soft": kd,
    "lskd": lskd,
    "dist,beta=2,gamma=0.5,temperature=3": dist,
    "at_paper": at_paper,
    "rkd": rkd,
    "vid,layers=e3": vid,
    "ickd,grid=1": ickd,
}


@pytest.mark.parametrize("spec", PEERS)
def test_value_is_that_of_torchdistill(spec: str) -> None:
    torch.manual_seed(0)
    method = make_method(spec, CHANNELS, CHANNELS)
    student, teacher = six_images(1), six_images(10)
    terms = method(student, teacher, random_batch(CHANNELS.classes, IMAGES))
    expected = PEERS[spec](method, student, teacher).item()
    assert expected > 1e-3
    assert sum(value.item() for value in terms.values()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("rows", [12, 4, 3, 1])
def test_context_of_reviewkd_is_that_of_torchdistill(rows: int) -> None:
    """Of maps no higher than wide: torchdistill counts rows alone to find the levels that are too large."""
    s, t = (six_images(seed).encoder[0][:, :, :rows] for seed in (1, 10))
    # With the map comes what goes on to the next fusion.
    expected = mid_level.HierarchicalContextLoss(*PATHS)(output((s, None)), output(t))
    assert hierarchical_context(s, t).item() == pytest.approx(expected.item(), rel=1e-5)
