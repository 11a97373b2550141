"""The curve through a box: every cell once, and steps to neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distillation.hilbert_curve import hilbert_order

CPU = torch.device("cpu")
SLICES = st.tuples(st.integers(1, 40), st.integers(1, 40))
BLOCKS = st.tuples(*[st.integers(1, 14)] * 3)
EVEN_BLOCKS = st.tuples(*[st.integers(1, 8).map(lambda half: 2 * half)] * 3)


def steps_of(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """How far each step leads along each axis; fails unless the curve goes through every cell once."""
    order = hilbert_order(shape, CPU).numpy()
    assert np.array_equal(np.sort(order), np.arange(np.prod(shape)))
    return np.abs(np.diff(np.stack(np.unravel_index(order, shape), axis=1), axis=0))


@settings(max_examples=150, deadline=None)
@given(shape=SLICES | BLOCKS)
def test_every_step_leads_to_a_neighbour_at_most_diagonally(shape: tuple[int, ...]) -> None:
    steps = steps_of(shape)
    assert steps.max(initial=0) <= 1 and steps.sum(axis=1).max(initial=0) <= 2
    diagonal = (steps.sum(axis=1) == 2).sum()
    assert diagonal <= (1 if len(shape) == 2 else max(2, np.ceil(0.06 * len(steps))))


@settings(max_examples=60, deadline=None)
@given(shape=EVEN_BLOCKS)
def test_with_even_sides_no_step_is_diagonal(shape: tuple[int, ...]) -> None:
    assert steps_of(shape).sum(axis=1).max() == 1


@pytest.mark.parametrize("shape", [(2, 28, 28), (4, 28, 28), (2, 12, 12), (28, 28), (30, 17)])
def test_so_does_it_at_usual_sizes(shape: tuple[int, ...]) -> None:
    assert steps_of(shape).sum(axis=1).max() == 1


@settings(max_examples=30, deadline=None)
@given(shape=SLICES)
def test_a_slice_and_a_block_of_one_slice_have_the_same_curve(shape: tuple[int, int]) -> None:
    assert torch.equal(hilbert_order(shape, CPU), hilbert_order((1, *shape), CPU))


def test_cells_that_are_near_on_it_are_near_in_the_plane() -> None:
    """Of a square of 32 cells a side, 32 cells in a row span a square of about 6; row by row they would span 32."""
    places = np.stack(np.unravel_index(hilbert_order((32, 32), CPU).numpy(), (32, 32)), axis=1)
    spans = [np.ptp(places[i : i + 32], axis=0).max() for i in range(0, 1024, 32)]
    assert np.mean(spans) < 10


def test_is_made_once_for_a_shape() -> None:
    assert hilbert_order((3, 5, 7), CPU) is hilbert_order((3, 5, 7), CPU)


@pytest.mark.parametrize(("shape", "read"), [((2, 28, 28), 840), ((4, 28, 28), 1120), ((8, 8, 8), 512)])
def test_the_published_index_reads_a_part_of_flat_blocks(shape: tuple[int, int, int], read: int) -> None:
    """It takes D * H for the step from slice to slice, as docs/published.md says; ours reads every cell."""
    depth, height, width = shape
    z, y, x = np.indices(shape)
    assert len(np.unique(z * depth * height + y * width + x)) == read
    assert len(hilbert_order(shape, CPU).unique()) == depth * height * width
