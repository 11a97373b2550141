"""What terms pull at a network, weights that balance them, and their schedule over the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distillation import build_method
from distillation.balance import EVERY, GradientBalance
from distillation.gradients import gradient_norms, stage_groups
from distillation.task import SCHEDULES, Distiller, with_teachers_masks
from engine.training.term_recorder import TermRecorder, read_records
from tests.contracts.methods import random_batch, tiny_distiller
from tests.golden.features import TinyNetwork
from utils.batch import UNLABELLED
from utils.errors import UserError

TASK = ("focal", "dice", "loss")


def pulls(task: Distiller) -> dict[str, float]:
    """The gradient's norm on the student, of the segmentation loss and of each other term."""
    terms = task(random_batch())
    segmentation = terms["focal"] + terms["dice"]
    taught = {term: value for term, value in terms.items() if term not in TASK}
    student = [p for p in task.network.parameters() if p.requires_grad]
    norms = gradient_norms({"segmentation": segmentation, **taught}, {"all": student})
    return {term: float(of["all"]) for term, of in norms.items()}


def test_gradient_norms_are_those_of_hand_made_gradients() -> None:
    a, b = torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor(3.0))
    terms = {"square": a.square().sum(), "product": 2 * a[0] * b, "constant": torch.ones(())}
    norms = gradient_norms(terms, {"a": [a], "b": [b], "both": [a, b]})
    assert float(norms["square"]["a"]) == pytest.approx(20**0.5)
    assert float(norms["square"]["b"]) == 0
    assert float(norms["product"]["both"]) == pytest.approx((6**2 + 2**2) ** 0.5)
    assert all(float(norm) == 0 for norm in norms["constant"].values())
    assert a.grad is None and b.grad is None


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 50.0])
def test_half_precision_hides_no_gradient(factor: float) -> None:
    draw = torch.Generator().manual_seed(0)
    image, weight = torch.rand(2, 3, 8, 8, generator=draw), torch.nn.Parameter(torch.rand(4, 3, 1, 1, generator=draw))

    def norm() -> float:
        term = factor * torch.nn.functional.conv2d(image, weight).float().square().mean()
        return float(gradient_norms({"term": term}, {"all": [weight]})["term"]["all"])

    exact = norm()
    with torch.autocast("cpu", dtype=torch.float16):
        assert norm() == pytest.approx(exact, rel=0.02)


def test_stages_hold_every_trained_parameter_once() -> None:
    network = TinyNetwork((3, 4, 5, 6, 7), (6, 5, 4, 3), first_stride=2, classes=2)
    groups = stage_groups(network)
    assert list(groups) == [*(f"down.{i}" for i in range(5)), *(f"up.{i}" for i in range(4)), "head"]
    assert sum(map(len, groups.values())) == len(list(network.parameters()))


class TestGradientBalance:
    def task(self, share: float = 0.4) -> Distiller:
        plain = tiny_distiller("hlfd", "unequal")
        return Distiller(plain.network, plain.teacher, plain.method, balance=share)

    def test_every_term_pulls_alike_and_together_by_the_share(self) -> None:
        norms = pulls(self.task(share=0.4))
        segmentation = norms.pop("segmentation")
        assert len(norms) == 8
        assert all(norm == pytest.approx(0.4 * segmentation / 8, rel=1e-3) for norm in norms.values())

    def test_measures_now_and_then_and_not_in_evaluation(self) -> None:
        task = self.task()
        task(random_batch())
        first = dict(task.balance.scales)
        with torch.no_grad():
            for parameter in task.network.parameters():
                parameter.mul_(1.5)
        for _ in range(EVERY - 1):
            task(random_batch())
        task.eval()(random_batch())
        assert task.balance.scales == first
        task.train()(random_batch())
        assert task.balance.scales != first

    def test_weights_survive_a_restart(self) -> None:
        task, other = self.task(), self.task()
        task(random_batch())
        other.load_state_dict(task.state_dict())
        assert (other.balance.steps, other.balance.scales) == (1, task.balance.scales)

    def test_a_satisfied_term_is_not_blown_up_without_end(self) -> None:
        weight = torch.nn.Parameter(torch.ones(()))
        balanced = GradientBalance(1.0)({"seg": weight}, {"little": 1e-9 * weight}, [weight])
        assert float(balanced["little"].detach()) == pytest.approx(1e-6)

    def test_a_measurement_that_overflows_is_left_out(self) -> None:
        weight = torch.nn.Parameter(torch.ones(()))
        balance = GradientBalance(1.0)
        for segmentation, term in ((2, 4), (2, torch.inf), (torch.inf, 4), (torch.nan, torch.nan)):
            balance.steps = 0
            balance({"seg": segmentation * weight}, {"term": term * weight}, [weight])
            assert balance.scales == {"term": 0.5}

    def test_terms_that_do_not_reach_the_student_stay_and_do_not_count(self) -> None:
        weight, other = torch.nn.Parameter(torch.ones(())), torch.nn.Parameter(torch.ones(()))
        terms = {"reaching": 5 * weight, "own": 3 * other}
        balanced = GradientBalance(0.5)({"seg": 2 * weight}, terms, [weight])
        assert {term: float(value.detach()) for term, value in balanced.items()} == {"reaching": 1, "own": 3}

    def test_the_equation_tells(self) -> None:
        assert "balanced to 0.4 (0.1 (" in self.task().equation()


@pytest.mark.parametrize(
    ("schedule", "weights"),
    [("constant", (1, 1, 1)), ("warmup", (0, 0.5, 1)), ("decay", (1, 0.875, 0))],
)
def test_a_schedule_scales_the_distillation_alone(schedule: str, weights: tuple[float, ...]) -> None:
    plain = tiny_distiller("skd", "unequal")
    task = Distiller(plain.network, plain.teacher, plain.method, schedule=schedule)
    exact = plain(random_batch())
    for done, weight in zip((0.0, 0.125, 1.0), weights, strict=True):
        task.set_progress(done)
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


def test_recorder_writes_values_and_gradients_every_few_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student, teacher = (TinyNetwork((3, 4, 5, 6, 7), (), 2, classes=2) for _ in range(2))
    task = Distiller(student, teacher, build_method(["skd"], student.channels, teacher.channels))
    task.observe = TermRecorder(tmp_path / "run" / "terms.jsonl", every=2)
    terms = [task(random_batch()) for _ in range(3)][-1]
    task.eval()(random_batch())
    records = read_records(tmp_path / "run" / "terms.jsonl")
    assert [record["step"] for record in records] == [0, 2]
    assert records[1]["values"] == {term: value.item() for term, value in terms.items() if term != "loss"}
    assert records[1]["norms"]["imd_e5"]["head"] == 0 < records[1]["norms"]["imd_e5"]["down.0"]


def test_recorder_goes_on_at_a_step_and_drops_what_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "terms.jsonl"
    path.write_text(
        "".join(f'{{"step": {step}, "values": {{}}, "norms": {{}}}}\n' for step in (0, 2, 4)) + '{"step": 6, "v'
    )
    assert [record["step"] for record in read_records(path)] == [0, 2, 4]
    recorder, weight = TermRecorder(path, every=2, step=3), torch.nn.Linear(1, 1)
    for _ in range(4):
        recorder({"term": weight(torch.ones(1)).sum()}, weight)
    assert [record["step"] for record in read_records(path)] == [0, 2, 4, 6]
    assert [bool(record["values"]) for record in read_records(path)] == [False, False, True, True]
    TermRecorder(path, every=2)
    assert read_records(path) == []


def test_records_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "terms.jsonl"
    path.write_text('{"step": 0, "val\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"terms\.jsonl: is not what train_kd\.py --record_terms writes"):
        read_records(path)
