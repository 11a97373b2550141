"""Channel-wise distillation against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillation.distiller import Distiller
from distillation.methods.cwd import ChannelWise, spatial_kl
from tests.contracts.methods import MethodContract, tiny_distiller
from tests.golden.arrays import Array, assert_terms, log_softmax_array, project_array, resize_array, stage_array
from tests.golden.features import STUDENT, TEACHER, random_batch, student_and_teacher
from tests.small import make_method


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
    student, teacher = student_and_teacher()
    method = make_method(spec, STUDENT, TEACHER)
    assert isinstance(method, ChannelWise)
    expected = {}
    for layer in layers:
        transform = torch.nn.Identity() if layer == "logits" else method.transforms[layer]
        s = project_array(stage_array(student, layer), transform)
        expected[layer] = weight * golden(s, stage_array(teacher, layer), temperature)
    assert_terms(method(student, teacher, random_batch()), expected)


def test_an_adapter_stands_only_where_channels_differ() -> None:
    method = make_method("cwd,layers=e2+e3", STUDENT, TEACHER)
    assert {name for name, _ in method.named_parameters()} == {"transforms.e2.weight", "transforms.e2.bias"}


def test_a_channel_counts_by_its_shape_and_not_by_its_level() -> None:
    student, teacher = (each.encoder[2] for each in student_and_teacher())
    teacher = teacher[..., :3].repeat(1, 1, 1, 2)[:, :, :4]
    levels = torch.linspace(-9, 9, 5).view(1, 5, 1, 1)
    plain, raised = (spatial_kl(student, maps, 4.0) for maps in (teacher, teacher + levels))
    assert raised.item() == pytest.approx(plain.item(), rel=1e-4)
    assert spatial_kl(2 * teacher, teacher, 4.0).item() > 1e-3


def test_equation() -> None:
    assert make_method("cwd", STUDENT, TEACHER).equation() == "3 CWD(t_logits -> s_logits)"
    several = make_method("cwd_features,layers=e4+e5", STUDENT, TEACHER)
    assert several.equation() == "50 (CWD(t_e4 -> s_e4) + CWD(t_e5 -> s_e5))"
