"""ICKD."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillation.method import Method
from distillation.methods.ickd import ICKD, correlation_distance, split_into_cells
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, assert_terms, conv_bn_array, make_identity, resize_array, stage_array
from tests.golden.features import STUDENTS, TEACHER, random_batch, student_and_teacher
from tests.small import make_method


class TestICKD(MethodContract):
    name, same_level = "ickd", True

    def make_identity(self, method: Method) -> None:
        assert isinstance(method, ICKD)
        make_identity(method.transforms["e5"][0])


def golden_distance(student: Array, teacher: Array) -> float:
    """Of whole maps [B, C, h, w], through the correlation matrices themselves."""
    correlations = []
    for maps in (student, teacher):
        flat = maps.reshape(*maps.shape[:2], -1)
        products = np.einsum("bip,bjp->bij", flat, flat)
        norms = np.linalg.norm(products, axis=2, keepdims=True)
        correlations.append(products / np.where(norms > 0, norms, 1))
    difference = correlations[0] - correlations[1]
    return float((difference**2).sum(axis=(1, 2)).mean() / student.shape[1])


@pytest.mark.parametrize(
    ("layer", "grid", "rows", "columns"),
    [
        ("e5", 1, [3], [2]),
        ("e5", 4, [1, 1, 1], [1, 1]),
        ("e1", 1, [12], [12]),
        ("e1", 4, [3, 3, 3, 3], [3, 3, 3, 3]),
        ("e3", 4, [2, 2, 1], [1, 1, 1, 1]),
        ("d4", 2, [3, 2], [2, 2]),
    ],
)
@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str, layer: str, grid: int, rows: list[int], columns: list[int]) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    method = make_method(f"ickd,weight=0.3,layers={layer},grid={grid}", channels, TEACHER)
    t = stage_array(teacher, layer)
    s = resize_array(
        conv_bn_array(stage_array(student, layer), method.get_submodule(f"transforms.{layer}")), t.shape[2:]
    )
    assert t.shape[2:] == (sum(rows), sum(columns))
    distances = [
        golden_distance(s_cell, t_cell)
        for s_row, t_row in zip(split(s, rows, axis=2), split(t, rows, axis=2), strict=True)
        for s_cell, t_cell in zip(split(s_row, columns, axis=3), split(t_row, columns, axis=3), strict=True)
    ]
    assert_terms(method(student, teacher, random_batch()), {layer: 0.3 * np.mean(distances)})


def split(maps: Array, sizes: list[int], axis: int) -> list[Array]:
    return np.split(maps, np.cumsum(sizes)[:-1], axis=axis)


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 6, 8, 8, generator=draw) for _ in range(2))
    return student, teacher


def test_order_of_pixels_within_a_cell_does_not_matter(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, teacher = (split_into_cells(m, grid=2) for m in maps)
    expected = correlation_distance(student, teacher).item()
    shuffled = student[..., torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    assert correlation_distance(shuffled, teacher).item() == pytest.approx(expected, rel=1e-5)
    crossed = student[:, [1, 0, 2, 3]]
    assert correlation_distance(crossed, teacher).item() != pytest.approx(expected, rel=1e-2)


def test_order_of_channels_matters(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    teacher = split_into_cells(maps[1], grid=2)
    same, rolled = (correlation_distance(maps, teacher).item() for maps in (teacher, teacher.roll(1, dims=2)))
    assert rolled > 0.1 and abs(same) < 1e-5 * rolled


@pytest.mark.parametrize("grid", [1, 8])
def test_scale_does_not_matter_however_large(maps: tuple[torch.Tensor, torch.Tensor], grid: int) -> None:
    student, teacher = (split_into_cells(m, grid) for m in maps)
    expected = correlation_distance(student, teacher).item()
    assert correlation_distance(1e15 * student, 1e-15 * teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("grid", [1, 4])
def test_dead_channels_count_but_do_not_break_the_gradients(maps: tuple[torch.Tensor, torch.Tensor], grid: int) -> None:
    student, teacher = maps
    student[:, 2] = 0
    teacher[:, :2] = 0
    student.requires_grad_()
    distance = correlation_distance(split_into_cells(student, grid), split_into_cells(teacher, grid))
    distance.backward()
    assert student.grad is not None and student.grad.isfinite().all() and student.grad.abs().max() < 1
    if grid == 1:
        expected = golden_distance(student.detach().double().numpy(), teacher.double().numpy())
        assert distance.item() == pytest.approx(expected, rel=1e-5)
