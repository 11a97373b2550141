"""One training as several processes, its ranks, each of which computes a part of every batch.

The maps of all parts are gathered, and every rank computes the loss of the whole batch from them: any loss that
compares samples, pools over them or remembers them is that of one process, without knowing of ranks. Its gradient by
the maps of a rank's own part goes on into that rank's network; the sum over the ranks is the gradient of the network.
What methods learn has seen the whole batch on every rank. The price: every gathered map travels to every rank in every
step.

With one rank, or none, nothing here changes anything.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.batch import Batch


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them; 0 writes all files."""
    return dist.get_rank() if ranks() > 1 else 0


class _Gather(torch.autograd.Function):
    """Own part [b, ...] -> whole batch [B, ...], of which the gradient by the own part comes back."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, parts: Sequence[int]) -> Tensor:
        start = sum(parts[: rank()])
        ctx.place = slice(start, start + len(own))
        padded = own.new_zeros(max(parts), *own.shape[1:])
        padded[: len(own)] = own
        everyones = [torch.empty_like(padded) for _ in parts]
        dist.all_gather(everyones, padded)
        return torch.cat([each[:count] for each, count in zip(everyones, parts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0][ctx.place], None


def gather(own: Tensor, parts: Sequence[int]) -> Tensor:
    """What all ranks have of a batch, in the order of their parts; parts: how many samples of each, () for a whole one.

    A rank without a sample of its own has one that only keeps it in step, and which counts for nothing.
    """
    if len(parts) < 2:
        return own
    gathered: Tensor = _Gather.apply(own[: parts[rank()]], parts)
    return gathered


def whole_batch(batch: Batch) -> Batch:
    """The batch of all ranks, as losses take it: images and masks."""
    if len(batch.parts) < 2:
        return batch
    other = None if batch.other_mask is None else gather(batch.other_mask, batch.parts)
    image, mask = gather(batch.image, batch.parts), gather(batch.mask, batch.parts)
    # What teachers take is left out: it is the own part still, and no loss is to look at it.
    return batch._replace(image=image, mask=mask, other_mask=other, parts=(), answers=None, stored=None, block=None)


@contextmanager
def own_draws(batch: Batch) -> Iterator[None]:
    """Inside, each rank draws its own random numbers, for dropout; afterwards all go on from where the first is.

    Only for a batch that they share: one may also work at a whole one alone.
    """
    if len(batch.parts) < 2:
        yield
        return
    if rank():
        torch.manual_seed(zlib.crc32(torch.get_rng_state().numpy().tobytes()) + rank())
    yield
    state = torch.get_rng_state()
    dist.broadcast(state, 0)
    torch.set_rng_state(state)
    device = batch.image.device
    if device.type == "cuda":
        of_device = torch.cuda.get_rng_state(device).to(device)
        dist.broadcast(of_device, 0)
        torch.cuda.set_rng_state(of_device.cpu(), device)


@torch.no_grad()
def add_up(tensors: Sequence[Tensor]) -> None:
    """In the place of each tensor the sum over the ranks; each dtype travels as one tensor."""
    if ranks() < 2:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        of_dtype = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in of_dtype])
        dist.all_reduce(flat)
        for tensor, total in zip(of_dtype, flat.split([tensor.numel() for tensor in of_dtype]), strict=True):
            tensor.copy_(total.view(tensor.shape))


def share_step(task: nn.Module, network: nn.Module, stop: bool) -> bool:
    """After the backward pass: the gradients of the whole batch, one set of running statistics, whether any is to stop.

    The network's gradients are summed; those of the rest are the same on all ranks up to rounding, and so averaged, as
    are the network's running statistics.
    """
    if ranks() < 2:
        return stop
    of_network = {id(parameter) for parameter in network.parameters()}
    everything = {id(parameter): parameter.grad for parameter in task.parameters() if parameter.grad is not None}
    shared = [gradient for key, gradient in everything.items() if key not in of_network]
    shared += [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    with torch.no_grad():
        for tensor in shared:
            tensor.div_(ranks())
    flag = torch.tensor(float(stop), device=next(network.parameters()).device)
    add_up([*(gradient for key, gradient in everything.items() if key in of_network), *shared, flag])
    return bool(flag > 0)


@torch.no_grad()
def take_from_first(task: nn.Module) -> None:
    """All parameters and buffers as the first rank has them."""
    if ranks() > 1:
        for value in task.state_dict().values():
            if isinstance(value, Tensor):
                sent = value.contiguous()  # Weights may lie with their channels last.
                dist.broadcast(sent, 0)
                value.copy_(sent)


def gather_text(own: str) -> list[str]:
    """A text of each rank."""
    if ranks() < 2:
        return [own]
    content = torch.from_numpy(np.frombuffer(own.encode(), np.uint8).copy())
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(ranks())]
    dist.all_gather(sizes, torch.tensor([len(content)]))
    padded = torch.zeros(max(map(int, sizes)), dtype=torch.uint8)
    padded[: len(content)] = content
    everyones = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(everyones, padded)
    return [each[: int(size)].numpy().tobytes().decode() for each, size in zip(everyones, sizes, strict=True)]
