"""MGD."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillation import build_method
from distillation.generative import MGD
from distillation.task import Distiller
from tests.contracts.methods import MethodContract, random_batch
from tests.distillation.test_losses import assert_terms
from tests.golden.features import TEACHER, TEACHER_SIZES, project_array, random_features, resize_array
from tests.golden.layers import STUDENTS, all_of, array, convolve_array, make_identity, stage_array


class TestMGD(MethodContract):
    name = "mgd"

    def learner(self, pair: str) -> Distiller:
        """With a weight of 1: half precision trains with scaled losses, and 2e-5 alone would underflow here."""
        task = super().learner(pair)
        assert isinstance(task.method, MGD)
        task.method.weight = 1.0
        return task


@pytest.mark.parametrize("layer", ["e5", "d3"])
@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str, layer: str) -> None:
    channels, sizes = STUDENTS[kind]
    student, teacher = random_features(channels, sizes, seed=1), random_features(TEACHER, TEACHER_SIZES, seed=2)
    method = build_method([f"mgd,weight=0.01,masked=0.4,layers={layer}"], channels, TEACHER)
    s, t = stage_array(student, layer), stage_array(teacher, layer)
    aligned = resize_array(project_array(s, method.get_submodule(f"transforms.{layer}")), t.shape[2:])
    first, _, last = method.get_submodule(f"generators.{layer}").children()
    torch.manual_seed(3)
    kept = array(torch.rand(2, 1, *t.shape[2:])) >= 0.4
    generated = convolve_array(np.maximum(convolve_array(aligned * kept, first), 0), last)
    torch.manual_seed(3)
    terms = method(student, teacher, random_batch())
    assert_terms(terms, {layer: 0.01 * ((generated - t) ** 2).sum() / 2})


class Witness(torch.nn.Module):
    """Keeps what it is given."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        self.seen = maps
        return maps


def test_whole_pixels_are_masked_three_in_four_and_anew_each_time() -> None:
    method = MGD(all_of(5), all_of(5))
    witness = method.generators["e5"] = Witness()
    ones, masks = torch.ones(2, 5, 60, 60), []
    torch.manual_seed(0)
    for _ in range(2):
        method.compare("e5", ones, ones)
        assert torch.equal(witness.seen, witness.seen[:, :1].expand_as(ones))
        masks.append(witness.seen[:, 0])
    assert not any(torch.equal(mask, masks[0][0]) for mask in (masks[0][1], masks[1][0], masks[1][1]))
    assert 1 - torch.stack(masks).mean().item() == pytest.approx(0.75, abs=0.01)


def test_without_a_mask_a_copy_is_generated_by_the_identity() -> None:
    method, maps = MGD(all_of(5), all_of(5), masked=0.0), torch.rand(2, 5, 3, 4)
    first, _, last = method.generators["e5"].children()
    make_identity(first)
    make_identity(last)
    assert method.compare("e5", maps, maps).item() == 0
