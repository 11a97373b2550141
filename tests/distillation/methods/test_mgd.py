"""MGD."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillation.distiller import Distiller
from distillation.methods.mgd import MGD
from tests.contracts.methods import MethodContract
from tests.golden.arrays import (
    array,
    assert_terms,
    convolve_array,
    make_identity,
    project_array,
    resize_array,
    stage_array,
)
from tests.golden.features import (
    STUDENTS,
    TEACHER,
    equal_channels,
    random_batch,
    student_and_teacher,
)
from tests.small import make_method


class TestMGD(MethodContract):
    name = "mgd"

    def learner(self, pair: str) -> Distiller:
        """With a weight of 1: half precision trains with scaled losses, and 2e-5 alone would underflow here."""
        task = super().learner(pair)
        assert isinstance(task.method, MGD)
        task.method.weight = 1.0
        return task


@pytest.mark.parametrize(("layer", "pixels"), [("e5", 64**2), ("d3", 128**2)])
@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str, layer: str, pixels: int) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    method = make_method(f"mgd,weight=0.01,masked=0.4,layers={layer}", channels, TEACHER)
    s, t = stage_array(student, layer), stage_array(teacher, layer)
    aligned = resize_array(project_array(s, method.get_submodule(f"transforms.{layer}")), t.shape[2:])
    first, _, last = method.get_submodule(f"generators.{layer}").children()
    torch.manual_seed(3)
    kept = array(torch.rand(2, 1, *t.shape[2:])) >= 0.4
    generated = convolve_array(np.maximum(convolve_array(aligned * kept, first), 0), last)
    torch.manual_seed(3)
    terms = method(student, teacher, random_batch())
    assert_terms(terms, {layer: 0.01 * pixels * ((generated - t) ** 2).sum(axis=1).mean()})


class InputRecorder(torch.nn.Module):
    """Keeps its input."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        self.seen = maps
        return maps


def test_all_channels_of_three_in_four_pixels_are_masked_differently_each_time() -> None:
    method = MGD(equal_channels(5), equal_channels(5))
    recorder = method.generators["e5"] = InputRecorder()
    ones, masks = torch.ones(2, 5, 60, 60), []
    torch.manual_seed(0)
    for _ in range(2):
        method.distance("e5", ones, ones)
        assert torch.equal(recorder.seen, recorder.seen[:, :1].expand_as(ones))
        masks.append(recorder.seen[:, 0])
    assert not any(torch.equal(mask, masks[0][0]) for mask in (masks[0][1], masks[1][0], masks[1][1]))
    assert 1 - torch.stack(masks).mean().item() == pytest.approx(0.75, abs=0.01)


def test_without_a_mask_a_copy_is_generated_by_the_identity() -> None:
    method, maps = MGD(equal_channels(5), equal_channels(5), masked=0.0), torch.rand(2, 5, 3, 4)
    first, _, last = method.generators["e5"].children()
    make_identity(first)
    make_identity(last)
    assert method.distance("e5", maps, maps).item() == 0
