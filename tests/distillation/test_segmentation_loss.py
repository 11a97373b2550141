"""The loss against the reference masks: golden values, and MONAI's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss

from distillation.segmentation_loss import batch_loss, segmentation_loss
from tests.golden.arrays import array, assert_terms, log_softmax_array
from utils.batch import UNLABELLED, Batch, has_mask


def random_segmentation(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(classes)
    logits = (3 * torch.randn(2, classes, 7, 5, generator=draw)).requires_grad_()
    return logits, torch.randint(0, classes, (2, 7, 5), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize("classes", [2, 3])
def test_segmentation_loss_is_half_focal_and_half_dice(classes: int) -> None:
    logits, mask = random_segmentation(classes)
    p = np.exp(log_softmax_array(array(logits)))
    one_hot = np.moveaxis(np.eye(classes)[mask.numpy()], -1, 1)
    p_t = (p * one_hot).sum(axis=1)
    overlap = (p * one_hot)[:, 1:].sum()
    dice = (2 * overlap + 1) / (p[:, 1:].sum() + one_hot[:, 1:].sum() + 1)
    expected = {"focal": 0.5 * (-((1 - p_t) ** 2) * np.log(p_t)).mean(), "dice": 0.5 * (1 - dice)}
    assert_terms(segmentation_loss(logits, mask), expected)
    assert_terms(segmentation_loss(logits, mask, detached=True), expected)


def test_segmentation_loss_agrees_with_monai_for_two_classes() -> None:
    logits, mask = random_segmentation(2)
    terms = segmentation_loss(logits, mask)
    focal = FocalLoss(include_background=True, to_onehot_y=True, gamma=2.0, use_softmax=True)
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1, smooth_dr=1)
    target = mask.unsqueeze(1)
    assert terms["focal"].item() == pytest.approx(0.5 * 2 * focal(logits, target).item(), rel=1e-5)
    assert terms["dice"].item() == pytest.approx(0.5 * dice(logits, target).item(), rel=1e-5)


def test_detached_focal_passes_no_gradient_through_its_factor() -> None:
    logits, mask = random_segmentation(2)
    log_pt = logits.log_softmax(dim=1).gather(1, mask.long().unsqueeze(1))
    factor = (1 - log_pt.exp()) ** 2
    for detached, focal in ((True, -factor.detach() * log_pt), (False, -factor * log_pt)):
        (expected,) = torch.autograd.grad(0.5 * focal.mean(), logits, retain_graph=True)
        (gradient,) = torch.autograd.grad(segmentation_loss(logits, mask, detached)["focal"], logits)
        torch.testing.assert_close(gradient, expected)


class TestSlicesWithoutMasks:
    def batch(self, classes: int, labelled: list[bool]) -> tuple[torch.Tensor, torch.Tensor]:
        draw = torch.Generator().manual_seed(classes)
        logits = 3 * torch.randn(len(labelled), classes, 7, 5, generator=draw)
        mask = torch.randint(0, classes, (len(labelled), 7, 5), dtype=torch.uint8, generator=draw)
        mask[~torch.tensor(labelled)] = UNLABELLED
        return logits.requires_grad_(), mask

    @pytest.mark.parametrize("detached", [False, True])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_is_that_of_the_labelled_slices(self, classes: int, detached: bool) -> None:
        logits, mask = self.batch(classes, [False, True, False, True])
        part = logits.detach()[1::2].clone().requires_grad_()
        terms = segmentation_loss(logits, mask, detached)
        expected = segmentation_loss(part, mask[1::2], detached)
        for term, value in terms.items():
            torch.testing.assert_close(value, expected[term])
            (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
            (of_part,) = torch.autograd.grad(expected[term], part, retain_graph=True)
            torch.testing.assert_close(gradient[1::2], of_part)
            assert not gradient[::2].any()

    def test_without_any_labelled_slice_it_is_0(self) -> None:
        logits, mask = self.batch(2, [False, False])
        with torch.no_grad():
            logits *= 1e4
        terms = segmentation_loss(logits, mask)
        assert {term: value.item() for term, value in terms.items()} == {"focal": 0, "dice": 0}
        torch.stack(list(terms.values())).sum().backward()
        assert torch.equal(logits.grad, torch.zeros_like(logits))

    def test_no_value_is_asked_for(self) -> None:
        """Tensors without data stand in for a GPU's, whose values the host would have to wait for."""
        logits, mask = (tensor.detach().to("meta") for tensor in self.batch(2, [True, False]))
        segmentation_loss(logits, mask)
        with pytest.raises((NotImplementedError, RuntimeError)):
            logits[mask[:, 0, 0] != UNLABELLED]

    def test_labelled_tells_which(self) -> None:
        _, mask = self.batch(3, [True, False, True])
        assert has_mask(mask).tolist() == [True, False, True]


class TestMixedSlices:
    def test_is_the_mix_of_the_losses_against_both_masks(self) -> None:
        draw = torch.Generator().manual_seed(0)
        logits = torch.randn(2, 3, 7, 5, generator=draw)
        mask, other = torch.randint(0, 3, (2, 2, 7, 5), dtype=torch.uint8, generator=draw)
        batch = Batch(torch.zeros(2, 1, 7, 5), mask, ["a", "b"], other, 0.7)
        own, others = segmentation_loss(logits, mask), segmentation_loss(logits, other)
        assert_terms(
            batch_loss(logits, batch), {term: 0.7 * float(own[term]) + 0.3 * float(others[term]) for term in own}
        )
        assert_terms(batch_loss(logits, batch._replace(other_mask=None)), {term: float(own[term]) for term in own})

    def test_both_masks_go_to_the_device(self) -> None:
        mask = torch.zeros(1, 2, 2, dtype=torch.uint8)
        moved = Batch(torch.zeros(1, 1, 2, 2), mask, ["a"], mask + 1, 0.7).to(torch.device("meta"))
        assert moved.other_mask is not None and moved.other_mask.is_meta and moved.share == 0.7
