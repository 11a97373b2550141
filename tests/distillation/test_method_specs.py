"""How methods are named, given options, and combined."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest
import torch

from distillation import ALIASES, METHODS, build_method, describe_methods, parse_method, parse_methods
from distillation.method import Combined, Method
from distillation.teacher import NetworkTeacher, Teacher
from networks.contract import Features
from tests.contracts.methods import PAIRS, MethodContract
from tests.golden.features import STUDENT, TEACHER, random_batch
from tests.paths import ROOT
from tests.small import TinyNetwork, make_method
from utils.batch import Batch
from utils.errors import UserError
from utils.numbers import NonNegative


def test_every_method_is_under_the_contract() -> None:
    for path in (Path(__file__).parent / "methods").glob("test_*.py"):
        import_module(f"tests.distillation.methods.{path.stem}")
    assert {test.name for test in MethodContract.__subclasses__()} == set(METHODS)


def test_every_method_is_described_with_its_options() -> None:
    lines = describe_methods().splitlines()
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in (*METHODS, *ALIASES))
    assert "layers=e5 weight=50 temperature=4" in lines[lines.index(next(x for x in lines if "cwd_features" in x)) + 1]


def test_naming_methods_does_not_import_torch() -> None:
    """`--help` must not wait for it."""
    code = "import sys, distillation, distillation.specs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


class TestSpec:
    @pytest.mark.parametrize(
        ("text", "shortest"),
        [
            ("KD", "kd"),
            ("kd:1,temperature=1", "kd"),
            ("cwd:0.50,temperature=4,layers=e4+e5", "cwd:0.5,layers=e4+e5"),
            ("cirkd_mini-batch,temperature=2.0", "cirkd_minibatch,temperature=2"),
            ("hlfd_paper:2", "hlfd:2"),
            ("best", "dice_semimetric"),
            ("best:2", "dice_semimetric:2"),
        ],
    )
    def test_its_shortest_text_means_the_same(self, text: str, shortest: str) -> None:
        spec = parse_method(text)
        assert str(spec) == shortest
        assert parse_method(shortest) == spec and hash(parse_method(shortest)) == hash(spec)

    def test_its_definition_has_every_option(self) -> None:
        assert parse_method("cwd:2,weight=1").definition() == "cwd:2,layers=logits,weight=1,temperature=4"

    def test_options_are_typed(self) -> None:
        spec = parse_method("ickd,layers=e4+e5,grid=2")
        assert spec.options == (("layers", ("e4", "e5")), ("weight", 1.0), ("grid", 2))

    @pytest.mark.parametrize(("published", "ours"), ALIASES.items())
    def test_other_names_stay_accepted(self, published: str, ours: str) -> None:
        assert parse_method(published) == parse_method(published.upper()) == parse_method(ours)

    def test_wrong_name_prints_the_names_that_exist(self) -> None:
        with pytest.raises(UserError, match=r"'hlfdd'.*hlfd, ifd, hifd, deep, skd, hlfd_published, kd"):
            parse_method("hlfdd")

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (["at:x"], "at:x: the weight after the colon must be a positive number"),
            (["at:-1"], "at:-1: the weight"),
            (["at:"], "at:: the weight"),
            (["at:nan"], "at:nan: the weight"),
            (["at:1:2"], "at:1:2: one weight"),
            (["at", "attn_kd"], "at is given twice"),
            (["at,layers=e6"], r"at,layers=e6: there is no stage 'e6': choose from e1, .*logits"),
            (["at,layers=e5+e5"], "at,layers=e5\\+e5: name each stage only once"),
            (["at,temperature=2"], "at has no option temperature; it has layers=e5, weight=1"),
            (["skd,alpha"], "options follow the name as OPTION=VALUE"),
            (["ickd,grid=0"], "ickd,grid=0: must be an integer of at least 1, not 0"),
            (["reviewkd,width=0"], "reviewkd,width=0: must be an integer of at least 1"),
            (["reviewkd,width=1.5"], "reviewkd,width=1.5: must be an integer"),
            (["mgd,masked=1"], "mgd,masked=1: must be a number at least 0 and below 1"),
            ([], "no distillation method is given"),
        ],
    )
    def test_wrong_specs_are_refused_in_one_line(self, texts: list[str], message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            parse_methods(texts)
        assert "\n" not in str(error.value)


class TestSharedOptions:
    def test_go_to_every_method_that_has_them_and_does_not_set_them_itself(self) -> None:
        specs = parse_methods(["KD,temperature=4", "cwd", "sp", "dist,temperature=3"], temperature=2.0, alpha=None)
        assert [dict(spec.options).get("temperature") for spec in specs] == [4, 2, None, 3]
        assert [str(spec) for spec in specs] == ["kd,temperature=4", "cwd,temperature=2", "sp", "dist,temperature=3"]
        parts = build_method(specs, STUDENT, TEACHER).methods
        assert isinstance(parts, torch.nn.ModuleDict)
        assert [part.temperature for name, part in parts.items() if name != "sp"] == [4, 2, 3]

    def test_layers_come_as_a_list(self) -> None:
        assert str(parse_methods(["at"], layers=["e3", "e4"])[0]) == "at,layers=e3+e4"

    def test_that_no_method_has_are_named(self) -> None:
        with pytest.raises(UserError, match="--alpha: kd, at has no such option"):
            parse_methods(["kd", "at"], alpha=0.5, temperature=1.0)

    @pytest.mark.parametrize(
        ("option", "value"),
        [("alpha", -0.1), ("alpha", float("nan")), ("beta", float("inf")), ("temperature", 0.0), ("temperature", -4.0)],
    )
    def test_out_of_range_are_named(self, option: str, value: float) -> None:
        with pytest.raises(UserError, match=f"hlfd,{option}={f'{value}'.removesuffix('.0')}: must be"):
            parse_methods(["hlfd"], **{option: value})


class Reversed(Method):
    """A method as users write their own: from the last logit to the first."""

    weight: NonNegative = 1.0
    count: int = 3
    exact: bool = False
    suffix: str = "x"

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, torch.Tensor]:
        return {self.suffix: self.weight * (student.logits - teacher.logits.flip(1)).square().mean()}

    def equation(self) -> str:
        return "Reversed(t_logits -> s_logits)"


class TestMethodOfOnesOwn:
    name = f"{__name__}:Reversed"

    def test_is_given_by_its_module_and_class(self) -> None:
        spec = parse_method(f"{self.name}:0.5,weight=2,exact=true,count=0")
        assert (spec.name, spec.factor, spec.label) == (self.name, 0.5, "Reversed")
        assert spec.options == (("weight", 2.0), ("count", 0), ("exact", True), ("suffix", "x"))
        assert parse_method(str(spec)) == spec

    def test_adds_to_others(self) -> None:
        student, teacher = (TinyNetwork(*shape, classes=2) for shape in PAIRS["unequal"])
        method = make_method(f"kd {self.name}:2", student.channels, teacher.channels)
        batch = random_batch()
        terms = method(student.features(batch.image), teacher.features(batch.image), batch)
        assert list(terms) == ["kd_logits", "Reversed_x"]
        assert method.equation() == "[KL(t_logits -> s_logits)] + 2 [Reversed(t_logits -> s_logits)]"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("no.such_module:Loss", "no.such_module:Loss: no.such_module cannot be imported"),
            (f"{__name__}:Missing", "has no class Missing that is a distillation.method.Method"),
            (f"{__name__}:ROOT", "has no class ROOT that is"),
            ("torch.nn:Module", "has no class Module that is"),
            (f"{__name__}:Reversed:0", "Reversed:0: the weight after the colon must be a positive number"),
            (f"{__name__}:Reversed,count=-1", "count=-1: must be an integer of at least 0"),
            (f"{__name__}:Reversed,exact=maybe", "exact=maybe: must be true or false"),
        ],
    )
    def test_errors_are_one_line(self, text: str, message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            parse_method(text)
        assert "\n" not in str(error.value)


class TestCombined:
    def test_terms_are_weighted_and_carry_their_methods_name(self) -> None:
        student, teacher = (TinyNetwork(*shape, classes=2) for shape in PAIRS["unequal"])
        batch = random_batch()
        features = [network.features(batch.image) for network in (student, teacher)]
        alone, terms = (
            make_method(text, student.channels, teacher.channels)(*features, batch) for text in ("at", "skd at:3.0")
        )
        assert list(terms) == ["skd_pmd_logits", "skd_imd_e5", "at_imd_e5"]
        assert terms["at_imd_e5"].item() == pytest.approx(3 * alone["imd_e5"].item())

    def test_all_methods_get_their_hooks(self) -> None:
        class CallRecorder(Method):
            def __init__(self) -> None:
                super().__init__(STUDENT, TEACHER)
                self.calls: list[str] = []

            def prepare(self, teacher: Teacher, loader: Iterable[Batch]) -> None:
                self.calls.append("prepare")

            def extra_optimizers(self) -> list[torch.optim.Optimizer]:
                return [torch.optim.SGD([torch.zeros(1)])]

            def after_step(self) -> None:
                self.calls.append("after_step")

        recorders = [CallRecorder(), CallRecorder()]
        method = Combined(STUDENT, TEACHER, [(str(i), 1.0, recorder) for i, recorder in enumerate(recorders)])
        method.prepare(NetworkTeacher(TinyNetwork(*PAIRS["unequal"][1], classes=2)), [])
        method.after_step()
        assert [recorder.calls for recorder in recorders] == [["prepare", "after_step"]] * 2
        assert len(method.extra_optimizers()) == 2

    def test_equation(self) -> None:
        assert make_method("skd at:3.0", STUDENT, TEACHER).equation() == (
            "[0.1 KL(t_logits -> s_logits) + 0.9 AT(t_e5 -> s_e5)] + 3 [AT(t_e5 -> s_e5)]"
        )


def test_a_constructor_refuses_what_is_no_option() -> None:
    with pytest.raises(TypeError, match="Reversed has no option wieght"):
        Reversed(STUDENT, TEACHER, wieght=2.0)
