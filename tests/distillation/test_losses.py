"""Every loss against golden values computed independently, in NumPy and float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss

from distillation import build_method
from distillation.distances import _sum_of_fourth_powers, attention_distance, channel_kl
from distillation.links import LinkedDistillation
from distillation.segmentation_loss import segmentation_loss
from networks.contract import Channels, Features, resize
from tests.golden.features import (
    IMAGE_SIZE,
    STUDENT,
    STUDENT_SIZES,
    TEACHER,
    TEACHER_SIZES,
    Array,
    concatenate_arrays,
    log_softmax_array,
    project_array,
    random_features,
    resize_array,
)
from utils.batch import Batch
from utils.errors import UserError

BATCH = Batch(torch.zeros(2, 1, *IMAGE_SIZE), torch.zeros(2, *IMAGE_SIZE, dtype=torch.uint8), ["a", "b"])
T = 4.0


class Stages:
    """A network's stages by name, in float64."""

    def __init__(self, features: Features) -> None:
        names = [f"e{i}" for i in range(1, 6)] + [f"d{i}" for i in range(5, 1, -1)] + ["logits"]
        maps = [*features.encoder, *features.decoder, features.logits]
        self.maps = {name: m.detach().double().numpy() for name, m in zip(names, maps, strict=True)}

    def __call__(self, *names: str) -> Array:
        return concatenate_arrays(*(self.maps[name] for name in names))


def golden_kl_sum(student: Array, teacher: Array) -> float:
    log_p, log_q = log_softmax_array(student / T), log_softmax_array(teacher / T)
    return float(T**2 * (np.exp(log_q) * (log_q - log_p)).sum())


def golden_kl(student: Array, teacher: Array) -> float:
    """Mean over batch and pixels, at the teacher's size."""
    student = resize_array(student, teacher.shape[2:])
    return golden_kl_sum(student, teacher) / (teacher.size / teacher.shape[1])


def golden_attention(student: Array, teacher: Array) -> float:
    """At the teacher's size."""
    student = resize_array(student, teacher.shape[2:])
    maps = []
    for x in (student, teacher):
        power = (x**4).mean(axis=1).reshape(len(x), -1)
        maps.append(power / np.linalg.norm(power, axis=1, keepdims=True))
    return float(((maps[0] - maps[1]) ** 2).sum(axis=1).mean())


Adapted = Callable[..., Array]


def golden_hlfd(s: Stages, t: Stages, adapted: Adapted) -> dict[str, float]:
    s_d5 = adapted("unified", "d5")
    t_low = t("d5", "d4", "d3")
    t_low = resize_array(t_low, s_d5.shape[2:])
    t_attended = resize_array(t("e2", "e3", "e4"), s("e1").shape[2:])
    return {
        "pmd_unified": 0.1 * 0.5 * golden_kl(s_d5, t_low),
        **{f"pmd_{d}": 0.1 * 0.5 * golden_kl(adapted(d, d), t("logits")) for d in ("d4", "d3", "d2")},
        "imd_unified": 0.9 * 0.5 * golden_attention(s("e1"), t_attended),
        **{f"imd_{e}": 0.9 * 0.5 * golden_attention(s(e), t("e5")) for e in ("e2", "e3", "e4")},
    }


def golden_hifd(s: Stages, t: Stages, adapted: Adapted) -> dict[str, float]:
    return {
        **{f"pmd_{d}": 0.1 * golden_kl(adapted(d, d), t("logits")) for d in ("logits", "d4", "d2")},
        **{f"imd_{e}": 0.9 * golden_attention(s(e), t("e5")) for e in ("e5", "e2", "e4")},
    }


def golden_ifd(s: Stages, t: Stages, adapted: Adapted) -> dict[str, float]:
    every_d = adapted("unified", "d5", "d4", "d3", "d2")
    return {
        "pmd_logits": 0.1 * golden_kl(s("logits"), t("logits")),
        "pmd_unified": 0.1 * golden_kl(every_d, t("logits")),
        "imd_e5": 0.9 * golden_attention(s("e5"), t("e5")),
        "imd_unified": 0.9 * golden_attention(s("e1", "e2", "e3", "e4"), t("e5")),
    }


def golden_deep(s: Stages, t: Stages, adapted: Adapted) -> dict[str, float]:
    return {
        **{f"pmd_{d}": 0.1 * golden_kl(adapted(d, d), t(d)) for d in ("logits", "d5", "d4", "d3", "d2")},
        **{f"imd_{e}": 0.9 * golden_attention(s(e), t(e)) for e in ("e1", "e2", "e3", "e4", "e5")},
    }


def golden_skd(s: Stages, t: Stages, adapted: Adapted) -> dict[str, float]:
    return {
        "pmd_logits": 0.1 * golden_kl(s("logits"), t("logits")),
        "imd_e5": 0.9 * golden_attention(s("e5"), t("e5")),
    }


def golden_at(s: Stages, t: Stages, adapted: Adapted) -> dict[str, float]:
    return {"imd_e5": golden_attention(s("e5"), t("e5"))}


GOLDEN = {
    "hlfd": golden_hlfd,
    "hifd": golden_hifd,
    "ifd": golden_ifd,
    "deep": golden_deep,
    "skd": golden_skd,
    "at": golden_at,
}


def assert_terms(terms: dict[str, torch.Tensor], expected: dict[str, float]) -> None:
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-5)
    assert list(terms) == list(expected)


@pytest.mark.parametrize("name", GOLDEN)
def test_method_has_its_golden_terms(name: str) -> None:
    student = random_features(STUDENT, STUDENT_SIZES, seed=1)
    teacher = random_features(TEACHER, TEACHER_SIZES, seed=2)
    method = build_method([name], STUDENT, TEACHER)
    assert isinstance(method, LinkedDistillation)
    s, t = Stages(student), Stages(teacher)
    expected = GOLDEN[name](s, t, lambda link, *stages: project_array(s(*stages), method.adapters[link]))
    assert_terms(method(student, teacher, BATCH), expected)


def test_options_weigh_the_terms() -> None:
    student = random_features(STUDENT, STUDENT_SIZES, seed=1)
    teacher = random_features(TEACHER, TEACHER_SIZES, seed=2)
    usual = build_method(["skd"], STUDENT, TEACHER)(student, teacher, BATCH)
    method = build_method(["skd"], STUDENT, TEACHER, alpha=0.2, beta=0.3, temperature=1.0)
    terms = method(student, teacher, BATCH)
    expected = 0.2 * channel_kl(student.logits, teacher.logits, temperature=1.0)
    assert terms["pmd_logits"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert terms["imd_e5"].item() == pytest.approx(usual["imd_e5"].item() / 3, rel=1e-6)


def test_attention_alone_weighs_1_and_has_no_other_weights() -> None:
    assert build_method(["at"], STUDENT, TEACHER).equation() == "AT(t_e5 -> s_e5)"
    with pytest.raises(UserError, match="--beta: at has no such option"):
        build_method(["at"], STUDENT, TEACHER, beta=0.3)


class TestPublished:
    """The published behaviour, its random convolutions drawn again from the same seed."""

    def golden(
        self, s: Stages, t: Stages, channels: Channels, upsampled: Callable[[Array], Array]
    ) -> Iterator[tuple[str, float]]:
        torch.manual_seed(5)
        s_d5 = upsampled(s("d5"))
        unified = torch.nn.Conv2d(sum(TEACHER.decoder[:3]), channels.decoder[0], kernel_size=1)
        t_low = resize_array(project_array(t("d5", "d4", "d3"), unified), s_d5.shape[2:])
        yield "pmd_unified", 0.1 * 0.5 * golden_kl_sum(s_d5, t_low) / (t_low.size / 2)
        for name, count in zip(("d4", "d3", "d2"), channels.decoder[1:], strict=True):
            projected = project_array(upsampled(s(name)), torch.nn.Conv2d(count, 2, kernel_size=1))
            total = golden_kl_sum(resize_array(projected, IMAGE_SIZE), t("logits"))
            yield f"pmd_{name}", 0.1 * 0.5 * total / (t("logits").size / 2)
        t_attended = resize_array(t("e2", "e3", "e4"), s("e1").shape[2:])
        yield "imd_unified", 0.9 * 0.5 * golden_attention(s("e1"), t_attended)
        for name in ("e2", "e3", "e4"):
            yield f"imd_{name}", 0.9 * 0.5 * golden_attention(s(name), t("e5"))

    def test_student_with_a_decoder(self) -> None:
        student = random_features(STUDENT, STUDENT_SIZES, seed=1)
        teacher = random_features(TEACHER, TEACHER_SIZES, seed=2)
        expected = dict(self.golden(Stages(student), Stages(teacher), STUDENT, lambda x: x))
        torch.manual_seed(5)
        assert_terms(build_method(["hlfd_published"], STUDENT, TEACHER)(student, teacher, BATCH), expected)

    def test_student_without_a_decoder_is_upsampled_to_the_input(self) -> None:
        channels = STUDENT._replace(decoder=STUDENT.encoder[3::-1])
        student = random_features(channels, STUDENT_SIZES, seed=1)
        student = student._replace(decoder=student.encoder[3::-1])
        teacher = random_features(TEACHER, TEACHER_SIZES, seed=2)
        expected = dict(
            self.golden(
                Stages(student),
                Stages(teacher),
                channels,
                lambda x: resize_array(x, IMAGE_SIZE, align_corners=True),
            )
        )
        torch.manual_seed(5)
        assert_terms(build_method(["hlfd_published"], channels, TEACHER)(student, teacher, BATCH), expected)

    def test_projections_are_fresh_and_never_trained(self) -> None:
        student = random_features(STUDENT, STUDENT_SIZES, seed=1)
        method = build_method(["hlfd_published"], STUDENT, STUDENT)
        first, second = (method(student, student, BATCH)["pmd_d4"] for _ in range(2))
        assert first.item() != second.item()
        assert not list(method.parameters())


def random_segmentation(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(classes)
    logits = (3 * torch.randn(2, classes, 7, 5, generator=draw)).requires_grad_()
    return logits, torch.randint(0, classes, (2, 7, 5), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize("classes", [2, 3])
def test_segmentation_loss_is_half_focal_and_half_dice(classes: int) -> None:
    logits, mask = random_segmentation(classes)
    p = np.exp(log_softmax_array(logits.detach().double().numpy()))
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


def test_equal_maps_are_at_distance_0() -> None:
    maps = random_features(STUDENT, STUDENT_SIZES, seed=1).encoder[1]
    assert channel_kl(maps, maps.clone(), temperature=4.0).item() == 0
    assert attention_distance(maps, maps.clone(), maps.shape[2:]).item() == 0


def test_attention_does_not_depend_on_scale_however_large() -> None:
    student, teacher = (random_features(STUDENT, STUDENT_SIZES, seed).encoder[1] for seed in (1, 2))
    distance = attention_distance(student, teacher, (4, 5))
    scaled = attention_distance(1e15 * student, 1e-15 * teacher, (4, 5))
    assert scaled.item() == pytest.approx(distance.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("small", "large"), [((6, 6), (48, 48)), ((7, 5), (9, 3)), ((1, 4), (5, 8)), ((4, 1), (4, 9)), ((6, 6), (4, 11))]
)
def test_powers_of_resized_maps_are_those_of_maps_resized_first(small: tuple[int, int], large: tuple[int, int]) -> None:
    maps = torch.randn(2, 6, *small, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain, short = resize(maps, large).pow(4).sum(dim=1), _sum_of_fourth_powers(maps, large)
    assert torch.allclose(short, plain, rtol=1e-10)
    weights = torch.linspace(-1, 1, plain.numel(), dtype=torch.double).view_as(plain)
    gradients = [torch.autograd.grad((weights * power).sum(), maps)[0] for power in (plain, short)]
    assert torch.allclose(*gradients, rtol=1e-9)
