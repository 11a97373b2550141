"""Channel-wise distillation against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillation import build_method
from distillation.channel_wise import ChannelWise, spatial_kl
from distillation.task import Distiller
from networks.contract import Features
from tests.contracts.methods import MethodContract, tiny_distiller
from tests.distillation.test_losses import Stages
from tests.golden.features import (
    IMAGE_SIZE,
    STUDENT,
    STUDENT_SIZES,
    TEACHER,
    TEACHER_SIZES,
    Array,
    log_softmax_array,
    project_array,
    random_features,
    resize_array,
)
from utils.batch import Batch

BATCH = Batch(torch.zeros(2, 1, *IMAGE_SIZE), torch.zeros(2, *IMAGE_SIZE, dtype=torch.uint8), ["a", "b"])


class TestLogits(MethodContract):
    name, same_level = "cwd", True

    def learner(self, pair: str) -> Distiller:
        """With the training loop's loss scale: without it fp16 loses the gradient of logits that hardly vary."""
        return tiny_distiller(f"{self.name}:65536", pair)


class TestFeatures(MethodContract):
    name, same_level = "cwd_features", True


def golden(student: Array, teacher: Array, temperature: float) -> float:
    """T^2 / C times the sum over the channels of KL over the pixels, mean over the images."""
    student = resize_array(student, teacher.shape[2:])
    divergences = []
    for s, t in zip(student, teacher, strict=True):
        log_p, log_q = (log_softmax_array(x.reshape(len(x), -1) / temperature) for x in (s, t))
        divergences.append((np.exp(log_q) * (log_q - log_p)).sum() / len(t))
    return float(temperature**2 * np.mean(divergences))


def features() -> tuple[Features, Features]:
    return random_features(STUDENT, STUDENT_SIZES, seed=1), random_features(TEACHER, TEACHER_SIZES, seed=2)


@pytest.mark.parametrize(
    ("spec", "layers", "weight", "temperature"),
    [
        ("cwd", ["logits"], 3, 4),
        ("cwd_features", ["e5"], 50, 4),
        ("cwd,layers=e2+e3+d5+logits,weight=2,temperature=1", ["e2", "e3", "d5", "logits"], 2, 1),
    ],
)
def test_terms_are_golden(spec: str, layers: list[str], weight: float, temperature: float) -> None:
    """e3 has equal channels, e2, e5 and d5 have not, and only the logits have equal sizes."""
    student, teacher = features()
    method = build_method([spec], STUDENT, TEACHER)
    assert isinstance(method, ChannelWise)
    s, t = Stages(student), Stages(teacher)
    expected = {
        layer: weight * golden(project_array(s(layer), method.transforms[layer]), t(layer), temperature)
        for layer in layers
    }
    terms = method(student, teacher, BATCH)
    assert {layer: value.item() for layer, value in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_an_adapter_stands_only_where_channels_differ() -> None:
    method = build_method(["cwd,layers=e2+e3"], STUDENT, TEACHER)
    assert {name for name, _ in method.named_parameters()} == {"transforms.e2.weight", "transforms.e2.bias"}


def test_a_channel_counts_by_its_shape_and_not_by_its_level() -> None:
    student, teacher = (each.encoder[2] for each in features())
    teacher = teacher[..., :3].repeat(1, 1, 1, 2)[:, :, :4]
    levels = torch.linspace(-9, 9, 5).view(1, 5, 1, 1)
    plain, raised = (spatial_kl(student, maps, 4.0) for maps in (teacher, teacher + levels))
    assert raised.item() == pytest.approx(plain.item(), rel=1e-4)
    assert spatial_kl(2 * teacher, teacher, 4.0).item() > 1e-3


def test_equation() -> None:
    assert build_method(["cwd"], STUDENT, TEACHER).equation() == "3 CWD(t_logits -> s_logits)"
    several = build_method(["cwd_features,layers=e4+e5"], STUDENT, TEACHER)
    assert several.equation() == "50 (CWD(t_e4 -> s_e4) + CWD(t_e5 -> s_e5))"
