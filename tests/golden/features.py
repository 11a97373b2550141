"""Small random features of a student and a teacher, for golden tests of losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from networks.contract import Channels, Features
from utils.batch import Batch, middle

STUDENT = Channels((3, 4, 5, 6, 7), (6, 5, 4, 3), 2)
TEACHER = Channels((4, 6, 5, 8, 9), (8, 6, 4, 3), 2)
STUDENT_SIZES = ((8, 12), (8, 10), (4, 6), (3, 3), (2, 3))
TEACHER_SIZES = ((12, 12), (6, 6), (5, 4), (4, 3), (3, 2))
IMAGE_SIZE = (12, 16)

STUDENTS = {"unequal": (STUDENT, STUDENT_SIZES), "equal": (TEACHER, TEACHER_SIZES)}
"""Channels and sizes of students of `TEACHER`."""


def random_features(channels: Channels, sizes: Sequence[tuple[int, int]], seed: int, scale: float = 3.0) -> Features:
    """Features of two images; d5..d2 have the sizes of e4..e1, and are maps of their own."""
    draw = torch.Generator().manual_seed(seed)

    def maps(count: int, size: tuple[int, int]) -> torch.Tensor:
        return (scale * torch.randn(2, count, *size, generator=draw)).requires_grad_()

    return Features(
        tuple(map(maps, channels.encoder, sizes)),
        tuple(map(maps, channels.decoder, sizes[3::-1])),
        maps(channels.classes, IMAGE_SIZE),
    )


def student_and_teacher(kind: str = "unequal") -> tuple[Features, Features]:
    """Features of one of `STUDENTS` and of `TEACHER`."""
    return random_features(*STUDENTS[kind], seed=1), random_features(TEACHER, TEACHER_SIZES, seed=2)


def equal_channels(channels: int) -> Channels:
    """The same count at every stage."""
    return Channels((channels,) * 5, (channels,) * 4, channels)


def random_batch(classes: int = 2, count: int = 2, size: tuple[int, int] = (33, 47), block: int = 0) -> Batch:
    """block: slices around each image, which is the middle one of them; 0: none."""
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(count, 1, *size, generator=draw) * 2 - 1
    mask = torch.randint(0, classes, (count, *size), dtype=torch.uint8, generator=draw)
    batch = Batch(image, mask, [str(i) for i in range(count)])
    if not block:
        return batch
    slices = torch.rand(count, block, *size, generator=draw) * 2 - 1
    slices[:, middle(block)] = image[:, 0]
    return batch._replace(block=slices)


def rotate_channels(maps: torch.Tensor) -> torch.Tensor:
    """The channels turned by a random orthogonal matrix."""
    draw = torch.Generator().manual_seed(9)
    rotation, _ = torch.linalg.qr(torch.randn(maps.shape[1], maps.shape[1], generator=draw))
    return torch.einsum("oc,bchw->bohw", rotation, maps)
