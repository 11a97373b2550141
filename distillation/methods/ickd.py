"""ICKD: the student learns which channels respond alike, in every part of the image.

L. Liu, Q. Huang, S. Lin, H. Xie, B. Wang, X. Chang, X. Liang: Exploring Inter-Channel Correlation for
Diversity-Preserved Knowledge Distillation, ICCV 2021 (arXiv 2202.03680).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillation.layerwise import Layerwise
from distillation.stages import Layers
from utils.layers import conv_bn
from utils.numbers import NonNegative, PositiveInt

SMALLEST_NORM = 1e-12
"""Squared, in a cell whose largest value is 1: rows below it count as zeros."""


class ICKD(Layerwise):
    """Inter-channel correlation (ICKD): channels that go together in the teacher do so in the student.

    || n(F_s F_s^T) - n(F_t F_t^T) ||^2 / C, mean over images and the cells of a grid (inter-channel correlation).

    F is the map in a cell, [C, pixels], the student's after conv1x1-BN; n divides each row of [C, C] by its L2
    norm, and leaves rows of zeros. The map is cut into `grid` x `grid` cells, or fewer where it is too small; cells
    at the bottom and right may be smaller. The paper cuts for segmentation: 4 and 32 did best of 1, 4, 16 and 32
    (PASCAL VOC, ResNet-18); 4 leaves 3 x 3 pixels a cell of an e5 of 12 x 12. Layer and weight are those of the
    authors' configuration for ImageNet (ResNet-34 to ResNet-18).
    """

    layers: Layers = ("e5",)
    weight: NonNegative = 1.0
    grid: PositiveInt = 4
    symbol = "ICC"

    def transform(self, inputs: int, outputs: int) -> nn.Module:
        return conv_bn(inputs, outputs)

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return correlation_distance(split_into_cells(student, self.grid), split_into_cells(teacher, self.grid))


def split_into_cells(maps: Tensor, grid: int) -> Tensor:
    """[B, C, H, W] -> [B, cells, C, pixels], of ceil(H / grid) x ceil(W / grid) pixels, with zeros past the edge."""
    height, width = (math.ceil(size / grid) for size in maps.shape[2:])
    # Zeros add nothing to the products of channels.
    padded = F.pad(maps, (0, -maps.shape[3] % width, 0, -maps.shape[2] % height))
    rows, columns = padded.shape[2] // height, padded.shape[3] // width
    blocks = padded.reshape(*maps.shape[:2], rows, height, columns, width).permute(0, 2, 4, 1, 3, 5)
    return blocks.flatten(4).flatten(1, 2)


def correlation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of the normalised rows of F F^T, for F [B, cells, C, pixels] on either side.

    Two rows of norm 1 are at the squared distance 2 - 2 cos; so the [C, C] matrices need not be kept.
    """
    student, teacher = scale_cells(student), scale_cells(teacher)
    student_norms, teacher_norms = squared_norms(student), squared_norms(teacher)
    cosine = row_products(student, teacher) * student_norms.rsqrt() * teacher_norms.rsqrt()
    return (student_norms.isfinite().float() + teacher_norms.isfinite().float() - 2 * cosine).mean()


def squared_norms(maps: Tensor) -> Tensor:
    """Of the rows of F F^T, [B, cells, C]; infinite for rows of zeros, whose cosine is then 0, without a gradient."""
    norms = row_products(maps, maps)
    return norms.where(norms > SMALLEST_NORM, torch.inf)


def scale_cells(maps: Tensor) -> Tensor:
    """Divided by each cell's largest absolute value: the norm undoes that, and the products stay finite."""
    peak = maps.detach().abs().amax(dim=(2, 3), keepdim=True)
    return maps / peak.where(peak > 0, 1)


def row_products(first: Tensor, second: Tensor) -> Tensor:
    """Inner products of the rows of A A^T with those of B B^T, for A and B [..., C, pixels]: [..., C].

    Either through [C, C] or through [pixels, pixels], whichever is smaller: A A^T B B^T = A (A^T B) B^T.
    """
    if first.shape[-1] < first.shape[-2]:
        products = first @ (first.mT @ second) * second
    else:
        products = first @ first.mT * (second @ second.mT)
    return products.sum(dim=-1)
