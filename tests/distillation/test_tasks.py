"""The tasks that the training loop runs: supervised, and distilled from a teacher that never changes."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from distillation.distiller import SCHEDULES, Distiller, in_float32, with_teachers_masks
from distillation.method import Method
from distillation.task import SupervisedTask
from distillation.teacher import NetworkTeacher
from networks import build
from networks.contract import Channels, Features, SegmentationNetwork
from tests.contracts.methods import PAIRS, teacher_network, tiny_distiller
from tests.golden.features import random_batch
from tests.small import SmallNetwork, TinyNetwork, equal_states, make_method
from utils.batch import UNLABELLED, Batch
from utils.errors import UserError


def small_distiller(methods: str) -> Distiller:
    """Of networks with batch norms, whose statistics change in training mode."""
    torch.manual_seed(0)
    student, teacher = SmallNetwork(2), SmallNetwork(2, width=6)
    return Distiller(student, NetworkTeacher(teacher), make_method(methods, student.channels, teacher.channels))


def frozen_network(task: Distiller) -> SegmentationNetwork:
    assert isinstance(task.teacher, NetworkTeacher)
    return task.teacher.network


class TestSupervisedTask:
    def test_loss_is_the_sum_of_its_terms(self) -> None:
        task = SupervisedTask(SmallNetwork(2))
        terms = task(random_batch())
        assert list(terms) == ["focal", "dice", "loss"]
        assert terms["loss"].item() == pytest.approx((terms["focal"] + terms["dice"]).item())
        assert task.equation() == "loss = 0.5 focal + 0.5 (1 - Dice)"

    def test_keeps_nothing_besides_the_network(self) -> None:
        task, other = SupervisedTask(SmallNetwork(2)), SupervisedTask(SmallNetwork(2))
        assert task.extra_state() == {}
        other.load_extra_state(task.network.state_dict(), {})
        assert equal_states(other.network.state_dict(), task.network.state_dict())


class TestDistiller:
    def test_teacher_never_changes(self) -> None:
        task = small_distiller("hlfd").train()
        before, student = (deepcopy(each.state_dict()) for each in (frozen_network(task), task.network))
        optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            task.train()(random_batch())["loss"].backward()
            optimizer.step()
        assert not any(module.training for module in frozen_network(task).modules())
        assert equal_states(before, frozen_network(task).state_dict())
        changed = {key for key, value in task.network.state_dict().items() if not torch.equal(value, student[key])}
        assert {"down.0.1.running_mean", "down.0.0.weight"} <= changed

    def test_teacher_is_no_part_of_the_task(self) -> None:
        task = small_distiller("hlfd")
        assert {name.split(".")[0] for name in task.state_dict()} == {"network", "method", "gradient_share"}
        frozen = {id(parameter) for parameter in frozen_network(task).parameters()}
        assert not frozen & {id(parameter) for parameter in task.parameters()}
        tensors = [value for value in task.to("meta").state_dict().values() if isinstance(value, torch.Tensor)]
        assert tensors and all(value.is_meta for value in tensors)
        assert not any(value.is_meta for value in frozen_network(task).state_dict().values())

    def test_teacher_can_be_anything_that_gives_features(self) -> None:
        class Stored:
            """Answers computed before."""

            def __init__(self, channels: Channels, features: Features) -> None:
                self.channels, self.stored = channels, features

            def features(self, batch: Batch) -> Features:
                return self.stored

        plain = tiny_distiller("hlfd", "unequal")
        stored = Stored(plain.teacher.channels, plain.teacher.features(random_batch()))
        task = Distiller(plain.network, stored, plain.method)
        assert task(random_batch()) == plain(random_batch())

    def test_every_student_parameter_learns(self) -> None:
        torch.manual_seed(0)
        student, teacher = build("resnet_18", classes=2), SmallNetwork(2)
        task = Distiller(student, NetworkTeacher(teacher), make_method("hlfd", student.channels, teacher.channels))
        task(random_batch())["loss"].backward()
        for name, parameter in task.network.named_parameters():
            assert parameter.grad is not None and parameter.grad.any(), name

    def test_methods_see_float32_with_autocast_off(self) -> None:
        class FeatureChecker(Method):
            def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, torch.Tensor]:
                maps = [m for each in (student, teacher) for m in (*each.encoder, *each.decoder, each.logits)]
                assert all(m.dtype == torch.float32 for m in maps) and not torch.is_autocast_enabled("cpu")
                assert all(d is e for d, e in zip(student.decoder, student.encoder[3::-1], strict=True))
                return {"seen": torch.ones(())}

        student, teacher = (TinyNetwork(*shape, classes=2) for shape in PAIRS["as resnet_18 and raunet"])
        task = Distiller(student, NetworkTeacher(teacher), FeatureChecker(student.channels, teacher.channels))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert student.features(random_batch().image).encoder[0].dtype == torch.bfloat16
            assert task(random_batch())["seen"] == 1

    def test_networks_of_different_classes(self) -> None:
        student, teacher = SmallNetwork(3), SmallNetwork(2)
        with pytest.raises(UserError, match="the teacher has 2 classes, the student 3"):
            Distiller(student, NetworkTeacher(teacher), make_method("at", student.channels, teacher.channels))

    def test_is_observed_in_training_with_the_steps_number(self) -> None:
        seen = []
        plain = tiny_distiller("skd", "unequal")
        task = Distiller(plain.network, plain.teacher, plain.method, observe=lambda *values: seen.append(values))
        for step in (0, 7):
            task.before_step(step, 10)
            terms = task.train()(random_batch())
        task.eval()(random_batch())
        assert [(step, network) for step, _, network in seen] == [(0, task.network), (7, task.network)]
        assert seen[-1][1] == {name: value for name, value in terms.items() if name != "loss"}


@pytest.mark.parametrize("network", ["raunet", "resnet_18"])
def test_same_level_terms_of_a_real_network_and_its_copy_are_exactly_0(network: str) -> None:
    """With batch norm, in eval mode."""
    teacher = build(network, classes=2)
    method = make_method("skd at deep", teacher.channels, teacher.channels)
    terms = Distiller(deepcopy(teacher), NetworkTeacher(teacher), method).eval()(random_batch())
    taught = [value.item() for term, value in terms.items() if term not in ("focal", "dice", "loss")]
    assert len(taught) == 2 + 1 + 10 and not any(taught)


@pytest.mark.parametrize(
    ("schedule", "weights"),
    [("constant", (1, 1, 1)), ("warmup", (0, 0.5, 1)), ("decay", (1, 0.875, 0))],
)
def test_a_schedule_scales_the_distillation_alone(schedule: str, weights: tuple[float, ...]) -> None:
    plain = tiny_distiller("skd", "unequal")
    task = Distiller(plain.network, plain.teacher, plain.method, schedule=schedule)
    exact = plain(random_batch())
    for step, weight in zip((0, 1, 8), weights, strict=True):
        task.before_step(step, 8)
        terms = task(random_batch())
        assert terms["dice"].item() == exact["dice"].item()
        assert terms["pmd_logits"].item() == pytest.approx(weight * exact["pmd_logits"].item())
    assert set(SCHEDULES) == {"constant", "warmup", "decay"}


def test_slices_without_a_mask_get_the_teachers() -> None:
    batch = random_batch()
    mask = batch.mask.clone()
    mask[1] = UNLABELLED
    logits = torch.randn(2, 3, *mask.shape[1:])
    filled = with_teachers_masks(batch._replace(mask=mask), logits).mask
    assert torch.equal(filled[0], batch.mask[0])
    assert torch.equal(filled[1].long(), logits[1].argmax(dim=0))


def test_tiny_teachers_are_frozen() -> None:
    network = teacher_network(tiny_distiller("kd", "unequal"))
    assert not any(parameter.requires_grad for parameter in network.parameters()) and not network.training


def test_a_stage_that_is_first_taken_without_gradients_still_has_one() -> None:
    maps = torch.ones(1, 2, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    features = in_float32(Features([maps] * 5, [maps] * 4, maps), True)
    with torch.no_grad():
        assert features.stage("e3").dtype == torch.float32
    features.stage("e3").sum().backward()
    assert maps.grad is not None and maps.grad.any()


def test_only_stages_that_are_taken_are_converted() -> None:
    taken: list[str] = []

    class Maps(torch.Tensor):
        def float(self) -> torch.Tensor:
            taken.append(str(int(self.flatten()[0])))
            return super().float().as_subclass(torch.Tensor)

    stages = [torch.full((1, 1, 2, 2), float(i)).as_subclass(Maps) for i in range(10)]
    features = in_float32(Features(stages[:5], stages[5:9], stages[9]), True)
    assert features.stage("e2") is features.stage("e2") and features.decoder[1:3][0] is features.stage("d4")
    assert sorted(taken) == ["1", "6", "9"]
    assert [int(maps.flatten()[0]) for maps in features.encoder] == [0, 1, 2, 3, 4]
