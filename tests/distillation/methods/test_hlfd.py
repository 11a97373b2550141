"""HLFD, its ablations and its baselines against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from distillation import parse_methods
from distillation.distances import channel_kl
from networks.contract import Features
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, assert_terms, attention_array, kl_array, project_array, resize_array, stage_array
from tests.golden.features import STUDENT, TEACHER, random_batch, student_and_teacher
from tests.small import make_method
from utils.errors import UserError


class TestHLFD(MethodContract):
    name = "hlfd"


class TestHIFD(MethodContract):
    name = "hifd"


class TestIFD(MethodContract):
    name = "ifd"


class TestDeep(MethodContract):
    name, same_level = "deep", True


class TestSKD(MethodContract):
    name, same_level = "skd", True


class TestAT(MethodContract):
    name, same_level = "at", True


Stages = Callable[..., Array]
"""A network's map by its stages' names; of the student's adapted ones, by the adapter's name before them."""


def golden_hlfd(s: Stages, t: Stages, adapted: Stages) -> dict[str, float]:
    s_d5 = adapted("unified", "d5")
    t_low = resize_array(t("d5", "d4", "d3"), s_d5.shape[2:])
    t_high = resize_array(t("e2", "e3", "e4"), s("e1").shape[2:])
    return {
        "pmd_unified": 0.1 * 0.5 * kl_array(s_d5, t_low),
        **{f"pmd_{d}": 0.1 * 0.5 * kl_array(adapted(d, d), t("logits")) for d in ("d4", "d3", "d2")},
        "imd_unified": 0.9 * 0.5 * attention_array(s("e1"), t_high),
        **{f"imd_{e}": 0.9 * 0.5 * attention_array(s(e), t("e5")) for e in ("e2", "e3", "e4")},
    }


def golden_hifd(s: Stages, t: Stages, adapted: Stages) -> dict[str, float]:
    return {
        **{f"pmd_{d}": 0.1 * kl_array(adapted(d, d), t("logits")) for d in ("logits", "d4", "d2")},
        **{f"imd_{e}": 0.9 * attention_array(s(e), t("e5")) for e in ("e5", "e2", "e4")},
    }


def golden_ifd(s: Stages, t: Stages, adapted: Stages) -> dict[str, float]:
    return {
        "pmd_logits": 0.1 * kl_array(s("logits"), t("logits")),
        "pmd_unified": 0.1 * kl_array(adapted("unified", "d5", "d4", "d3", "d2"), t("logits")),
        "imd_e5": 0.9 * attention_array(s("e5"), t("e5")),
        "imd_unified": 0.9 * attention_array(s("e1", "e2", "e3", "e4"), t("e5")),
    }


def golden_deep(s: Stages, t: Stages, adapted: Stages) -> dict[str, float]:
    return {
        **{f"pmd_{d}": 0.1 * kl_array(adapted(d, d), t(d)) for d in ("logits", "d5", "d4", "d3", "d2")},
        **{f"imd_{e}": 0.9 * attention_array(s(e), t(e)) for e in ("e1", "e2", "e3", "e4", "e5")},
    }


def golden_skd(s: Stages, t: Stages, adapted: Stages) -> dict[str, float]:
    return {
        "pmd_logits": 0.1 * kl_array(s("logits"), t("logits")),
        "imd_e5": 0.9 * attention_array(s("e5"), t("e5")),
    }


def golden_at(s: Stages, t: Stages, adapted: Stages) -> dict[str, float]:
    return {"imd_e5": attention_array(s("e5"), t("e5"))}


GOLDEN = {
    "hlfd": golden_hlfd,
    "hifd": golden_hifd,
    "ifd": golden_ifd,
    "deep": golden_deep,
    "skd": golden_skd,
    "at": golden_at,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_terms_are_golden(name: str) -> None:
    student, teacher = student_and_teacher()
    method = make_method(name, STUDENT, TEACHER)

    def adapted(adapter: str, *stages: str) -> Array:
        return project_array(stage_array(student, *stages), method.get_submodule(f"adapters.{adapter}"))

    expected = GOLDEN[name](partial(stage_array, student), partial(stage_array, teacher), adapted)
    assert_terms(method(student, teacher, random_batch()), expected)


def terms(text: str, networks: tuple[Features, Features]) -> dict[str, torch.Tensor]:
    return make_method(text, STUDENT, TEACHER)(*networks, random_batch())


def test_options_weigh_the_terms() -> None:
    student, teacher = networks = student_and_teacher()
    weighted = terms("skd,alpha=0.2,beta=0.3,temperature=1", networks)
    expected = 0.2 * channel_kl(student.logits, teacher.logits, temperature=1.0)
    assert weighted["pmd_logits"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert weighted["imd_e5"].item() == pytest.approx(terms("skd", networks)["imd_e5"].item() / 3, rel=1e-6)


def test_hlfd_keeps_the_terms_that_are_named() -> None:
    networks = student_and_teacher()
    kept = terms("hlfd,terms=imd_e2+imd_unified", networks)
    assert list(kept) == ["imd_unified", "imd_e2"]
    assert kept["imd_e2"].item() == terms("hlfd", networks)["imd_e2"].item()
    assert not list(make_method("hlfd,terms=imd_e2", STUDENT, TEACHER).parameters())
    with pytest.raises(UserError, match="hlfd,terms=imd_e9: there is no term 'imd_e9': choose from pmd_unified"):
        make_method("hlfd,terms=imd_e9", STUDENT, TEACHER)


def test_equation_of_hlfd() -> None:
    assert make_method("hlfd", STUDENT, TEACHER).equation() == (
        "0.1 (0.5 KL(cat(t_d5,t_d4,t_d3) -> s_d5) + 0.5 KL(t_logits -> s_d4)"
        " + 0.5 KL(t_logits -> s_d3) + 0.5 KL(t_logits -> s_d2))"
        " + 0.9 (0.5 AT(cat(t_e2,t_e3,t_e4) -> s_e1) + 0.5 AT(t_e5 -> s_e2)"
        " + 0.5 AT(t_e5 -> s_e3) + 0.5 AT(t_e5 -> s_e4))"
    )


def test_a_weight_in_a_weight_is_in_brackets() -> None:
    assert make_method("hlfd,terms=imd_e2", STUDENT, TEACHER).equation() == "0.9 (0.5 AT(t_e5 -> s_e2))"


def test_attention_alone_weighs_1_and_has_no_other_weights() -> None:
    assert make_method("at", STUDENT, TEACHER).equation() == "AT(t_e5 -> s_e5)"
    with pytest.raises(UserError, match="--beta: at has no such option"):
        parse_methods(["at"], beta=0.3)
