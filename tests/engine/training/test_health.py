"""What stops a training, what it leaves then, and what it warns of."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.slices.slice_folder import SliceFolder
from engine.training.schedule import Schedule
from engine.training.trainer import Progress, Trainer
from engine.training.validation import Validation, ValidationScores
from tests.small import equal_states, write_bare_archive
from tests.training import judge_behind, small_trainer, spy_on, stop_after
from utils.batch import Batch
from utils.errors import UserError

SCHEDULE = Schedule(10, 4, 1e-2)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return SliceFolder.open(write_bare_archive(tmp_path_factory.mktemp("slices")), "kits", "tumor")


@pytest.fixture(autouse=True, params=[0, 1], ids=["at_once", "a_step_later"])
def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many steps may be under way when one is judged: as on a CPU, and as on a GPU."""
    judge_behind(monkeypatch, request.param)
    return int(request.param)


def at_step(trainer: Trainer, number: int, act: Callable[[Batch], object]) -> None:
    """Act on the batch of one step, counted from 1."""
    batches: list[Batch] = []

    def see(batch: Batch) -> None:
        batches.append(batch)
        if len(batches) == number:
            act(batch)

    spy_on(trainer, see)


def spoil_image(batch: Batch) -> None:
    batch.image[0, 0, 3, 3] = torch.inf


def spoil_gradients(trainer: Trainer, steps: Collection[int], value: float = torch.inf) -> None:
    """Of the head, in these steps, counted from 1, while the loss stays finite."""
    taken: list[Batch] = []
    spy_on(trainer, taken.append)

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        return torch.full_like(gradient, value) if len(taken) in steps else gradient

    trainer.segmenter.network.head.weight.register_hook(hook)


@pytest.mark.parametrize("kd", [None, "cirkd"])
@pytest.mark.parametrize("spoil", ["image", "gradient"])
def test_a_bad_step_leaves_the_run_as_it_was_before(
    slices: SliceFolder, tmp_path: Path, kd: str | None, spoil: str
) -> None:
    """Running statistics, memories and random numbers too: as in a run that is stopped one step earlier."""
    bad = small_trainer(slices, tmp_path / "bad", kd, SCHEDULE)
    if spoil == "image":
        at_step(bad, 6, spoil_image)
    else:
        spoil_gradients(bad, [6])
    with pytest.raises(UserError, match=r"stopped before step 6 of 10: (loss|gradient) not finite \(focal .*\) on"):
        bad.fit()
    stopped = small_trainer(slices, tmp_path / "stopped", kd, SCHEDULE)
    stop_after(stopped, 5)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    one, other = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("bad", "stopped"))
    assert equal_states(one["weights"], other["weights"]) and equal_states(one["task_state"], other["task_state"])
    assert torch.equal(one["random"]["cpu"], other["random"]["cpu"])
    assert one["progress"]["step"] == 5
    assert all(value.isfinite().all() for value in one["weights"].values())


def test_a_bad_step_is_told_with_terms_cases_and_remedy(slices: SliceFolder, tmp_path: Path) -> None:
    trainer = small_trainer(slices, tmp_path, schedule=SCHEDULE)
    cases: list[str] = []
    at_step(trainer, 6, lambda batch: (spoil_image(batch), cases.extend(batch.cases)))
    with pytest.raises(UserError) as caught:
        trainer.fit()
    message = str(caught.value)
    assert "loss not finite (focal nan, dice nan, loss nan)" in message
    assert f"on slices of {', '.join(sorted(set(cases)))}; " in message
    assert f"--init {tmp_path / 'last.ckpt'} starts from the weights before it" in message and "--lr" in message
    assert "\n" not in message


def test_a_run_that_is_bad_from_the_start_leaves_nothing_bad(slices: SliceFolder, tmp_path: Path) -> None:
    trainer = small_trainer(slices, tmp_path)
    at_step(trainer, 1, spoil_image)
    with pytest.raises(UserError, match="stopped before step 1 of 12"):
        trainer.fit()
    assert not (tmp_path / "best.ckpt").exists()
    for path in tmp_path.glob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["weights"]
        assert all(value.isfinite().all() for value in weights.values())


def test_running_statistics_that_overflow_stop_too(slices: SliceFolder, tmp_path: Path) -> None:
    """A batch norm hides large values from the loss, but would keep their variance."""
    trainer = small_trainer(slices, tmp_path, schedule=SCHEDULE)
    norm = next(m for m in trainer.segmenter.network.modules() if isinstance(m, torch.nn.BatchNorm2d))

    def overflow(*_: object) -> None:
        norm.running_var.data.fill_(torch.inf)  # not seen by autograd

    at_step(trainer, 2, lambda batch: norm.register_forward_hook(overflow))
    with pytest.raises(UserError, match="running statistics not finite"):
        trainer.fit()
    assert torch.isfinite(norm.running_var).all()


def test_fp16_overflows_are_skipped_counted_and_printed(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = small_trainer(slices, tmp_path, schedule=Schedule(6, 3, 1e-2))
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    spoil_gradients(trainer, [1, 5])
    assert trainer.fit().overflows == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.rpartition("slices/s, ")[2] for line in lines] == [
        f"{count} steps skipped as fp16 overflowed" for count in (1, 2)
    ]
    assert all(value.isfinite().all() for value in trainer.task.state_dict().values())


def test_gradients_that_no_scale_makes_finite_stop(slices: SliceFolder, tmp_path: Path) -> None:
    trainer = small_trainer(slices, tmp_path, schedule=SCHEDULE)
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    spoil_gradients(trainer, range(1, 11), torch.nan)
    with pytest.raises(UserError, match="stopped before step 4 of 10: gradient not finite"):
        trainer.fit()


@pytest.mark.parametrize("scale", [None, 4.0])
def test_steps_that_are_judged_later_are_the_same(
    slices: SliceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: int, scale: float | None
) -> None:
    if not behind:
        pytest.skip("the two are compared once")
    runs = []
    for late in (0, 1):
        judge_behind(monkeypatch, late)
        trainer = small_trainer(slices, tmp_path / str(late), "cirkd", SCHEDULE)
        if scale:
            trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            spoil_gradients(trainer, [2])
        trainer.fit()
        runs.append(torch.load(tmp_path / str(late) / "last.ckpt", weights_only=True))
    one, other = runs
    assert equal_states(one["weights"], other["weights"]) and equal_states(one["task_state"], other["task_state"])
    assert one["scaler"] == other["scaler"]
    assert Progress(**one["progress"]) == Progress(**other["progress"])
    for a, b in zip(one["optimizers"], other["optimizers"], strict=True):
        assert all(equal_states(a["state"][key], b["state"][key]) for key in a["state"] | b["state"])


@pytest.mark.parametrize("kd", [None, "hlfd", "dist", "cwd"])
def test_a_step_reads_no_value_but_the_judgement_of_the_one_before(
    slices: SliceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: int, kd: str | None
) -> None:
    """Each would keep the host waiting for a GPU, and that for the host."""
    trainer = small_trainer(slices, tmp_path, kd, SCHEDULE)
    trainer.task.before_step(5, 10)
    batches = iter(trainer.loader)
    trainer.step(next(batches))
    reads: list[str] = []
    for name in ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__"):
        read = getattr(torch.Tensor, name)

        def noted(self: torch.Tensor, *arguments: object, name: str = name, read: Any = read, **options: object) -> Any:
            reads.append(name)
            return read(self, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, noted)
    trainer.step(next(batches))
    assert reads == ["cpu", "tolist"]


@pytest.mark.parametrize(("found", "notes"), [("0001000", 1), ("00100", 0), ("1000000", 1), ("000100000", 1)])
def test_empty_predictions_are_noted_once(
    slices: SliceFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: str,
    notes: int,
) -> None:
    """found: of each validation, whether it finds any foreground."""
    answers = iter(found)
    monkeypatch.setattr(Validation, "__call__", lambda self: ValidationScores(0.1, {}, next(answers) == "1"))
    small_trainer(slices, tmp_path, schedule=Schedule(len(found), 1, 1e-9)).fit()
    lines = [line for line in capsys.readouterr().err.splitlines() if "nothing but background" in line]
    assert len(lines) == notes and all("--lr" in line and "--negatives" in line for line in lines)


def test_a_validation_knows_whether_anything_was_found(slices: SliceFolder, tmp_path: Path) -> None:
    trainer = small_trainer(slices, tmp_path)
    for bias, found in (([0.0, 50.0], True), ([50.0, 0.0], False)):
        trainer.segmenter.network.head.bias.data = torch.tensor(bias)
        assert trainer.validation().found == found
