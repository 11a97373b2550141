"""ReviewKD."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillation.method import Method
from distillation.methods.reviewkd import AttentionBasedFusion, ReviewKD, hierarchical_context
from tests.contracts.methods import MethodContract
from tests.golden.arrays import (
    Array,
    assert_terms,
    conv_bn_array,
    convolve_array,
    make_identity,
    resize_array,
    stage_array,
)
from tests.golden.features import STUDENTS, TEACHER, TEACHER_SIZES, random_batch, random_features, student_and_teacher
from tests.small import make_method


class TestReviewKD(MethodContract):
    name, same_level = "reviewkd", True

    def make_identity(self, method: Method) -> None:
        assert isinstance(method, ReviewKD)
        for fusion in method.fusions.values():
            make_identity(fusion.project[0])
            make_identity(fusion.output[0])
            if fusion.attention is not None:
                torch.nn.init.zeros_(fusion.attention.weight)
                fusion.attention.bias.data = torch.tensor([50.0, -50.0])


def pool_array(x: Array, size: int) -> Array:
    """Adaptive average pooling to size x size pixels."""
    height, width = x.shape[2:]
    rows = [slice(i * height // size, -(-(i + 1) * height // size)) for i in range(size)]
    columns = [slice(i * width // size, -(-(i + 1) * width // size)) for i in range(size)]
    return np.stack([np.stack([x[..., r, c].mean(axis=(2, 3)) for c in columns], axis=-1) for r in rows], axis=-2)


def golden_context(student: Array, teacher: Array) -> float:
    """With the weights 1, 1/2, 1/4, 1/8 written out for each size of map."""
    levels = {5: (4, 2, 1), 4: (2, 1), 3: (2, 1), 2: (1,), 1: ()}[min(5, *teacher.shape[2:])]
    weights = (1, 0.5, 0.25, 0.125)[: 1 + len(levels)]
    pairs = [(student, teacher), *((pool_array(student, n), pool_array(teacher, n)) for n in levels)]
    return sum(w * ((s - t) ** 2).mean() for w, (s, t) in zip(weights, pairs, strict=True)) / sum(weights)


def nearest_array(x: Array, size: tuple[int, ...]) -> Array:
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, x.shape[2:], strict=True))
    return x[:, :, rows][:, :, :, columns]


def golden_fusion(fusion: AttentionBasedFusion, maps: Array, deeper: Array | None) -> tuple[Array, Array]:
    fused = conv_bn_array(maps, fusion.project)
    if deeper is not None and fusion.attention is not None:
        deeper = nearest_array(deeper, fused.shape[2:])
        weights = 1 / (1 + np.exp(-convolve_array(np.concatenate((fused, deeper), axis=1), fusion.attention)))
        fused = fused * weights[:, :1] + deeper * weights[:, 1:]
    return conv_bn_array(fused, fusion.output), fused


@pytest.mark.parametrize("width", [4, 128])
@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str, width: int) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    method = make_method(f"reviewkd,weight=0.3,width={width}", channels, TEACHER)
    assert isinstance(method, ReviewKD)
    expected, fused = {}, None
    for layer in ("e5", "e4", "e3", "e2"):
        fusion = method.fusions[layer]
        assert isinstance(fusion, AttentionBasedFusion)
        output, fused = golden_fusion(fusion, stage_array(student, layer), fused)
        t = stage_array(teacher, layer)
        assert fused.shape[1] == min(width, channels.encoder[4])
        expected[layer] = 0.3 * golden_context(resize_array(output, t.shape[2:]), t)
    assert_terms(method(student, teacher, random_batch()), expected)


@pytest.mark.parametrize("size", [(9, 7), (5, 8), (4, 6), (3, 3), (2, 5), (1, 1)])
def test_context_leaves_out_levels_that_are_no_smaller_than_the_maps(size: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, *size, generator=draw, dtype=torch.double) for _ in range(2))
    expected = golden_context(student.numpy(), teacher.numpy())
    assert hierarchical_context(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_context_of_a_constant_difference_is_its_square_at_every_level() -> None:
    teacher = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    assert hierarchical_context(teacher + 2, teacher).item() == pytest.approx(4, rel=1e-5)


def test_deep_stages_are_reviewed_by_shallow_ones_and_not_the_other_way_round() -> None:
    channels, sizes = STUDENTS["unequal"]
    student, teacher = random_features(channels, sizes, seed=1), random_features(TEACHER, TEACHER_SIZES, seed=2)
    method = make_method("reviewkd,layers=e3+e5+e4", channels, TEACHER)
    terms = method(student, teacher, random_batch())
    reached = {}
    for layer, term in terms.items():
        gradients = torch.autograd.grad(term, student.encoder, retain_graph=True, allow_unused=True)
        reached[layer] = [f"e{i}" for i, gradient in enumerate(gradients, start=1) if gradient is not None]
    assert reached == {"e5": ["e5"], "e4": ["e4", "e5"], "e3": ["e3", "e4", "e5"]}
    assert method.equation() == (
        "(HCL(t_e5 -> ABF(s_e5)) + HCL(t_e4 -> ABF(s_e5,s_e4)) + HCL(t_e3 -> ABF(s_e5,s_e4,s_e3)))"
    )
