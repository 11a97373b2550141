"""What the tests of methods that compare logits alone share: logits, masks, and each pixel as an instance."""

from __future__ import annotations

import numpy as np
import torch

from networks.contract import Channels, Features
from tests.golden.arrays import Array, log_softmax_array
from tests.golden.features import equal_channels
from tests.small import make_method
from utils.batch import Batch

CLASSES = (2, 3, 4)


def channels(classes: int) -> Channels:
    return Channels(equal_channels(1).encoder, equal_channels(1).decoder, classes)


def random_logits(classes: int, seed: int) -> torch.Tensor:
    return (3 * torch.randn(2, classes, 7, 5, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def random_mask(classes: int) -> torch.Tensor:
    return torch.randint(0, classes, (2, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def student_teacher_mask(classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return random_logits(classes, 1), random_logits(classes, 2), random_mask(classes)


def terms_of(method: str, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    classes = student.shape[1]
    batch = Batch(torch.zeros(len(mask), 1, *mask.shape[1:]), mask, ["a"] * len(mask))
    features = (Features((), (), logits) for logits in (student, teacher))
    return make_method(method, channels(classes), channels(classes))(*features, batch)


def equation_of(method: str, classes: int) -> str:
    return make_method(method, channels(classes), channels(classes)).equation()


def by_pixel(logits: torch.Tensor) -> Array:
    """[B, C, H, W] -> [B * H * W, C] in float64."""
    return logits.detach().double().permute(0, 2, 3, 1).flatten(0, 2).numpy()


def pixel_kl_array(student: Array, teacher: Array, temperature: float) -> float:
    """T^2 KL over the classes, mean over the pixels [pixels, C]."""
    log_p, log_q = log_softmax_array(student / temperature), log_softmax_array(teacher / temperature)
    return float(temperature**2 * (np.exp(log_q) * (log_q - log_p)).sum(axis=1).mean())


def disagreement(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """The share of pixels where the two predict different classes."""
    return (student.argmax(dim=1) != teacher.argmax(dim=1)).float().mean().item()


def largest_gradient(term: torch.Tensor, logits: torch.Tensor) -> float:
    return torch.autograd.grad(term, logits, retain_graph=True)[0].abs().max().item()


def assert_ratios(plain: str, weighted: str, ratios: dict[str, float]) -> None:
    """What the second method's terms are in multiples of the first one's."""
    before, after = (terms_of(method, *student_teacher_mask(3)) for method in (plain, weighted))
    assert set(after) == set(ratios)
    for term, ratio in ratios.items():
        assert abs((after[term] / before[term]).item() / ratio - 1) < 1e-5


def noise(seed: int) -> torch.Tensor:
    return torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(seed))


def assert_no_exploding_gradient_at_equal_logits(method: str) -> None:
    """Of pixels as half precision makes them: the gradient is that of the same logits with such pixels moved apart."""
    student = noise(1).bfloat16().float()
    student[:, 1, ::4] = student[:, 0, ::4]
    apart = student.clone()
    apart[:, 1, ::4] += 0.01
    norms = []
    for logits in (student.requires_grad_(), apart.requires_grad_()):
        terms = terms_of(method, logits, noise(2), torch.zeros(2, 16, 16, dtype=torch.uint8))
        torch.stack(list(terms.values())).sum().backward()
        assert logits.grad is not None
        norms.append(logits.grad.norm().item())
    assert abs(norms[0] - norms[1]) <= max(0.05 * norms[1], 1e-4)
