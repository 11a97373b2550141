"""A weight means the same at every size of the maps and of the batch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from distillation import METHODS
from distillation.method import Method
from distillation.methods import cirkd
from networks.contract import Features
from tests.golden.features import STUDENT, TEACHER, random_features
from tests.small import make_method
from utils.batch import Batch

SIDE = (8, 12)
"""Of every stage, so that nothing is resized in between, and ReviewKD's and ICKD's 4 x 4 parts are of whole pixels."""
IMAGES = 3
"""The least with which RKD teaches anything."""

Change = Callable[[torch.Tensor], torch.Tensor]


def twice_the_side(maps: torch.Tensor) -> torch.Tensor:
    """Of [B, C, H, W] or [B, H, W], each pixel as four."""
    return maps.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def twice_the_batch(maps: torch.Tensor) -> torch.Tensor:
    return torch.cat((maps, maps))


SPECS = {"mgd": "mgd,masked=0", "skd_pairwise": "skd_pairwise,granularity=1"}
"""Without MGD's random masks; and patches of one pixel, for SKD counts them in pixels."""
EXCEPTIONS: dict[tuple[str, Change], set[str]] = {("skd_holistic", twice_the_batch): {"penalty"}}
"""Terms that draw at random for each image."""


def maps_of(features: Features, change: Change) -> Features:
    encoder, decoder = (tuple(map(change, maps)) for maps in (features.encoder, features.decoder))
    return Features(encoder, decoder, change(features.logits))


def some_features(teacher: bool) -> Features:
    channels = TEACHER if teacher else STUDENT
    draws = [random_features(channels, (SIDE,) * 5, seed=2 * i + teacher) for i in range(IMAGES)]
    draw = torch.Generator().manual_seed(100 + teacher)
    logits = 3 * torch.randn(IMAGES, channels.classes, *SIDE, generator=draw)
    encoder, decoder = (
        tuple(torch.cat([maps[:1] for maps in stages]).detach() for stages in zip(*sides, strict=True))
        for sides in ([each.encoder for each in draws], [each.decoder for each in draws])
    )
    return Features(encoder, decoder, logits)


def make_pointwise(method: Method) -> None:
    """Larger convolutions are cut to their middles: what their neighbours are depends on the resolution."""
    for module in method.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            middle = module.weight.detach()[:, :, 1, 1].clone()
            torch.nn.init.zeros_(module.weight)
            with torch.no_grad():
                module.weight[:, :, 1, 1] = middle


def values(method: Method, change: Change) -> dict[str, float]:
    """The terms of changed features, from the same random state and memory."""
    draw = torch.Generator().manual_seed(7)
    mask = torch.randint(0, 2, (IMAGES, *SIDE), dtype=torch.uint8, generator=draw)
    image = torch.randn(IMAGES, 1, *SIDE, generator=draw)
    masks = change(mask)
    batch = Batch(change(image), masks, [""] * len(masks))
    torch.manual_seed(0)
    student, teacher = (maps_of(some_features(teacher), change) for teacher in (False, True))
    if method.volumetric:
        teacher = teacher._replace(block=maps_of(teacher, lambda maps: maps.unsqueeze(2)))
    terms = deepcopy(method)(student, teacher, batch)
    return {term: value.item() for term, value in terms.items()}


@pytest.mark.parametrize("change", [twice_the_side, twice_the_batch])
@pytest.mark.parametrize("name", METHODS)
def test_the_same_disagreement_has_the_same_loss(name: str, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    # CIRKD remembers some pixels of a class and image, drawn at random: here all of them.
    monkeypatch.setattr(cirkd, "NEW_PIXELS", 10**6)
    torch.manual_seed(0)
    method = make_method(SPECS.get(name, name), STUDENT, replace(TEACHER, block=2))
    make_pointwise(method)
    plain, changed = (values(method, each) for each in (lambda maps: maps, change))
    assert any(plain.values())
    for term in plain.keys() - EXCEPTIONS.get((name, change), set()):
        # The 1 that smooths `dice_semimetric` counts for less in more pixels.
        assert changed[term] == pytest.approx(plain[term], rel=5e-3, abs=1e-6), term
