"""What must hold on a GPU before its times mean anything."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import torch

from datasets.augment import AUGMENTS
from datasets.loader import CPU, SliceDataset, TrainingLoader
from distillation import METHODS, parse_method, suits
from engine.device import Precision
from engine.export.export import export
from engine.export.fold import differs_by
from engine.export.options import ExportOptions, Int8Options
from engine.gpu_check.setting import Row, Setting
from engine.options import DistillationOptions
from engine.segmenter import Segmenter
from engine.training.cache import make_cache
from engine.training.health import NotFinite
from engine.training.run import make_trainer, new_segmenter
from engine.training.timed_step import TimedStep
from engine.training.trainer import Trainer
from utils.batch import Batch

TOLERANCES = {"bf16": 0.05, "fp16": 0.01}
"""Of logits, in shares of the largest: some ten times the rounding of a value."""
STEPS = 4
HUGE_SCALE = 2.0**100
"""Of fp16's gradients, which overflow then."""


def amp(setting: Setting) -> list[Row]:
    """Logits in mixed precision against those in float32."""
    rows = []
    for model in ("raunet", "resnet_18"):
        torch.manual_seed(0)
        network = new_segmenter(setting.run("amp", model, "off"), setting.slices)[0].network.to(setting.device).eval()
        image = torch.rand(2, 1, setting.size, setting.size, device=setting.device) * 2 - 1
        with torch.no_grad():
            expected = network(image)
            for name in setting.amps:
                with Precision(name, setting.device).autocast():
                    difference = differs_by(network(image).float(), expected)
                found = f"logits within {difference:.2g} of the largest (at most {TOLERANCES[name]:g})"
                right = difference <= TOLERANCES[name]
                rows.append(Row.check(f"{model} in {name} as in float32", right, found, difference=difference))
    return rows


def scaler(setting: Setting) -> list[Row]:
    """A step whose gradients overflow in fp16 is skipped, and the next scale is smaller."""
    name = "an overflow in fp16 skips its step"
    if "fp16" not in setting.amps:
        return [Row.skipped(name)]
    timed = TimedStep(setting.run("scaler", "resnet_18", "fp16"))
    trainer = timed.trainer
    timed()
    trainer.settle()  # Or it would be judged with the step after it.
    # Not the running statistics, which a forward pass moves whatever becomes of its gradients.
    before, overflows = [each.detach().clone() for each in trainer.task.parameters()], trainer.progress.overflows
    trainer.precision.scaler.update(HUGE_SCALE)
    timed()
    trainer.settle()
    kept = all(torch.equal(one, other) for one, other in zip(before, trainer.task.parameters(), strict=True))
    scale = trainer.precision.scaler.get_scale()
    right = kept and trainer.progress.overflows == overflows + 1 and scale < HUGE_SCALE
    return [Row.check(name, right, f"weights {'kept' if kept else 'changed'}, scale {scale / HUGE_SCALE:g} of before")]


def determinism(setting: Setting) -> list[Row]:
    """Two trainings with --deterministic end with the same weights."""
    rows = []
    for model in ("raunet", "resnet_18"):
        run = setting.run("determinism", model, setting.amp, deterministic=True)
        ends = []
        for _ in range(2):
            trainer = make_trainer(run, with_contents=False)
            trainer.task.train()
            with trainer.repeatably():
                for batch in trainer.loader.between(0, STEPS):
                    trainer.step(batch)
                trainer.settle()
            ends.append(weights(trainer))
        equal = all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
        rows.append(Row.check(f"{model} twice with --deterministic", equal, "equal" if equal else "weights differ"))
    return rows


def resume(setting: Setting) -> list[Row]:
    """A training that is interrupted and resumed ends as one that is not."""
    ends = []
    for name, stop in (("whole", 0), ("parts", STEPS // 2)):
        run = setting.run(
            f"resume_{name}",
            "resnet_18",
            setting.amp,
            cache="device",
            steps=STEPS,
            val_every=STEPS,
            deterministic=True,
        )
        if stop:
            trainer = make_trainer(run, with_contents=False)
            interrupt_after(trainer, stop)
            with trainer.repeatably(), suppress(KeyboardInterrupt):
                trainer.fit()
            run = replace(run, training=replace(run.training, resume=True))
        trainer = make_trainer(run, with_contents=False)
        begun = trainer.progress.step
        with trainer.repeatably():
            trainer.fit()
        ends.append(weights(trainer))
    equal = begun == STEPS // 2 and all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
    found = f"resumed at step {begun} of {STEPS}, weights {'equal' if equal else 'differ'}"
    return [Row.check("resumed as uninterrupted", equal, found)]


def methods(setting: Setting) -> list[Row]:
    """A step of every method, in every mixed precision, leaves finite weights."""
    torch.manual_seed(0)
    teacher: Segmenter = new_segmenter(setting.run("teacher", "unet_r18", "off"), setting.slices)[0]
    teacher.network.to(setting.device).eval()
    rows = []
    for name in METHODS:
        spec = parse_method(name)
        if not suits(spec, teacher.network.channels):
            rows.append(Row.skipped(f"a step of {name}", "is for another kind of teacher"))
            continue
        distillation = DistillationOptions(setting.scratch / "teacher.ckpt", methods=(spec,))
        for precision in setting.amps:
            timed = TimedStep(setting.run("methods", "resnet_18", precision, distillation=distillation), teacher)
            rows.append(Row.check(f"a step of {name} in {precision}", *finite_step(timed)))
    return rows


def finite_step(timed: TimedStep) -> tuple[bool, str]:
    """Whether a step can be taken and leaves finite weights, and what was found.

    fp16's first scale may be too large, as in any training: the step is tried again until it is taken, or `NotFinite`.
    """
    trainer, tried = timed.trainer, 0
    try:
        while trainer.progress.overflows == tried:
            timed()
            trainer.settle()
            tried += 1
    except NotFinite as error:
        return False, str(error)
    finite = all(bool(value.isfinite().all()) for value in weights(trainer))
    return finite, f"{'finite' if finite else 'weights not finite'}, overflows before it: {trainer.progress.overflows}"


def cache(setting: Setting) -> list[Row]:
    """Batches from the device's memory against those from disk, and, without noise, against a CPU's."""
    rows = []
    segmenter, _ = new_segmenter(setting.run("cache", "resnet_18", "off"), setting.slices)
    for augment in AUGMENTS:
        dataset = SliceDataset(setting.slices, setting.slices.train, segmenter.frame, augment)
        disk = batches(TrainingLoader(dataset, 2, 0, device=setting.device))
        kept = make_cache("device", dataset, setting.device)
        cached = batches(TrainingLoader(dataset, 2, 0, device=setting.device, cache=kept))
        equal = same(disk, cached)
        found = "equal" if equal else "batches differ"
        rows.append(Row.check(f"{augment}: device cache as none", equal, found))
        if augment in ("none", "paper") and setting.on_gpu:
            equal = same(disk, batches(TrainingLoader(dataset, 2, 0)))
            found = "equal" if equal else "batches differ"
            rows.append(Row.check(f"{augment}: as on a CPU", equal, found))
    return rows


def exporting(setting: Setting) -> list[Row]:
    """A network that was trained on the device, as ONNX, against PyTorch; `export` fails where they differ."""
    trainer = make_trainer(setting.run("export", "resnet_18", setting.amp, steps=1, val_every=1), with_contents=False)
    trainer.fit()
    files = export(ExportOptions(trainer.folder.best, setting.scratch / "exported", ("onnx",)), Int8Options())
    return [Row.check("exported as trained", bool(files), "checked by the export itself")]


def weights(trainer: Trainer) -> list[torch.Tensor]:
    """Copies of what the task has learnt, and of its running statistics."""
    return [value.detach().clone() for value in trainer.task.state_dict().values() if isinstance(value, torch.Tensor)]


def interrupt_after(trainer: Trainer, steps: int) -> None:
    """Let the trainer stop, as on Ctrl-C, after so many steps."""
    step = trainer.step

    def counted(batch: Batch) -> dict[str, torch.Tensor]:
        trainer.interruption.requested = trainer.progress.step + 1 == steps
        return step(batch)

    trainer.step = counted  # type: ignore[method-assign]


def batches(loader: TrainingLoader) -> list[Batch]:
    """The first steps'."""
    return [batch.to(CPU) for batch in loader.between(0, min(STEPS, loader.steps_per_epoch))]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask) and a.cases == b.cases
        for a, b in zip(one, other, strict=True)
    )
