"""Stages and logits of the teacher on the frame's grid, classes that are joined, and what it does not touch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from engine.nnunet.folder import read_model_folder
from engine.nnunet.placement import place
from engine.nnunet.plan import Plan
from engine.nnunet.resampling import apply, importance, map_weights, spline_weights, tile_starts
from engine.nnunet.teacher import NnunetTeacher
from tests.nnunet import settings, tiny_network, write_model_folder
from utils.batch import Batch, Stored
from utils.errors import UserError
from utils.stored_as import StoredAs

ORIGIN = StoredAs((5.0, 1.0, 1.0), 1.0, 0.0, "IPL")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Of patches of 32 x 48 at a spacing of 1 mm."""
    content = settings()
    content["configurations"]["2d"]["spacing"] = [1.0, 1.0]
    folder = write_model_folder(tmp_path_factory.mktemp("plan") / "model", content)
    return read_model_folder(Path(f"nnunet:{folder}")).plan


@pytest.fixture(scope="module")
def teacher(plan: Plan) -> NnunetTeacher:
    return NnunetTeacher(tiny_network(settings()), plan, [(0,), (1,), (2,)])


def slices(*size: int, origin: StoredAs = ORIGIN, seed: int = 0) -> Stored:
    values = np.random.default_rng(seed).integers(-900, 900, (size[0], 1, *size[1:])).astype(np.int16)
    return Stored(torch.from_numpy(values), [origin] * len(values))


def normalised(values: torch.Tensor) -> torch.Tensor:
    return (values.float().clamp(-600, 700) - 40) / 350


def test_a_slice_of_the_patchs_size_and_spacing_gives_the_networks_own_features(teacher: NnunetTeacher) -> None:
    stored = slices(2, 48, 32)  # its columns are nnU-Net's rows
    features = teacher.features(Batch(torch.empty(0), torch.empty(0), [], stored=stored))
    with torch.no_grad():
        expected = teacher.network.features(normalised(stored.values).transpose(2, 3))
    for stage in teacher.channels.stages:
        torch.testing.assert_close(
            features.stage(stage.name), expected.stage(stage.name).transpose(2, 3), rtol=0, atol=1e-5
        )


def test_every_stage_has_the_size_that_its_stride_gives_in_the_frame(teacher: NnunetTeacher) -> None:
    features = teacher.answer(slices(1, 37, 65, origin=ORIGIN._replace(spacing=(5.0, 0.7, 1.4))))
    for name, channels, stride in teacher.channels.stages:
        assert features.stage(name).shape == (1, channels, -(-37 // stride), -(-65 // stride)), name
        assert features.stage(name).isfinite().all()


def test_slices_of_different_spacings_and_orientations_share_a_batch(teacher: NnunetTeacher) -> None:
    origins = [ORIGIN, ORIGIN._replace(spacing=(5.0, 1.6, 1.6)), ORIGIN._replace(orientation="SAL")]
    stored = slices(3, 32, 32)._replace(origins=origins)
    together = teacher.answer(stored)
    for i, origin in enumerate(origins):
        alone = teacher.answer(Stored(stored.values[i : i + 1], [origin]))
        for stage in teacher.channels.stages:
            torch.testing.assert_close(
                together.stage(stage.name)[i], alone.stage(stage.name)[0], rtol=0, atol=1e-4, msg=stage.name
            )


def test_stages_of_tiles_meet_where_the_slice_is_larger_than_the_patch(plan: Plan) -> None:
    """A map that says where in the slice each of its cells lies, seen through nine tiles, says the same afterwards."""
    where = place(plan, ORIGIN, (80, 60))
    assert len(where.tiles) == 9 and where.resampled == where.padded == (60, 80)
    rows, columns = torch.meshgrid(torch.arange(60.0) + 0.5, torch.arange(80.0) + 0.5, indexing="ij")
    pooled = torch.nn.functional.avg_pool2d
    maps = torch.stack(
        [pooled(torch.stack((rows, columns))[:, top : top + 32, left : left + 48], 4) for top, left in where.tiles]
    )
    found = where.stage(maps, 4, plan)
    assert found.shape == (2, 20, 15)
    expected = pooled(torch.stack((rows, columns)), 4).transpose(1, 2)
    # Tiles begin between the cells, and end half a cell after the last one's middle.
    assert (found - expected)[:, 1:-1, 1:-1].abs().max() < 1 and (found - expected).abs().max() < 2.5


def test_physical_values_are_what_is_normalised(teacher: NnunetTeacher) -> None:
    stored = slices(1, 32, 32)
    halved = Stored((stored.values + 1000) // 2, [ORIGIN._replace(scale=2.0, shift=-1000.0)])
    even = Stored(halved.values * 2 - 1000, [ORIGIN])
    torch.testing.assert_close(teacher.answer(halved).logits, teacher.answer(even).logits, rtol=0, atol=1e-5)


def test_classes_that_a_task_joins_add_their_probabilities(plan: Plan, teacher: NnunetTeacher) -> None:
    joined = NnunetTeacher(teacher.network, plan, [(0, 1), (2,)])
    assert joined.channels == replace(teacher.channels, classes=2)
    stored = slices(2, 32, 32)
    three, two = (each.answer(stored).logits.softmax(dim=1) for each in (teacher, joined))
    torch.testing.assert_close(two[:, 0], three[:, :2].sum(dim=1))
    torch.testing.assert_close(two[:, 1], three[:, 2])


def test_it_is_frozen_and_answers_the_same_under_autocast_up_to_its_precision(teacher: NnunetTeacher) -> None:
    stored = slices(1, 32, 32)
    expected = teacher.answer(stored)
    with torch.autocast("cpu", torch.bfloat16):
        found = teacher.answer(stored)
    assert not expected.logits.requires_grad and found.logits.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert (found.logits.softmax(dim=1) - expected.logits.softmax(dim=1)).abs().mean() < 0.02


@pytest.mark.parametrize("codes", ["PIL", "LSP", "ASR"])
def test_slices_that_are_not_axial_are_refused(plan: Plan, codes: str) -> None:
    with pytest.raises(UserError, match=f"axes {codes}: nnU-Net's slices are not axial"):
        place(plan, ORIGIN._replace(orientation=codes), (32, 32))


def test_a_reader_that_reorients_sees_every_file_alike(plan: Plan) -> None:
    turned = replace(plan, reorients=True, transpose=(0, 1, 2))
    found = {place(turned, ORIGIN._replace(orientation=codes), (32, 40)) for codes in ("IPL", "LPS", "RAS")}
    # Superior, anterior, right: both of our axes the other way.
    assert [(each.swapped, each.flips) for each in found] == [(False, (0, 1))]


class TestResampling:
    @pytest.mark.parametrize(("old", "new"), [((30, 40), (29, 43)), ((30, 40), (60, 20)), ((30, 40), (30, 41))])
    @pytest.mark.parametrize("order", [1, 3])
    def test_matrices_resize_as_scipy_does(self, old: tuple[int, int], new: tuple[int, int], order: int) -> None:
        image = np.random.default_rng(0).normal(size=old)
        factors = [b / a for a, b in zip(old, new, strict=True)]
        expected = ndimage.zoom(image, factors, order=order, mode="nearest", grid_mode=True)
        weights = (spline_weights(*sizes, order) for sizes in zip(old, new, strict=True))
        np.testing.assert_allclose(apply(*weights, torch.from_numpy(image)), expected, rtol=0, atol=1e-5)

    def test_nothing_overshoots_the_values_of_the_slice_or_of_the_normalisation(self, plan: Plan) -> None:
        step = torch.full((1, 30, 30), -300.0)
        step[..., 15:] = 300
        own = (normalised(torch.tensor(-300)), normalised(torch.tensor(300)))
        for slices_apart, limits in ((5.0, own), (1.0, plan.bounds)):
            where = place(plan, ORIGIN._replace(spacing=(slices_apart, 1.5, 1.5)), (30, 30))
            inside = where.images(step, plan)
            assert where.one_by_one == (slices_apart == 5.0)
            assert float(limits[0]) - 1e-5 <= inside.min() and inside.max() <= float(limits[1]) + 1e-5
        assert inside.max() > normalised(torch.tensor(300)) + 0.01

    @pytest.mark.parametrize(
        ("sizes", "expected"),
        # As nnU-Net's compute_steps_for_sliding_window gives them, at half a tile.
        {
            (110, 64): (0, 23, 46),
            (512, 512): (0,),
            (513, 512): (0, 1),
            (36, 32): (0, 4),
            (80, 48): (0, 16, 32),
        }.items(),
    )
    def test_tiles_begin_where_nnunets_do(self, sizes: tuple[int, int], expected: tuple[int, ...]) -> None:
        assert tile_starts(*sizes) == expected

    def test_the_middle_of_a_tile_counts_most_and_its_border_still_does(self) -> None:
        bell = importance(48)
        assert bell.argmax() == 24 and bell[24] == 1
        assert bell[18] == pytest.approx(np.exp(-0.5), abs=1e-3) and 0 < bell.min() < 1e-3

    def test_a_map_on_the_same_grid_is_left_alone_and_outside_a_tile_counts_nothing(self) -> None:
        assert torch.equal(map_weights(12, 48, 0, 48, 12), torch.eye(12, dtype=torch.float64))
        assert torch.equal(map_weights(6, 24, 8, 48, 12), torch.eye(12, dtype=torch.float64)[2:8])
        beyond = map_weights(12, 48, -24, 48, 12).sum(dim=1)
        assert beyond.tolist() == [0.0] * 6 + [1.0] * 6


def test_a_batch_without_stored_values_is_a_mistake_of_the_loader(teacher: NnunetTeacher) -> None:
    empty: Any = torch.empty(0)
    with pytest.raises(AssertionError, match="left the stored values out"):
        teacher.features(Batch(empty, empty, []))
