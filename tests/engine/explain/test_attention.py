"""Maps of attention and their mass: against networks and arrays of which they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from datasets.window import window_image
from distillation.methods.hlfd import VARIANTS
from engine.explain.attention import Attention, field_of_view
from engine.explain.choose import ShownSlice, SliceChoice
from engine.explain.links import Side, links_figure
from engine.explain.mass import CaseAttention, attention_mass, compare_networks, mean_of_case, summarise_attention
from engine.explain.options import SliceName
from engine.segmenter import Segmenter
from networks import build
from networks.contract import STAGES, Features, SegmentationNetwork
from tests.small import TinyNetwork
from utils.errors import UserError

WINDOW = (-100.0, 100.0)


class Bright(SegmentationNetwork):
    """The foreground's logit is what is brighter than the middle of the window; d5 does not lead to the logits."""

    encoder_channels = (1,) * 5
    encoder_strides = (1, 2, 4, 8, 16)
    decoder_channels = (1,) * 4

    def __init__(self) -> None:
        super().__init__(2)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def features(self, image: Tensor) -> Features:
        bright = F.relu(image * self.scale)
        encoder = (bright, *(F.avg_pool2d(bright, stride) for stride in self.encoder_strides[1:]))
        return Features(encoder, (encoder[3].detach(), *encoder[2::-1]), torch.cat([-bright, bright], dim=1))


def segmenter(network: SegmentationNetwork, frame: Frame) -> Segmenter:
    return Segmenter(network.eval(), "small", "kits", organ_and_tumor()["tumor"], frame, WINDOW)


def test_the_map_is_grad_cam_and_the_network_is_left_alone() -> None:
    torch.manual_seed(0)
    network = TinyNetwork((6, 6, 6, 6, 6), (6, 6, 6, 6), first_stride=2, classes=2).eval()
    image = np.random.default_rng(0).integers(-100, 100, (3, 64, 64), dtype=np.int16)
    maps = Attention(segmenter(network, Frame(0, 0)), 1, ("e2", "d3"), "gcam")(image, WINDOW)
    assert not hasattr(network, "medcam_dict") and all(p.requires_grad and p.grad is None for p in network.parameters())
    features = network.features(torch.from_numpy(window_image(image, *WINDOW))[:, None])
    for i, layer in enumerate(("e2", "d3")):
        stage = features.stage(layer)
        (gradient,) = torch.autograd.grad(features.logits[:, 1].sum(), stage, retain_graph=True)
        expected = F.relu((stage * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1, keepdim=True))
        least, most = expected.amin(dim=(2, 3), keepdim=True), expected.amax(dim=(2, 3), keepdim=True)
        expected = F.interpolate((expected - least) / (most - least), (64, 64), mode="bilinear")[:, 0]
        np.testing.assert_allclose(maps[:, i], expected.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["raunet", "resnet_18", "malunet", "segformer"])
@pytest.mark.parametrize("method", ["gcam", "gcampp"])
def test_every_stage_of_a_network_has_a_map(model: str, method: str) -> None:
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(-100, 100, (2, 70, 90), dtype=np.int16)
    attention = Attention(segmenter(build(model, 2), Frame(64, 0)), 1, STAGES[:-1], method)
    maps = attention(image, WINDOW)
    assert maps.shape == (2, 9, 70, 90) and np.isfinite(maps).all() and maps.min() >= 0 and maps.max() <= 1


def test_a_map_without_contrast_is_zero_beside_others() -> None:
    image = np.full((2, 32, 32), -50, np.int16)
    image[1, 8:16, 8:16] = 90
    maps = Attention(segmenter(Bright(), Frame(0, 0)), 1, ("e1",), "gcam")(image, WINDOW)[:, 0]
    assert not maps[0].any()
    np.testing.assert_array_equal(maps[1], image[1] == 90)


def test_outside_of_the_crop_there_is_no_attention_and_no_area() -> None:
    image = np.full((1, 64, 64), 90, np.int16)
    image[0, 40:] = 0
    small = segmenter(Bright(), Frame(64, 32))
    inside = np.zeros((1, 64, 64), bool)
    inside[0, 30:34, 20:40] = True
    maps = Attention(small, 1, ("e1",), "gcam")(image, WINDOW)
    seen = field_of_view(small.frame, (64, 64))
    assert seen.sum() == 32 * 32 and not maps[0, 0][seen == 0].any()
    chance = attention_mass(seen[None, None], inside)
    np.testing.assert_allclose(chance, (inside[0] & (seen > 0)).sum() / 32**2, rtol=1e-6)
    assert attention_mass(maps, inside)[0, 0] > chance[0, 0]


def test_a_stage_that_does_not_lead_to_the_logits_is_named() -> None:
    image = np.full((1, 32, 32), 50, np.int16)
    with pytest.raises(UserError, match=r"stages\.d5.*choose other --layers"):
        Attention(segmenter(Bright(), Frame(0, 0)), 1, ("d5",), "gcam")(image, WINDOW)


def test_mass_is_the_share_inside() -> None:
    maps = np.zeros((3, 1, 4, 4), np.float32)
    maps[0] = 0.3
    maps[1, 0, 0, 0], maps[1, 0, 3, 3] = 1, 3
    inside = np.zeros((3, 4, 4), bool)
    inside[:, 3, 2:] = True
    np.testing.assert_allclose(attention_mass(maps, inside)[:, 0], [2 / 16, 3 / 4, np.nan], rtol=1e-6)


def line(case: str, network: str, mass: float, empty: int = 0, chance: float = 0.1) -> CaseAttention:
    return CaseAttention(case, network, "e5", "gcam", 4, empty, mass, chance)


def test_maps_that_are_all_zero_are_counted_and_not_averaged() -> None:
    chances = np.array([0.1, 0.3, 0.5])
    of_case = mean_of_case(np.array([0.4, np.nan, 0.8]), chances, "1", "a", "e5", "gcam")
    assert (of_case.slices, of_case.empty) == (3, 1)
    assert of_case.mass == pytest.approx(0.6) and of_case.chance == pytest.approx(0.3)
    (one,) = summarise_attention([of_case, line("2", "a", np.nan, empty=4, chance=np.nan)])
    assert (one["cases"], one["slices"], one["empty"], one["low"]) == (1, 7, 5, None)
    assert one["mass"] == pytest.approx(0.6) and one["times_chance"] == pytest.approx(2)


def test_the_interval_is_over_cases_and_the_difference_is_paired() -> None:
    masses = np.linspace(0.2, 0.8, 9)
    lines = [line(str(i), "alone", mass) for i, mass in enumerate(masses)]
    lines += [line(str(i), "distilled", mass + 0.1) for i, mass in enumerate(masses)]
    alone, distilled = summarise_attention(lines)
    assert (alone["network"], distilled["network"]) == ("alone", "distilled")
    assert alone["low"] < alone["mass"] < alone["high"] and alone["mass"] == pytest.approx(0.5)
    (difference,) = compare_networks(lines, "distilled", "alone")
    assert difference["gain"] == pytest.approx(0.1) == difference["low"] and difference["cases"] == 9


def shown(index: int, pixels: int) -> ShownSlice:
    target = np.zeros((8, 8), bool)
    target.flat[:pixels] = True
    return ShownSlice(SliceName("1", index), np.zeros((8, 8), np.int16), target, WINDOW)


def test_the_choice_has_extremes_and_a_draw_that_no_result_enters() -> None:
    def chosen(gains: list[float | None], order: list[int]) -> dict[str, list[int]]:
        choice = SliceChoice(random=2, seed=0)
        for i in order:
            choice.consider(shown(i, pixels=20 - i), gains[i])
        found: dict[str, list[int]] = {}
        for each in choice.chosen():
            for reason in each.reasons:
                found.setdefault(reason, []).append(each.name.number)
        return found

    first = chosen([0.1, 0.4, -0.2, 0.0, -0.3, 0.2], order=[0, 1, 2, 3, 4, 5])
    assert (first["largest gain"], first["largest loss"], first["smallest target"]) == ([1], [4], [5])
    other = chosen([0.5, -0.4, 0.2, 0.1, 0.3, -0.2], order=[5, 3, 1, 0, 2, 4])
    assert len(first["random draw"]) == 2 and sorted(first["random draw"]) == sorted(other["random draw"])
    alone = chosen([None] * 6, order=[0, 1, 2, 3, 4, 5])
    assert alone.keys() == {"smallest target", "random draw"}


def test_the_picture_of_links_has_an_arrow_for_every_stage_that_is_tied() -> None:
    torch.manual_seed(0)
    sides = []
    for name, decoder in (("teacher", (4, 4, 4, 4)), ("student", ())):
        network = TinyNetwork((4, 4, 4, 4, 4), decoder, first_stride=2, classes=2)
        with torch.no_grad():
            sides.append(Side(name, network.features(torch.randn(1, 1, 64, 64)), network.channels.has_decoder))
    above, _ = links_figure(*sides).subfigs
    tied = sum((1 + link.teacher.count("+")) * (1 + link.student.count("+")) for link in VARIANTS["hlfd"])
    assert sum(type(artist).__name__ == "ConnectionPatch" for artist in above.get_children()) == tied
    captions = [panel.get_xlabel() for panel in above.axes]
    assert captions[5:9] == ["d5", "d4", "d3", "d2"] and captions[15] == "d5 (is e4)"
