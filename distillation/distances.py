"""Distances between a student's maps and a teacher's, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from distillation.fourth_powers import sum_of_fourth_powers
from networks.contract import resize


def mean_activity(maps: Tensor, size: Sequence[int]) -> Tensor:
    """How active each pixel is: the mean of x^2 over the channels, then resized, [B, C, h, w] -> [B, H * W]."""
    return resize(maps.square().mean(dim=1, keepdim=True), size).flatten(1)


def attention_map(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Where the channels are active: the mean of x^4 over them, [B, C, h, w] -> [B, H * W] of L2 norm 1.

    The maps are resized to (H, W) before the power. Each sample is divided by its largest absolute value
    first: the norm undoes that (as it undoes the mean's 1 / C), and the power stays finite.
    """
    if size[0] * size[1] < maps.shape[2] * maps.shape[3]:
        maps = resize(maps, size)
    high, low = (extreme(maps.detach(), dim=(1, 2, 3), keepdim=True) for extreme in (torch.amax, torch.amin))
    peak = torch.maximum(high, -low)
    power = sum_of_fourth_powers(maps, size, peak.where(peak > 0, 1))
    return F.normalize(power.flatten(1), dim=1)


def attention_distance(student: Tensor, teacher: Tensor, size: Sequence[int]) -> Tensor:
    """Squared distance of two attention maps, mean over the batch, in [0, 2].

    student, teacher: [B, C, h, w], each with any C, h and w; both are resized to `size`. S. Zagoruyko,
    N. Komodakis: Paying More Attention to Attention, ICLR 2017 (arXiv 1612.03928), with exponent 4.
    """
    return (attention_map(student, size) - attention_map(teacher, size)).square().sum(dim=1).mean()


def channel_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) over channels, mean over batch and pixels.

    student, teacher: [B, C, H, W] of one shape, else ValueError; equal maps give exactly 0. No gradient comes to the
    teacher's. G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network, 2015 (arXiv 1503.02531).
    """
    if student.shape != teacher.shape:
        raise ValueError(f"maps of {tuple(student.shape)} and {tuple(teacher.shape)} have no divergence")
    divergence: Tensor = _ChannelKL.apply(student, teacher, temperature)
    return temperature**2 * divergence


class _ChannelKL(torch.autograd.Function):
    """`softened_kl` over channels, with its gradient softmax(student / T) - softmax(teacher / T) by the student.

    Of one sample after another: on a CPU, writing and reading what autograd keeps takes most of the time.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        gradient, total = torch.empty_like(student), student.new_zeros(())
        at_once = 1 if student.device.type == "cpu" else len(student)
        parts = (each.split(at_once) for each in (student, teacher, gradient))
        for student_part, teacher_part, gradient_part in zip(*parts, strict=True):
            log_p, log_q = (F.log_softmax(scores / temperature, dim=1) for scores in (student_part, teacher_part))
            q = log_q.exp()
            total += (log_q - log_p).mul_(q).sum()
            torch.sub(log_p.exp_(), q, out=gradient_part)
        places = student.numel() / student.shape[1]
        ctx.save_for_backward(gradient)
        ctx.factor = 1 / (temperature * places)
        return total / places

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_divergence: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * (ctx.factor * of_divergence), None, None


def softened_kl(student: Tensor, teacher: Tensor, temperature: float, dim: int) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) along `dim`, mean over all others, without T^2."""
    log_p, log_q = (F.log_softmax(scores / temperature, dim=dim) for scores in (student, teacher))
    return mean_kl(log_p, log_q, dim)


def mean_kl(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """KL(teacher || student) of distributions along `dim`, mean over all others; both are log-probabilities."""
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim).mean()
