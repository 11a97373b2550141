"""The tasks that the training loop runs, and how methods are named and combined."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterable
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import pytest
import torch

from distillation import METHODS, PUBLISHED_NAMES, build_method, method_name, plain_spec
from distillation.method import Combined, Method
from distillation.task import Distiller, SupervisedTask
from networks import build
from networks.contract import Features, SegmentationNetwork
from tests.contracts.methods import PAIRS, MethodContract, random_batch
from tests.golden.features import STUDENT, TEACHER, TinyNetwork
from tests.paths import SCRIPTS
from utils.batch import Batch
from utils.errors import UserError


@pytest.fixture(scope="module")
def pair() -> tuple[SegmentationNetwork, SegmentationNetwork]:
    """A student and a teacher; tests copy what they change."""
    torch.manual_seed(0)
    return build("resnet_18", classes=2), build("raunet", classes=2)


def distiller(pair: tuple[SegmentationNetwork, SegmentationNetwork], *specs: str, **options: float) -> Distiller:
    student, teacher = map(deepcopy, pair)
    return Distiller(student, teacher, build_method(specs, student.channels, teacher.channels, **options))


class TestSupervisedTask:
    def test_loss_is_the_sum_of_its_terms(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = SupervisedTask(deepcopy(pair[0]))
        terms = task(random_batch())
        assert list(terms) == ["focal", "dice", "loss"]
        assert terms["loss"].item() == pytest.approx((terms["focal"] + terms["dice"]).item())
        assert task.equation() == "loss = 0.5 focal + 0.5 (1 - Dice)"


class TestDistiller:
    def test_teacher_never_changes(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = distiller(pair, "hlfd").train()
        before = deepcopy(task.teacher.state_dict())
        optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            task.train()(random_batch())["loss"].backward()
            optimizer.step()
        assert not any(module.training for module in task.teacher.modules())
        assert all(torch.equal(value, before[key]) for key, value in task.teacher.state_dict().items())
        assert not torch.equal(task.network.encoder.bn1.running_mean, pair[0].encoder.bn1.running_mean)

    def test_teacher_is_no_part_of_the_task(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = distiller(pair, "hlfd")
        assert {name.split(".")[0] for name in task.state_dict()} == {"network", "method"}
        theirs = {id(parameter) for parameter in task.teacher.parameters()}
        assert not theirs & {id(parameter) for parameter in task.parameters()}

    def test_teacher_moves_with_the_task(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = distiller(pair, "hlfd").to("meta")
        assert all(value.is_meta for value in task.teacher.state_dict().values())
        assert all(value.is_meta for value in task.state_dict().values())

    def test_every_student_parameter_learns(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = distiller(pair, "hlfd")
        task(random_batch())["loss"].backward()
        for name, parameter in task.network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name

    def test_methods_see_float32_with_autocast_off(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        class Witness(Method):
            def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, torch.Tensor]:
                maps = [m for each in (student, teacher) for m in (*each.encoder, *each.decoder, each.logits)]
                assert all(m.dtype == torch.float32 for m in maps) and not torch.is_autocast_enabled("cpu")
                return {"seen": torch.ones(())}

        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert Distiller(*map(deepcopy, pair), Witness())(random_batch())["seen"] == 1

    def test_published_student_is_still_upsampled_under_autocast(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = distiller(pair, "hlfd_published").eval()
        torch.manual_seed(0)
        exact = task(random_batch())
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = task(random_batch())
        assert terms["pmd_d4"].item() == pytest.approx(exact["pmd_d4"].item(), rel=0.05)

    def test_networks_of_different_tasks(self) -> None:
        student, teacher = build("resnet_18", classes=3), build("resnet_18", classes=2)
        with pytest.raises(UserError, match="the teacher has 2 classes, the student 3"):
            Distiller(student, teacher, build_method(["at"], student.channels, teacher.channels))


@pytest.mark.parametrize("name", ["skd", "at", "deep"])
@pytest.mark.parametrize("network", ["raunet", "resnet_18"])
def test_same_level_terms_of_a_real_network_and_its_copy_are_exactly_0(network: str, name: str) -> None:
    """With batch norm, in eval mode."""
    teacher = build(network, classes=2)
    method = build_method([name], teacher.channels, teacher.channels)
    terms = Distiller(deepcopy(teacher), teacher, method).eval()(random_batch())
    taught = [value.item() for term, value in terms.items() if term not in ("focal", "dice", "loss")]
    assert taught and not any(taught)


def test_every_method_is_under_the_contract() -> None:
    for path in (Path(__file__).parent / "methods").glob("test_*.py"):
        import_module(f"tests.distillation.methods.{path.stem}")
    assert {test.name for test in MethodContract.__subclasses__()} == set(METHODS)


class TestBuildMethod:
    @pytest.mark.parametrize(("published", "ours"), PUBLISHED_NAMES.items())
    def test_published_names_stay_accepted(self, published: str, ours: str) -> None:
        assert method_name(published) == method_name(ours.upper()) == ours

    def test_wrong_name_prints_the_names_that_exist(self) -> None:
        with pytest.raises(UserError, match=r"'hlfdd'.*hlfd, hlfd_paper, ifd, hifd, deep, skd, hlfd_published, kd"):
            build_method(["hlfdd"], STUDENT, TEACHER)

    @pytest.mark.parametrize(
        "specs",
        [
            ["at:x"],
            ["at:-1"],
            ["at:"],
            ["at:nan"],
            ["at", "attn_kd"],
            ["at,layers=e6"],
            ["at,layers=e5+e5"],
            ["at,temperature=2"],
            ["skd,alpha"],
            [],
        ],
    )
    def test_wrong_specs(self, specs: list[str]) -> None:
        with pytest.raises(UserError):
            build_method(specs, STUDENT, TEACHER)

    @pytest.mark.parametrize(
        ("option", "value"),
        [("alpha", -0.1), ("alpha", float("nan")), ("beta", float("inf")), ("temperature", 0.0), ("temperature", -4.0)],
    )
    def test_options_out_of_range_are_named(self, option: str, value: float) -> None:
        with pytest.raises(UserError, match=f"hlfd,{option}={value}: must be"):
            build_method(["hlfd"], STUDENT, TEACHER, **{option: value})

    def test_an_option_of_one_method_goes_before_those_for_all(self) -> None:
        specs = [plain_spec(word, temperature=2.0) for word in ("KD,temperature=4", "cwd", "dist,temperature=2,beta=3")]
        assert specs == ["kd,temperature=4.0", "cwd", "dist,beta=3.0"]
        parts = build_method(specs, STUDENT, TEACHER, temperature=2.0).methods
        assert isinstance(parts, torch.nn.ModuleDict)
        assert [part.temperature for part in parts.values()] == [4, 2, 2]

    def test_a_weight_in_a_weight_is_in_brackets(self) -> None:
        assert build_method(["hlfd,terms=imd_e2"], STUDENT, TEACHER).equation() == "0.9 (0.5 AT(t_e5 -> s_e2))"
        assert (
            build_method(["emkd,layers=e3,gamma=1"], STUDENT, TEACHER)
            .equation()
            .endswith("0.9 AT(t_e3 -> s_e3) + RA(t_e3 -> s_e3)")
        )

    def test_combined_terms_are_weighted_and_carry_their_methods_name(
        self, pair: tuple[SegmentationNetwork, ...]
    ) -> None:
        alone = distiller(pair, "at").eval()(random_batch())
        terms = distiller(pair, "skd", "at:3.0").eval()(random_batch())
        assert list(terms) == ["focal", "dice", "skd_pmd_logits", "skd_imd_e5", "at_imd_e5", "loss"]
        assert terms["at_imd_e5"].item() == pytest.approx(3 * alone["imd_e5"].item())

    def test_combined_methods_all_get_their_hooks(self) -> None:
        class Recorder(Method):
            def __init__(self) -> None:
                super().__init__()
                self.calls: list[str] = []

            def prepare(self, teacher: SegmentationNetwork, loader: Iterable[Batch]) -> None:
                self.calls.append("prepare")

            def extra_optimizers(self) -> list[torch.optim.Optimizer]:
                return [torch.optim.SGD([torch.zeros(1)])]

            def after_step(self) -> None:
                self.calls.append("after_step")

        recorders = [Recorder(), Recorder()]
        method = Combined([(str(i), 1.0, recorder) for i, recorder in enumerate(recorders)])
        method.prepare(build("resnet_18", classes=2), [])
        method.after_step()
        assert [recorder.calls for recorder in recorders] == [["prepare", "after_step"]] * 2
        assert len(method.extra_optimizers()) == 2

    def test_equation_of_hlfd(self) -> None:
        assert build_method(["hlfd"], STUDENT, TEACHER).equation() == (
            "0.1 (0.5 KL(cat(t_d5,t_d4,t_d3) -> s_d5) + 0.5 KL(t_logits -> s_d4)"
            " + 0.5 KL(t_logits -> s_d3) + 0.5 KL(t_logits -> s_d2))"
            " + 0.9 (0.5 AT(cat(t_e2,t_e3,t_e4) -> s_e1) + 0.5 AT(t_e5 -> s_e2)"
            " + 0.5 AT(t_e5 -> s_e3) + 0.5 AT(t_e5 -> s_e4))"
        )

    def test_equation_of_several(self) -> None:
        assert build_method(["skd", "at:3.0"], STUDENT, TEACHER).equation() == (
            "[0.1 KL(t_logits -> s_logits) + 0.9 AT(t_e5 -> s_e5)] + 3 [AT(t_e5 -> s_e5)]"
        )

    def test_equation_of_the_published_method_is_its_own(self) -> None:
        usual, published = (build_method([name], STUDENT, TEACHER).equation() for name in ("hlfd", "hlfd_published"))
        renamed = usual.replace("KL", "KL_published").replace("AT", "AT_published")
        assert published.startswith(f"{renamed}, where KL_published = (2 / channels) KL after a new random 1x1")

    @pytest.mark.parametrize(
        ("specs", "detached"),
        [(["hlfd"], False), (["hlfd", "at"], False), (["hlfd_published"], True), (["at:3", "hlfd_published"], True)],
    )
    def test_the_published_method_detaches_the_focal_factor_and_says_so(self, specs: list[str], detached: bool) -> None:
        student, teacher = (TinyNetwork(*shape, classes=2) for shape in PAIRS["unequal"])
        task = Distiller(student, teacher, build_method(specs, student.channels, teacher.channels))
        assert task.method.focal_detached == detached
        assert ("0.5 focal (p_t detached) + 0.5 (1 - Dice) + " in task.equation()) == detached


def test_bench_step_on_a_device_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", ["bench_step.py", "--device", "nonsense"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(SCRIPTS / "bench_step.py"), run_name="__main__")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --device nonsense cannot be used here")
