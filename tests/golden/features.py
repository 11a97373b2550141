"""Small random features and tiny networks for tests of losses, and the golden losses' ground floor in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from networks.contract import Channels, Features, SegmentationNetwork, resize

Array = NDArray[np.float64]

STUDENT = Channels((3, 4, 5, 6, 7), (6, 5, 4, 3), 2)
TEACHER = Channels((4, 6, 5, 8, 9), (8, 6, 4, 3), 2)
STUDENT_SIZES = ((8, 12), (8, 10), (4, 6), (3, 3), (2, 3))
TEACHER_SIZES = ((12, 12), (6, 6), (5, 4), (4, 3), (3, 2))
IMAGE_SIZE = (12, 16)


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


class TinyNetwork(SegmentationNetwork):
    """One convolution a stage, e1..e5 at strides `first_stride` * 1, 2, 4, 8, 16.

    Without decoder channels e4..e1 themselves stand for d5..d2, as in the published students.
    """

    def __init__(self, encoder: tuple[int, ...], decoder: tuple[int, ...], first_stride: int, classes: int) -> None:
        super().__init__(classes)
        self.encoder_channels, self.decoder_channels = encoder, decoder or encoder[3::-1]
        self.down = torch.nn.ModuleList(
            torch.nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, stride=stride)
            for inputs, outputs, stride in zip((1, *encoder), encoder, (first_stride, 2, 2, 2, 2), strict=False)
        )
        self.up = torch.nn.ModuleList(
            torch.nn.Conv2d(inputs, outputs, kernel_size=1)
            for inputs, outputs in zip((encoder[-1], *decoder), decoder, strict=False)
        )
        self.head = torch.nn.Conv2d(decoder[-1] if decoder else encoder[-1], classes, kernel_size=1)

    def features(self, image: torch.Tensor) -> Features:
        x, encoder, decoder = image, [], []
        for down in self.down:
            x = F.leaky_relu(down(x))
            encoder.append(x)
        for up, skip in zip(self.up, encoder[3::-1], strict=False):
            x = up(resize(x, skip.shape[2:]))
            decoder.append(x)
        return Features(tuple(encoder), tuple(decoder or encoder[3::-1]), resize(self.head(x), image.shape[2:]))


def resize_array(x: Array, size: Sequence[int], align_corners: bool = False) -> Array:
    """Bilinear resize of [..., h, w] to (H, W), without antialiasing."""
    rows = _bilinear_weights(x.shape[-2], size[0], align_corners)
    columns = _bilinear_weights(x.shape[-1], size[1], align_corners)
    return rows @ x @ columns.T


def _bilinear_weights(inputs: int, outputs: int, align_corners: bool) -> Array:
    """[outputs, inputs]: what each output pixel takes from each input pixel."""
    weights = np.zeros((outputs, inputs))
    for i in range(outputs):
        centre = max((i + 0.5) * inputs / outputs - 0.5, 0.0)
        position = i * (inputs - 1) / (outputs - 1) if align_corners else centre
        low = min(int(position), inputs - 1)
        weights[i, low] += 1 - (position - low)
        weights[i, min(low + 1, inputs - 1)] += position - low
    return weights


def log_softmax_array(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def concatenate_arrays(*maps: Array) -> Array:
    """Channels side by side at the smallest size."""
    size = min((m.shape[2:] for m in maps), key=lambda shape: shape[0] * shape[1])
    return np.concatenate([resize_array(m, size) for m in maps], axis=1)


def project_array(x: Array, convolution: torch.nn.Module) -> Array:
    """A 1x1 convolution, or what stands for none."""
    if isinstance(convolution, torch.nn.Identity):
        return x
    assert isinstance(convolution, torch.nn.Conv2d) and convolution.bias is not None
    weight = convolution.weight.detach().double().numpy()[:, :, 0, 0]
    bias = convolution.bias.detach().double().numpy()
    return np.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None]
