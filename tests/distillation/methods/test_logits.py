"""Distillation of the logits against NumPy and SciPy, and what becomes of it with two classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from distillation import build_method
from distillation.task import Distiller
from networks.contract import Channels, Features
from tests.contracts.methods import MethodContract, tiny_distiller
from tests.golden.features import Array, log_softmax_array
from utils.batch import Batch


class TestKD(MethodContract):
    name, same_level = "kd", True


class TestDecoupledKD(MethodContract):
    name, same_level = "dkd", True


class TestDIST(MethodContract):
    name, same_level = "dist", True
    # The tiny networks' logits hardly vary: what correlates in half precision is mostly their rounding.
    half_tolerance = 0.5


class TestBest(MethodContract):
    name, same_level = "best", True
    # DIST's rounding times ten, and more of the loss.
    half_tolerance, rounding = 0.8, 1e-5


class TestStandardisedKD(MethodContract):
    name, same_level = "lskd", True

    def learner(self, pair: str) -> Distiller:
        return tiny_distiller(self.name, pair, classes=3)


def channels(classes: int) -> Channels:
    return Channels((1,) * 5, (1,) * 4, classes)


def random_logits(classes: int, seed: int) -> torch.Tensor:
    return (3 * torch.randn(2, classes, 7, 5, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def random_mask(classes: int) -> torch.Tensor:
    return torch.randint(0, classes, (2, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def terms_of(spec: str, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    classes = student.shape[1]
    method = build_method([spec], channels(classes), channels(classes))
    batch = Batch(torch.zeros(len(mask), 1, *mask.shape[1:]), mask, ["a"] * len(mask))
    return method(Features((), (), student), Features((), (), teacher), batch)


def by_pixel(logits: torch.Tensor) -> Array:
    """[B, C, H, W] -> [B * H * W, C] in float64."""
    return logits.detach().double().permute(0, 2, 3, 1).flatten(0, 2).numpy()


def golden_kl(student: Array, teacher: Array, temperature: float) -> float:
    log_p, log_q = log_softmax_array(student / temperature), log_softmax_array(teacher / temperature)
    return float(temperature**2 * (np.exp(log_q) * (log_q - log_p)).sum(axis=1).mean())


def golden_kd(s: Array, t: Array, target: Array) -> dict[str, float]:
    return {"logits": golden_kl(s, t, 4)}


def golden_lskd(s: Array, t: Array, target: Array) -> dict[str, float]:
    return {"logits": 9 * golden_kl(stats.zscore(s, axis=1), stats.zscore(t, axis=1), 2)}


def golden_dkd(s: Array, t: Array, target: Array) -> dict[str, float]:
    is_target = np.eye(s.shape[1], dtype=bool)[target]
    p, q = (np.exp(log_softmax_array(logits / 4))[is_target] for logits in (s, t))
    tckd = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    others = (logits[~is_target].reshape(len(logits), -1) for logits in (s, t))
    return {"tckd": 16 * tckd.mean(), "nckd": 8 * golden_kl(*others, 4)}


def golden_dist(s: Array, t: Array, target: Array) -> dict[str, float]:
    p, q = (np.exp(log_softmax_array(logits)) for logits in (s, t))
    inter, intra = (stats.pearsonr(p, q, axis=axis).statistic.mean() for axis in (1, 0))
    return {"inter": 1 - inter, "intra": 1 - intra}


Golden = Callable[[Array, Array, Array], dict[str, float]]
GOLDEN: dict[str, Golden] = {"kd": golden_kd, "lskd": golden_lskd, "dkd": golden_dkd, "dist": golden_dist}


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("name", GOLDEN)
def test_terms_are_golden(name: str, classes: int) -> None:
    student, teacher, mask = random_logits(classes, 1), random_logits(classes, 2), random_mask(classes)
    terms = terms_of(name, student, teacher, mask)
    expected = GOLDEN[name](by_pixel(student), by_pixel(teacher), mask.flatten().numpy())
    assert {term: value.item() for term, value in terms.items()} == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("usual", "chosen", "ratios"),
    [
        ("kd", "kd,weight=3", {"logits": 3}),
        ("dkd", "dkd,alpha=2,beta=4", {"tckd": 2, "nckd": 0.5}),
        ("dist", "dist,beta=2,gamma=3", {"inter": 2, "intra": 3}),
        ("lskd", "lskd,weight=1", {"logits": 1 / 9}),
    ],
)
def test_options_weigh_the_terms(usual: str, chosen: str, ratios: dict[str, float]) -> None:
    student, teacher, mask = random_logits(3, 1), random_logits(3, 2), random_mask(3)
    before, after = (terms_of(spec, student, teacher, mask) for spec in (usual, chosen))
    assert {term: (after[term] / before[term]).item() for term in after} == pytest.approx(ratios)


def test_temperature_of_dist_softens_the_probabilities() -> None:
    student, teacher, mask = random_logits(3, 1), random_logits(3, 2), random_mask(3)
    softened = terms_of("dist,temperature=4", student, teacher, mask)
    by_hand = terms_of("dist", student / 4, teacher / 4, mask)
    assert {k: v.item() for k, v in softened.items()} == pytest.approx({k: 16 * v.item() for k, v in by_hand.items()})


def test_decoupled_parts_of_a_pixel_add_up_to_kd() -> None:
    """KD = TCKD + (1 - q) NCKD with q the teacher's probability of the true class, the paper's equation 7."""
    student, teacher = (random_logits(4, seed)[:1, :, :1, :1] for seed in (1, 2))
    mask = torch.ones(1, 1, 1, dtype=torch.uint8)
    parts = terms_of("dkd,beta=1", student, teacher, mask)
    q = (teacher / 4).softmax(dim=1)[0, 1, 0, 0]
    whole = terms_of("kd", student, teacher, mask)["logits"]
    assert (parts["tckd"] + (1 - q) * parts["nckd"]).item() == pytest.approx(whole.item(), rel=1e-5)


def test_decoupled_terms_stay_finite_for_probabilities_of_0_and_1() -> None:
    student = torch.tensor([300.0, -300.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    teacher = torch.tensor([-300.0, 300.0, 0.0]).view(1, 3, 1, 1)
    terms = terms_of("dkd,temperature=1", student, teacher, torch.zeros(1, 1, 1, dtype=torch.uint8))
    (terms["tckd"] + terms["nckd"]).backward()
    assert all(value.isfinite() for value in terms.values()) and student.grad.isfinite().all()


def test_what_does_not_vary_has_no_correlation_and_a_finite_gradient() -> None:
    student = torch.zeros(2, 3, 7, 5, requires_grad=True)
    terms = terms_of("dist", student, random_logits(3, 2), random_mask(3))
    assert [value.item() for value in terms.values()] == [1, 1]
    sum(terms.values()).backward()
    assert student.grad.isfinite().all()


def test_standardised_logits_forget_scale_and_shift() -> None:
    student, teacher, mask = random_logits(3, 1), random_logits(3, 2), random_mask(3)
    plain, changed = (terms_of("lskd", s, teacher, mask)["logits"] for s in (student, 7 * student - 2))
    assert changed.item() == pytest.approx(plain.item(), rel=1e-5)
    assert terms_of("lskd", 7 * teacher - 2, teacher, mask)["logits"].item() == pytest.approx(0, abs=1e-6)


class TestTwoClasses:
    """What the methods' documentation says of them."""

    student, teacher, mask = random_logits(2, 1), random_logits(2, 2), random_mask(2)

    def disagreement(self) -> float:
        """The share of pixels that student and teacher call differently."""
        return (self.student.argmax(dim=1) != self.teacher.argmax(dim=1)).float().mean().item()

    def gradient(self, term: torch.Tensor) -> float:
        return torch.autograd.grad(term, self.student, retain_graph=True)[0].abs().max().item()

    def test_decoupled_is_kd_with_nothing_among_the_others(self) -> None:
        terms = terms_of("dkd", self.student, self.teacher, self.mask)
        kd = terms_of("kd", self.student, self.teacher, self.mask)["logits"]
        assert terms["nckd"].item() == 0
        assert terms["tckd"].item() == pytest.approx(kd.item(), rel=1e-5)
        equations = [build_method(["dkd"], channels(n), channels(n)).equation() for n in (2, 3)]
        assert [each.endswith("(no gradient: two classes)") for each in equations] == [True, False]

    def test_correlation_between_classes_counts_pixels_and_only_that_within_classes_teaches(self) -> None:
        terms = terms_of("dist", self.student, self.teacher, self.mask)
        assert terms["inter"].item() == pytest.approx(2 * self.disagreement())
        assert self.gradient(terms["inter"]) < 1e-6 < self.gradient(terms["intra"])
        equations = [build_method(["dist"], channels(n), channels(n)).equation() for n in (2, 3)]
        assert ["s_logits)) (no gradient: two classes) + (1 - intra" in each for each in equations] == [True, False]

    def test_standardised_kd_counts_pixels_and_says_that_it_teaches_nothing(self) -> None:
        loss = terms_of("lskd", self.student, self.teacher, self.mask)["logits"]
        of_one_pixel = golden_kl(np.array([[1.0, -1.0]]), np.array([[-1.0, 1.0]]), 2)
        assert loss.item() == pytest.approx(9 * of_one_pixel * self.disagreement(), rel=1e-5)
        assert self.gradient(loss) < 1e-6
        equations = [build_method(["lskd"], channels(n), channels(n)).equation() for n in (2, 3)]
        assert ["no gradient" in equation for equation in equations] == [True, False]


def noise(seed: int) -> torch.Tensor:
    return torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_a_student_that_predicts_background_alone_gets_no_exploding_gradient() -> None:
    """One gradient of 1e4 would leave Adam's second moments useless for the rest of a short training."""
    student = (torch.tensor([6.0, -6.0]).view(1, 2, 1, 1) + 1e-3 * noise(1)).requires_grad_()
    intra = terms_of("dist", student, noise(2), torch.zeros(2, 16, 16, dtype=torch.uint8))["intra"]
    intra.backward()
    assert intra.item() == pytest.approx(1, abs=0.2)
    assert 0 < student.grad.norm() < 0.01


@pytest.mark.parametrize("name", ["dist", "lskd"])
def test_pixels_whose_classes_have_equal_logits_get_no_exploding_gradient(name: str) -> None:
    """As half precision makes them: the gradient is that of the same logits with such pixels moved apart."""
    student = noise(1).bfloat16().float()
    student[:, 1, ::4] = student[:, 0, ::4]
    apart = student.clone()
    apart[:, 1, ::4] += 0.01
    norms = []
    for logits in (student.requires_grad_(), apart.requires_grad_()):
        sum(terms_of(name, logits, noise(2), torch.zeros(2, 16, 16, dtype=torch.uint8)).values()).backward()
        norms.append(logits.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05, abs=1e-4)
