"""The contract that every distillation method's test subclasses, on tiny networks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import ClassVar

import pytest
import torch

from distillation import parse_method, suits
from distillation.distiller import Distiller
from distillation.method import Method
from distillation.segmentation_loss import segmentation_loss
from distillation.teacher import AnswersInBatch, NetworkTeacher, Teacher, network_teacher
from networks.contract import STAGES, Features
from tests.golden.features import TEACHER, random_batch
from tests.small import TinyNetwork, TinyVolume, make_method
from utils.batch import Batch
from utils.errors import UserError

# Encoder and decoder channels and first stride of a student, then of a teacher.
PAIRS = {
    "as resnet_18 and raunet": (((4, 4, 5, 6, 7), (), 2), ((4, 4, 5, 6, 7), (6, 5, 4, 4), 2)),
    "unequal": (((3, 4, 5, 6, 7), (6, 5, 4, 3), 2), ((4, 6, 5, 8, 9), (8, 6, 4, 3), 1)),
}
HALF = (torch.bfloat16, torch.float16)
TASK_TERMS = ("focal", "dice", "loss")


def tiny_distiller(method: str, pair: str, classes: int = 2) -> Distiller:
    """A task that is ready for its first step; its teacher is volumetric where the method needs that."""
    torch.manual_seed(0)
    kind = TinyNetwork if suits(parse_method(method), TEACHER) else TinyVolume
    student, teacher = (make(*shape, classes) for make, shape in zip((TinyNetwork, kind), PAIRS[pair], strict=True))
    task = Distiller(student, network_teacher(teacher), make_method(method, student.channels, teacher.channels))
    task.prepare([random_batch(classes, block=teacher.block)])
    return task


def teacher_network(task: Distiller) -> TinyNetwork:
    assert isinstance(task.teacher, NetworkTeacher) and isinstance(task.teacher.network, TinyNetwork)
    return task.teacher.network


def seeded_terms(task: Distiller, classes: int = 2, images: int = 2) -> dict[str, torch.Tensor]:
    """The terms on one batch; a method's random draws are the same each time."""
    torch.manual_seed(1)
    return task(random_batch(classes, images, block=task.teacher.channels.block))


def gradients(terms: Iterable[torch.Tensor], network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Of the terms' sum, for each parameter of the network; zeros where it does not reach. The graph is kept."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    total = torch.stack(list(terms)).sum()
    found = torch.autograd.grad(total, parameters, retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def own_terms(terms: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Those that come from the method."""
    return [value for term, value in terms.items() if term not in TASK_TERMS]


class ChangedTeacher:
    """A teacher with other stages, or with another number added to all logits of each pixel."""

    needs_stored = False

    def __init__(self, teacher: Teacher, stages: float, added: float) -> None:
        self.teacher, self.stages, self.added, self.channels = teacher, stages, added, teacher.channels

    def features(self, batch: Batch) -> Features:
        return self._changed(self.teacher.features(batch))

    def _changed(self, features: Features) -> Features:
        encoder, decoder, logits, block = features
        draw = torch.Generator().manual_seed(3)
        added = self.added * torch.randn(len(logits), 1, *logits.shape[2:], generator=draw)
        stages = (self._mixed(encoder), self._mixed(decoder))
        return Features(*stages, logits + added, None if block is None else self._changed(block))

    def _mixed(self, stages: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(maps + self.stages * maps.roll((1, 1), dims=(1, -1)) for maps in stages)


class MethodContract:
    """What training relies on, on tiny networks; a method's test names it."""

    name: str
    same_level = False
    """Whether it teaches nothing to a copy of the teacher."""
    minimum: ClassVar[Mapping[str, float]] = {}
    """Terms that have another value than 0 for a copy of the teacher, where the documentation says so."""
    images = 2
    """How many images a batch has; some methods need more than others to teach anything."""
    half_tolerance = 0.05
    """The relative difference that half precision in the networks may make to the loss."""
    rounding = 1e-6
    """How far from 0 the terms for a copy of the teacher may be, relative to the largest one for another student."""
    steepness = 1.0
    """What the tiny teacher's logits are multiplied by, where a method needs them to vary to say anything at all."""

    def make_identity(self, method: Method) -> None:
        """Sets what the method has learned to the identity, for a student that is a copy of its teacher."""

    def learner(self, pair: str) -> Distiller:
        """A task in which everything learns; overridden where two classes or a method's initial values prevent it."""
        return tiny_distiller(self.name, pair)

    @pytest.mark.parametrize("classes", [2, 3])
    @pytest.mark.parametrize("pair", PAIRS)
    def test_loss_is_the_sum_of_its_terms_also_under_autocast(self, pair: str, classes: int) -> None:
        task = tiny_distiller(self.name, pair, classes)
        exact = seeded_terms(task, classes, self.images)
        for dtype in HALF:
            with torch.autocast("cpu", dtype=dtype):
                half = seeded_terms(task, classes, self.images)
            for terms in (exact, half):
                assert all(value.shape == () and value.dtype == torch.float32 for value in terms.values())
                assert list(terms)[:2] == ["focal", "dice"] and len(terms) > 3
                total = sum(value.item() for term, value in terms.items() if term != "loss")
                assert terms["loss"].item() == pytest.approx(total, rel=1e-5)
            assert half["loss"].item() == pytest.approx(exact["loss"].item(), rel=self.half_tolerance)

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    @pytest.mark.parametrize("pair", PAIRS)
    def test_its_terms_teach_the_student_and_what_it_learns_itself_alone(self, pair: str, dtype: torch.dtype) -> None:
        task = self.learner(pair)
        teacher_network(task).requires_grad_(True)
        with torch.autocast("cpu", dtype=dtype):
            terms = seeded_terms(task, images=self.images)
        torch.stack(own_terms(terms)).sum().backward()
        assert all(parameter.grad is None for parameter in teacher_network(task).parameters())
        learners = [task.network.down[0].weight, *(p for p in task.method.parameters() if p.requires_grad)]
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in learners)

    @pytest.mark.parametrize("pair", PAIRS)
    def test_its_gradient_adds_to_that_of_the_masks_in_every_parameter(self, pair: str) -> None:
        """The masks' gradient comes from a pass of its own; nothing that it trains is left without."""
        task = self.learner(pair)
        classes = task.network.classes
        terms, batch = seeded_terms(task, classes, self.images), random_batch(classes, self.images)
        masks = segmentation_loss(task.network(batch.image), batch.mask, task.method.focal_detached)
        supervised, own, total = (
            gradients(values, task.network) for values in (masks.values(), own_terms(terms), [terms["loss"]])
        )
        # What a method's invariance cancels in one parameter has the rounding of the others.
        rounding = 2e-5 * max(supervised[name].norm() + own[name].norm() for name in total)
        for name, gradient in total.items():
            assert (gradient - supervised[name] - own[name]).norm() <= rounding, name
            assert gradient.any() or not supervised[name].any(), name

    def test_its_state_holds_all_that_it_learns(self) -> None:
        task = tiny_distiller(self.name, "unequal")
        fresh = make_method(self.name, task.network.channels, task.teacher.channels)
        other = Distiller(deepcopy(task.network), task.teacher, fresh)
        other.load_extra_state(task.network.state_dict(), task.extra_state())
        assert seeded_terms(other, images=self.images) == seeded_terms(task, images=self.images)

    @pytest.mark.parametrize("dead", [("student",), ("teacher",), ("student", "teacher")])
    def test_maps_of_zeros_give_finite_losses_and_gradients(self, dead: tuple[str, ...]) -> None:
        task = tiny_distiller(self.name, "unequal")
        networks = {"student": task.network, "teacher": teacher_network(task)}
        for name in dead:
            for parameter in networks[name].parameters():
                torch.nn.init.zeros_(parameter)
        loss = seeded_terms(task, images=self.images)["loss"]
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())

    def test_only_same_level_methods_teach_nothing_to_a_copy_of_the_teacher(self) -> None:
        other = tiny_distiller(self.name, "unequal")
        teacher = teacher_network(other)
        method = make_method(self.name, teacher.channels, teacher.channels)
        task = Distiller(deepcopy(teacher), NetworkTeacher(teacher), method).eval()
        task.prepare([random_batch()])
        self.make_identity(method)
        scale = max(abs(value.item()) for value in own_terms(seeded_terms(other, images=self.images)))
        terms = seeded_terms(task, images=self.images)
        values = {term: value.item() for term, value in terms.items() if term not in TASK_TERMS}
        minimum = {term: pytest.approx(self.minimum.get(term, 0), abs=self.rounding * scale) for term in values}
        assert (values == minimum) == self.same_level

    def with_steep_logits(self, task: Distiller) -> Distiller:
        with torch.no_grad():
            for parameter in teacher_network(task).head.parameters():
                parameter *= self.steepness
        return task

    @pytest.mark.parametrize("classes", [2, 3])
    def test_it_learns_the_same_from_answers_on_disk_or_refuses_them(self, classes: int) -> None:
        online = self.with_steep_logits(tiny_distiller(self.name, "unequal", classes))
        answers = AnswersInBatch(classes)
        if online.method.needs != "probabilities":
            with pytest.raises(UserError, match=f"{self.name}: .*answers on disk.*choose one of kd, "):
                make_method(self.name, online.network.channels, answers.channels)
            return
        batch = random_batch(classes, self.images)
        probabilities = online.teacher.features(batch).logits.log_softmax(dim=1)
        method = make_method(self.name, online.network.channels, answers.channels)
        stored = Distiller(online.network, answers, method)
        with pytest.raises(AssertionError, match="no answers"):
            stored(batch)
        terms, expected = stored(batch._replace(answers=probabilities)), online(batch)
        assert terms.keys() == expected.keys()
        assert all(abs(terms[term].item() - expected[term].item()) <= 1e-5 for term in terms)
        found, wanted = (gradients([values["loss"]], online.network) for values in (terms, expected))
        assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)

    def test_what_it_needs_of_a_teacher_is_what_it_sees(self) -> None:
        task = self.with_steep_logits(tiny_distiller(self.name, "unequal", 3))

        def sees(stages: float, added: float) -> bool:
            terms = []
            for teacher in (task.teacher, ChangedTeacher(task.teacher, stages, added)):
                other = Distiller(deepcopy(task.network), teacher, deepcopy(task.method))
                terms.append(torch.stack(own_terms(seeded_terms(other, 3, self.images))))
            return not torch.allclose(*terms, rtol=1e-4, atol=1e-6)

        seen = {"stages": sees(2, 0), "logits": sees(0, 2)}
        assert (
            seen
            == {
                "probabilities": {"stages": False, "logits": False},
                "logits": {"stages": False, "logits": True},
                "stages": {"stages": True, "logits": seen["logits"]},
            }[task.method.needs]
        )

    def test_equation_names_stages_that_exist(self) -> None:
        equation = tiny_distiller(self.name, "unequal").equation()
        assert equation.startswith("loss = 0.5 focal")
        stages = set(re.findall(r"\b[st]_(\w+)", equation))
        assert stages and stages <= set(STAGES)
