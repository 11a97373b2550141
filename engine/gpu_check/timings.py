"""How fast training is on a device: beside the published way, beside what the device can do, and how long it idles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from time import perf_counter
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from distillation import parse_method
from engine.cost import measure_in_turns, parameters_and_macs
from engine.device import choose_workers
from engine.gpu_check.published import Published, loaded
from engine.gpu_check.setting import BATCHES, Row, Setting
from engine.options import DistillationOptions
from engine.segmenter import Segmenter
from engine.training.run import make_trainer, new_segmenter
from engine.training.timed_step import BASELINE, TimedStep, steps_beside_baseline
from engine.training.trainer import Trainer
from utils.batch import Batch

MODEL, STUDENT, U_NET = "raunet", "resnet_18", "unet"
BACKWARD = 3
"""A step takes the operations of a forward pass so many times."""
FASTER = 2.5
HLFD_COST = 1.15
IDLE = 0.02
PUBLISHED_RATE = 856
"""Images a second: a 2D U-Net at 192 x 160, in training with mixed precision on an A100."""
PUBLISHED_SIZE = (192, 160)


def speed(setting: Setting, batch: int) -> list[Row]:
    """Slices a second in training, of ours and of the published way, and the share of the peak of matrix products.

    batch: of `BATCHES`.
    """
    batch_size = setting.batch(batch)
    run = setting.run(f"speed_{batch_size}", MODEL, setting.amp, batch_size, augment="paper", cache="device")
    trainer = make_trainer(run, with_contents=False)
    dataset = trainer.loader.dataset
    for _ in trainer.loader:  # Into the cache.
        pass
    published = Published(MODEL, trainer.segmenter.label_map.num_classes, setting.device)
    workers = 0 if setting.short else max(1, choose_workers(None))
    batches = loaded(dataset, batch_size, workers)
    kept = next(batches).to(setting.device)
    rates = {
        "as published": rate(setting, published, batches),
        "as published, on one batch that is on the device": rate(setting, published, repeat(kept)),
        "ours": rate(setting, *ours(trainer)),
    }
    if setting.on_gpu:
        for name, mode in (("ours, compiled", "default"), ("ours, as CUDA graphs", "reduce-overhead")):
            compiled = make_trainer(run, with_contents=False)
            compiled.task.network.compile(mode=mode)
            rates[name] = rate(setting, *ours(compiled))
    _, macs = parameters_and_macs(trainer.segmenter.network, setting.size)
    peak = matrix_peak(setting)
    base = rates["as published"]
    rows = []
    for name, found in rates.items():
        share = 2 * BACKWARD * macs * found / peak
        text = f"{found:.1f} slices/s, x {found / base:.2f}, {share:.1%} of the peak"
        figures = {"slices_per_second": found, "ratio": found / base, "share_of_peak": share}
        rows.append(Row.measured(f"{MODEL} at {setting.size}, batch {batch_size}, {name}", text, **figures))
    aim = rates["ours"] / base
    text = f"x {aim:.2f} (aim: {FASTER:g})"
    rows.append(aimed(setting, f"batch {batch_size}: ours beside the published way", aim >= FASTER, text, ratio=aim))
    return rows


def hlfd(setting: Setting) -> list[Row]:
    """A step of HLFD beside the teacher's forward pass and the student's step."""
    teacher: Segmenter = new_segmenter(setting.run("teacher", MODEL, "off"), setting.slices)[0]
    teacher.network.to(setting.device).eval()
    rows = []
    for batch_size in map(setting.batch, BATCHES):
        run = setting.run("hlfd", STUDENT, setting.amp, batch_size)
        distillation = DistillationOptions(setting.scratch / "teacher.ckpt", methods=(parse_method("hlfd"),))
        steps = steps_beside_baseline(run, setting.size, teacher, {"hlfd": distillation})
        costs = measure_in_turns(steps, 2 if setting.short else 20, setting.device, untimed=1 if setting.short else 5)
        ratio = costs["hlfd"].median / costs[BASELINE].median
        found = f"{1000 * costs['hlfd'].median:.1f} ms, x {ratio:.3f} (aim: {HLFD_COST:g})"
        name = f"HLFD's step at batch {batch_size}, beside {BASELINE}"
        rows.append(aimed(setting, name, ratio <= HLFD_COST, found, ratio=ratio, seconds=costs["hlfd"].median))
    return rows


def unet(setting: Setting) -> list[Row]:
    """A 2D U-Net at the size of the one published figure of training speed."""
    height, width = (32, 16) if setting.short else PUBLISHED_SIZE
    rows = []
    for batch_size in map(setting.batch, (16, 64)):
        timed = TimedStep(setting.run("unet", U_NET, setting.amp))
        image = torch.rand(batch_size, 1, height, width, device=setting.device) * 2 - 1
        mask = (image[:, 0] > 0).to(torch.uint8)
        batch = Batch(image, mask, ["noise"] * batch_size)
        found = rate(setting, timed.trainer.step, repeat(batch))
        _, macs = parameters_and_macs(timed.trainer.segmenter.network, setting.size)
        per_slice = macs * height * width / setting.size**2
        text = f"{found:.0f} images/s; published: {PUBLISHED_RATE}; ours takes {per_slice / 1e9:.1f} GMACs an image"
        name = f"U-Net at {height} x {width}, batch {batch_size}"
        rows.append(Row.measured(name, text, images_per_second=found, gmacs=per_slice / 1e9))
    return rows


def idle(setting: Setting) -> list[Row]:
    """The share of the time in which the device computes nothing, while it trains from its own memory."""
    name = "idle in training with the device cache"
    if not setting.on_gpu:
        return [Row.skipped(name)]
    rows = []
    for augment in ("paper", "mild"):
        run = setting.run("idle", MODEL, setting.amp, 16, augment=augment, cache="device")
        trainer = make_trainer(run, with_contents=False)
        step, batches = ours(trainer)
        rate(setting, step, batches)
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            take(step, batches, 20)
            torch.cuda.synchronize(setting.device)
        share = idle_share(recorded.events())
        rows.append(aimed(setting, f"{name}, {augment}", share <= IDLE, f"{share:.1%} (aim: {IDLE:.0%})", share=share))
    return rows


def aimed(setting: Setting, name: str, reached: bool, found: str, **figures: float) -> Row:
    """A check of a speed; on a CPU, or with tiny sizes, no more than a figure."""
    if setting.on_gpu and not setting.short:
        return Row.check(name, reached, found, **figures)
    return Row.measured(name, found, **figures)


def ours(trainer: Trainer) -> tuple[Callable[[Batch], object], Iterator[Batch]]:
    """A trainer's step and its batches without end."""
    trainer.task.train()
    return trainer.step, trainer.loader.between(0, 2**31)


def take(step: Callable[[Batch], object], batches: Iterator[Batch], count: int) -> int:
    """So many steps; the slices that they took."""
    slices = 0
    for _ in range(count):
        batch = next(batches)
        step(batch)
        slices += batch.slices
    return slices


def rate(setting: Setting, step: Callable[[Batch], object], batches: Iterator[Batch]) -> float:
    """Slices a second, loading included, after steps that are not timed."""
    untimed, timed = (1, 2) if setting.short else (5, 30)
    take(step, batches, untimed)
    finish(setting)
    start = perf_counter()
    slices = take(step, batches, timed)
    finish(setting)
    return slices / (perf_counter() - start)


def finish(setting: Setting) -> None:
    if setting.device.type != "cpu":
        torch.accelerator.synchronize(setting.device)


def matrix_peak(setting: Setting) -> float:
    """Operations a second of the largest product of square matrices, in bf16 on a GPU, in float32 elsewhere."""
    side, dtype = (8192, torch.bfloat16) if setting.on_gpu and not setting.short else (512, torch.float32)
    one, other = (torch.randn(side, side, device=setting.device, dtype=dtype) for _ in range(2))
    cost = measure_in_turns({"product": lambda: one @ other}, 20, setting.device, untimed=5)["product"]
    return 2 * side**3 / min(cost.seconds)


def idle_share(events: Any) -> float:
    """Of the time from the first kernel to the last, what no kernel or copy covers."""
    spans = sorted(
        (event.time_range.start, event.time_range.end) for event in events if event.device_type == DeviceType.CUDA
    )
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return float(1 - busy / (reached - spans[0][0]))
