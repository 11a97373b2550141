"""The tasks that the training loop runs, and how methods are named and combined."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import pytest
import torch

from distillation import METHODS, PUBLISHED_NAMES, build_method, method_name
from distillation.method import Combined, Method
from distillation.tasks import Distiller, SupervisedTask
from networks import build
from networks.contract import SegmentationNetwork
from tests.helpers_features import STUDENT, TEACHER
from utils.batch import Batch
from utils.errors import UserError


def random_batch(classes: int = 2, count: int = 2, size: tuple[int, int] = (32, 48)) -> Batch:
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(count, 1, *size, generator=draw) * 2 - 1
    mask = torch.randint(0, classes, (count, *size), dtype=torch.uint8, generator=draw)
    return Batch(image, mask, [str(i) for i in range(count)])


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
    @pytest.mark.parametrize("name", METHODS)
    def test_loss_is_the_sum_of_its_terms(self, name: str, pair: tuple[SegmentationNetwork, ...]) -> None:
        terms = distiller(pair, name)(random_batch())
        total = sum(value.item() for term, value in terms.items() if term != "loss")
        assert terms["loss"].item() == pytest.approx(total, rel=1e-5)
        assert list(terms)[:2] == ["focal", "dice"] and len(terms) > 3

    @pytest.mark.parametrize("name", ["skd", "at", "deep"])
    def test_a_network_learns_nothing_from_its_copy(self, name: str, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = distiller((pair[1], pair[1]), name).eval()
        terms = task(random_batch())
        assert all(terms[term].item() == 0 for term in terms if term.startswith(("pmd", "imd")))

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

    def test_adapters_are_trained_with_the_student_but_not_part_of_it(
        self, pair: tuple[SegmentationNetwork, ...]
    ) -> None:
        task = distiller(pair, "hlfd")
        adapters = {name: p for name, p in task.named_parameters() if name.startswith("method.adapters")}
        task(random_batch())["loss"].backward()
        assert {name.split(".")[2] for name in adapters} == {"unified", "d4", "d3", "d2"}
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapters.values())
        assert task.network.state_dict().keys() == pair[0].state_dict().keys()

    def test_every_student_parameter_learns(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = distiller(pair, "hlfd")
        task(random_batch())["loss"].backward()
        for name, parameter in task.network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name

    def test_losses_stay_in_float32_under_autocast(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = distiller(pair, "hlfd", "deep").eval()
        exact = task(random_batch())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = task(random_batch())
        terms["loss"].backward()
        assert all(value.dtype == torch.float32 and value.isfinite() for value in terms.values())
        assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())
        assert terms["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.1)

    def test_published_student_is_still_upsampled_under_autocast(self, pair: tuple[SegmentationNetwork, ...]) -> None:
        task = distiller(pair, "hlfd_published").eval()
        torch.manual_seed(0)
        exact = task(random_batch())
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = task(random_batch())
        assert terms["pmd_d4"].item() == pytest.approx(exact["pmd_d4"].item(), rel=0.05)

    @pytest.mark.parametrize("method", ["hlfd", "deep", "ifd", "hlfd_published"])
    @pytest.mark.parametrize(
        ("teacher", "student", "classes", "count"),
        [("raunet", "resnet_18", 3, 1), ("unet", "resnet_18", 2, 1), ("raunet", "unet_r18", 3, 2)],
    )
    def test_unequal_networks_on_odd_sizes(
        self, teacher: str, student: str, classes: int, count: int, method: str
    ) -> None:
        networks = build(student, classes), build(teacher, classes)
        terms = distiller(networks, method).train()(random_batch(classes, count, size=(33, 47)))
        terms["loss"].backward()
        assert terms["loss"].isfinite()

    def test_networks_of_different_tasks(self) -> None:
        student, teacher = build("resnet_18", classes=3), build("resnet_18", classes=2)
        with pytest.raises(UserError, match="the teacher has 2 classes, the student 3"):
            Distiller(student, teacher, build_method(["at"], student.channels, teacher.channels))


class TestMethods:
    @pytest.mark.parametrize(("published", "ours"), PUBLISHED_NAMES.items())
    def test_published_names_stay_accepted(self, published: str, ours: str) -> None:
        assert method_name(published) == method_name(ours.upper()) == ours

    def test_wrong_name_prints_the_names_that_exist(self) -> None:
        with pytest.raises(UserError, match=r"'hlfdd'.*hlfd, ifd, hifd, deep, skd, at, hlfd_published"):
            build_method(["hlfdd"], STUDENT, TEACHER)

    @pytest.mark.parametrize("specs", [["at:x"], ["at:-1"], ["at:"], ["at:nan"], ["at", "attn_kd"], []])
    def test_wrong_specs(self, specs: list[str]) -> None:
        with pytest.raises(UserError):
            build_method(specs, STUDENT, TEACHER)

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

    def test_only_the_published_method_detaches_the_focal_factor(self) -> None:
        detached = {name for name in METHODS if build_method([name], STUDENT, TEACHER).focal_detached}
        assert detached == {"hlfd_published"}
        assert build_method(["hlfd_published", "at"], STUDENT, TEACHER).focal_detached
