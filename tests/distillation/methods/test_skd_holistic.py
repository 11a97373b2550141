"""The adversary: its value against NumPy, who learns from which term, and that interruptions change nothing."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.slices.slice_folder import SliceFolder
from distillation.distiller import Distiller
from distillation.methods import skd_holistic
from distillation.methods.skd_holistic import Critic, Holistic, SelfAttention, gradient_penalty
from distillation.teacher import NetworkTeacher
from engine.training.schedule import Schedule
from networks.contract import Channels, Features
from tests.contracts.methods import MethodContract, seeded_terms, teacher_network, tiny_distiller
from tests.golden.arrays import Array
from tests.golden.features import random_batch
from tests.small import equal_states, make_method, write_bare_archive
from tests.training import small_trainer, stop_after
from utils.batch import Batch

CHANNELS = Channels((1,) * 5, (1,) * 4, 3)


@pytest.fixture(autouse=True)
def narrow_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A critic of a sixty-fourth of the paper's cost."""
    monkeypatch.setattr(skd_holistic, "Critic", partial(Critic, width=8))


def open_gates(method: torch.nn.Module) -> None:
    """As after some training: while a gate is 0, as it is at first, the attention behind it learns nothing."""
    for module in method.modules():
        if isinstance(module, SelfAttention):
            torch.nn.init.constant_(module.gate, 0.5)


class TestHolistic(MethodContract):
    name, same_level = "skd_holistic", True
    # The batch norm enlarges the tiny networks' rounding along with logits that hardly vary.
    half_tolerance = 0.2

    def learner(self, pair: str) -> Distiller:
        task = super().learner(pair)
        open_gates(task.method)
        return task

    def test_only_same_level_methods_teach_nothing_to_a_copy_of_the_teacher(self) -> None:
        """Neither to the student nor to the critic; but the critic's penalty, drawn at random, has no least value."""
        teacher = teacher_network(tiny_distiller(self.name, "unequal"))
        method = make_method(self.name, teacher.channels, teacher.channels)
        task = Distiller(deepcopy(teacher), NetworkTeacher(teacher), method)
        for mode in (True, False):
            terms = seeded_terms(task.train(mode))
            assert list(terms)[2:-1] == ["holistic", "critic", "penalty"]
            assert terms["holistic"].item() == terms["critic"].item() == 0


def maps(seed: int, count: int = 2) -> torch.Tensor:
    return (3 * torch.randn(count, 3, 12, 16, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def ready(*options: str) -> tuple[Holistic, Features, Features, Batch]:
    torch.manual_seed(0)
    method = make_method(",".join(("skd_holistic", *options)), CHANNELS, CHANNELS)
    assert isinstance(method, Holistic)
    open_gates(method)
    return method, Features((), (), maps(1)), Features((), (), maps(2)), random_batch(3, size=(12, 16))


def pooled_array(x: Array, side: int) -> Array:
    """[B, C, H, W] -> [B, C, side, side]: means of the pixels that each bin touches."""
    for axis in (2, 3):
        size = x.shape[axis]
        bins = [range(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
        x = np.stack([x.take(pixels, axis).mean(axis) for pixels in bins], axis)
    return x


def convolve_array(x: Array, weight: Array, stride: int, padding: int) -> Array:
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bchwij,ocij->bohw", windows, weight, optimize=True)


def attend_array(x: Array, attention: SelfAttention) -> Array:
    projections = (attention.query, attention.key, attention.value)
    flat = x.reshape(*x.shape[:2], -1)
    query, key, value = (p.weight.detach().double().numpy()[:, :, 0, 0] @ flat for p in projections)
    affinity = np.exp(np.einsum("bcn,bcm->bnm", query, key))
    affinity /= affinity.sum(axis=2, keepdims=True)
    return x + attention.gate.item() * np.einsum("bnm,bcm->bcn", affinity, value).reshape(x.shape)


def golden_value(critic: Critic, image: torch.Tensor, logits: torch.Tensor) -> Array:
    """The critic's values, [B]. Spectral norms by singular value decomposition."""
    image_array, x = (pooled_array(each.detach().double().numpy(), 64) for each in (image, logits))
    x = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / np.sqrt(x.var(axis=(0, 2, 3), keepdims=True) + 1e-5)
    x = np.concatenate((image_array, x), axis=1)
    for layer in critic.layers:
        if isinstance(layer, SelfAttention):
            x = attend_array(x, layer)
        elif isinstance(layer, torch.nn.Sequential):
            weight = layer[0].parametrizations.weight.original.detach().double().numpy()
            weight = weight / np.linalg.norm(weight.reshape(len(weight), -1), ord=2)
            x = convolve_array(x, weight, stride=2, padding=1) + layer[0].bias.detach().numpy()[:, None, None]
            x = np.where(x > 0, x, 0.1 * x)
        else:
            x = convolve_array(x, layer.weight.detach().double().numpy(), stride=1, padding=0)
    return x.flatten()


def use_spectral_norms(critic: Critic) -> None:
    """One power iteration of each: by and by they find the largest singular value."""
    for layer in critic.layers:
        if isinstance(layer, torch.nn.Sequential):
            assert layer[0].weight.isfinite().all()


def test_terms_are_golden() -> None:
    method, student, teacher, batch = ready()
    for _ in range(300):
        use_spectral_norms(method.critic)
    terms = method.eval()(student, teacher, batch)
    of_student, of_teacher = (golden_value(method.critic, batch.image, x.logits) for x in (student, teacher))
    lead = of_teacher.mean() - of_student.mean()
    assert terms["holistic"].item() == pytest.approx(0.1 * lead, rel=1e-3)
    assert terms["critic"].item() == pytest.approx(-0.1 * lead, rel=1e-3)


def test_gradient_penalty_is_golden() -> None:
    """Of x^2 / 2 the gradient is x itself: at the point between student and teacher."""
    student, teacher = maps(1), maps(2)
    torch.manual_seed(7)
    penalty = gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, student.detach(), teacher.detach())
    torch.manual_seed(7)
    share = torch.rand(2).double().numpy()[:, None, None, None]
    between = sum(w * x.detach().double().numpy() for w, x in ((share, teacher), (1 - share, student)))
    norms = np.linalg.norm(between.reshape(2, -1), axis=1)
    assert penalty.item() == pytest.approx(((norms - 1) ** 2).mean(), rel=1e-5)


def test_the_student_learns_from_its_term_alone_and_the_critic_from_its_own() -> None:
    method, student, teacher, batch = ready()
    terms = method(student, teacher, batch)
    terms["holistic"].backward(retain_graph=True)
    of_student = student.logits.grad.clone()
    assert of_student.any() and all(p.grad is None for p in method.parameters())
    (terms["critic"] + terms["penalty"]).backward()
    assert torch.equal(student.logits.grad, of_student)
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())
    assert teacher.logits.grad is None or not teacher.logits.grad.any()


def test_the_student_pleases_a_critic_that_stands_still() -> None:
    method, student, teacher, batch = ready()
    optimizer = torch.optim.SGD([student.logits], lr=50.0)
    leads = []
    for _ in range(5):
        optimizer.zero_grad()
        terms = method.eval()(student, teacher, batch)
        terms["holistic"].backward()
        optimizer.step()
        leads.append(terms["holistic"].item())
    assert leads == sorted(leads, reverse=True) and leads[-1] < leads[0]


def test_the_critic_learns_to_tell_the_teacher() -> None:
    method, student, teacher, batch = ready("critic_lr=0.01", "penalty=0.1")
    (optimizer,) = method.extra_optimizers()
    leads = []
    for _ in range(10):
        optimizer.zero_grad()
        terms = method(student, teacher, batch)
        sum(terms.values()).backward()
        optimizer.step()
        leads.append(terms["holistic"].item())
    assert leads[-1] > max(leads[0], 0) + 0.01


def test_the_critic_has_an_optimiser_of_its_own() -> None:
    method = ready()[0]
    (optimizer,) = method.extra_optimizers()
    (group,) = optimizer.param_groups
    assert group["lr"] == 4e-4 and group["betas"] == (0.9, 0.99)
    assert {id(p) for p in group["params"]} == {id(p) for p in method.parameters()}


def test_a_scaled_loss_makes_the_same_step() -> None:
    """One backward pass with fp16's loss scale, then a step of each optimiser, as in the training loop."""
    states = []
    for enabled in (False, True):
        task = tiny_distiller("skd_holistic", "unequal")
        optimizers = [torch.optim.SGD(task.network.parameters(), lr=0.1), *task.extra_optimizers()]
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        scaler.scale(seeded_terms(task)["loss"]).backward()
        for optimizer in optimizers:
            scaler.step(optimizer)
        states.append(task.state_dict())
    before = tiny_distiller("skd_holistic", "unequal").state_dict()
    for key, plain in states[0].items():
        torch.testing.assert_close(states[1][key], plain, msg=key)
    assert any(not torch.equal(states[0][key], before[key]) for key in before if key.startswith("method."))


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """The critic, its spectral norms and its optimiser are in last.ckpt."""
    slices = SliceFolder.open(write_bare_archive(tmp_path / "slices"), "kits", "tumor")
    make = partial(small_trainer, slices, kd="skd_holistic", schedule=Schedule(4, 4, 1e-2))
    uninterrupted = make(tmp_path / "uninterrupted")
    uninterrupted.fit()
    stopped = make(tmp_path / "parts")
    stop_after(stopped, 2)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    resumed = make(tmp_path / "parts")
    torch.manual_seed(99)
    resumed.resume()
    resumed.fit()
    assert equal_states(uninterrupted.task.state_dict(), resumed.task.state_dict())
    assert uninterrupted.progress == resumed.progress


@pytest.mark.parametrize("size", [(1, 1), (20, 33), (64, 64), (130, 70)])
@pytest.mark.parametrize("classes", [2, 5])
def test_any_size_and_number_of_classes(size: tuple[int, int], classes: int) -> None:
    channels = replace(CHANNELS, classes=classes)
    method = make_method("skd_holistic", channels, channels)
    student, teacher = (Features((), (), torch.rand(1, classes, *size)) for _ in range(2))
    terms = method(student, teacher, random_batch(classes, 1, size))
    assert all(value.isfinite() for value in terms.values())
