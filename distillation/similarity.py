"""Methods that compare who resembles whom: images of a batch (SP, RKD) or patches of an image (pair-wise)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distillation.affinities import NORM_FLOOR, affinity_distance, unit
from distillation.layerwise import Layerwise
from distillation.method import Method, times
from distillation.stages import check_layers, stage
from networks.contract import Channels, Features
from utils.batch import Batch


class SP(Layerwise):
    """Similarity-preserving: images that activate the teacher alike activate the student alike.

    F. Tung, G. Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019 (arXiv 1907.09682):
    weight / B^2 ||G_t - G_s||_F^2, where G = Q Q^T of the flattened maps Q [B, C h w], each row of G at L2 norm 1;
    the paper's weight is 3000. Widths and sizes may differ. A single image is always like itself: 0.
    """

    symbol = "SP"

    def __init__(
        self, student: Channels, teacher: Channels, layers: Sequence[str] = ("e5",), weight: float = 3000.0
    ) -> None:
        super().__init__(student, teacher, layers, weight)

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return (image_similarity(student) - image_similarity(teacher)).square().mean()


def image_similarity(maps: Tensor) -> Tensor:
    """How much every two images' maps agree, [B, C, h, w] -> [B, B], each row at L2 norm 1."""
    flat = maps.flatten(1)
    return unit(flat @ flat.T, dim=1)


class PairWise(Layerwise):
    """Pair-wise distillation: patches that the teacher sees alike look alike to the student.

    Y. Liu, K. Chen, C. Liu, Z. Qin, Z. Luo, J. Wang: Structured Knowledge Distillation for Semantic
    Segmentation, CVPR 2019 (arXiv 1903.04197): weight times the mean over all pairs of nodes of
    (a_s - a_t)^2, a the cosine of two nodes' vectors; the paper's weight is 10. A node is a patch of
    `granularity` x `granularity` pixels (the paper's best is 2), max-pooled as in the authors' code; where that
    would give more than 32 nodes in a row, patches are as much larger as it takes. Unequal widths need no adapter.
    """

    symbol = "PairWise"

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        layers: Sequence[str] = ("e5",),
        granularity: int = 2,
        weight: float = 10.0,
    ) -> None:
        super().__init__(student, teacher, layers, weight)
        self.granularity = granularity

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return affinity_distance(student, teacher, F.max_pool2d, self.granularity)


class RKD(Method):
    """Relational distillation: the images of a batch lie about each other as the teacher's do.

    W. Park, D. Kim, Y. Lu, M. Cho: Relational Knowledge Distillation, CVPR 2019 (arXiv 1904.05068):
    alpha (25 in the paper) times the Huber distance of the images' mutual distances, each divided by their mean,
    plus beta (50) times that of the cosines of the angles that every three images form; means over all pairs and
    triplets. An image is embedded as the mean of its map over the pixels. Two images have but one distance,
    which its mean makes 1: with fewer than three in a batch both terms are 0.
    """

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        layers: Sequence[str] = ("e5",),
        alpha: float = 25.0,
        beta: float = 50.0,
    ) -> None:
        super().__init__()
        self.layers = check_layers(layers)
        self.alpha, self.beta = alpha, beta

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for layer in self.layers:
            s, t = (offsets(stage(features, layer)) for features in (student, teacher))
            terms[f"distance_{layer}"] = self.alpha * F.huber_loss(relative_distances(s), relative_distances(t))
            terms[f"angle_{layer}"] = self.beta * F.huber_loss(angles(s), angles(t))
        return terms

    def equation(self) -> str:
        return " + ".join(
            times(weight, f"{symbol}(t_{layer} -> s_{layer})")
            for layer in self.layers
            for weight, symbol in ((self.alpha, "Distance"), (self.beta, "Angle"))
        )


def offsets(maps: Tensor) -> Tensor:
    """The way from every image to every other, [B, C, h, w] -> [B, B, C]."""
    embedded = maps.mean(dim=(2, 3))
    return embedded.unsqueeze(0) - embedded.unsqueeze(1)


def relative_distances(ways: Tensor) -> Tensor:
    """Their lengths, divided by the mean of those that are not 0: [B, B, C] -> [B, B]."""
    lengths = torch.linalg.vector_norm(ways, dim=2)
    mean = lengths.sum() / (lengths > 0).sum().clamp(min=1)
    relative: Tensor = lengths / mean.clamp(min=NORM_FLOOR)
    return relative


def angles(ways: Tensor) -> Tensor:
    """The cosine of the angle at image i between images j and k, [B, B, C] -> [B, B, B]; 0 where two are the same."""
    directions = unit(ways, dim=2)
    return directions @ directions.transpose(1, 2)
