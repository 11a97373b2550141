"""Relational knowledge distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillation.affinities import NORM_FLOOR, l2_normalise
from distillation.method import Method, weighted
from distillation.stages import Layers
from networks.contract import Features
from utils.batch import Batch
from utils.numbers import NonNegative


class RKD(Method):
    """Relational distillation (RKD): distances and angles between the images of a batch are as for the teacher.

    W. Park, D. Kim, Y. Lu, M. Cho: Relational Knowledge Distillation, CVPR 2019 (arXiv 1904.05068):
    alpha (25 in the paper) times the Huber distance of the images' mutual distances, each divided by their mean,
    plus beta (50) times that of the cosines of the angles that every three images form; means over all pairs and
    triplets, those of an image with itself among them, as in the authors' code: their share falls with the batch size.
    An image is embedded as the mean of its map over the pixels. Two images have only one distance,
    which division by its mean makes 1: with fewer than three in a batch both terms are 0.
    """

    layers: Layers = ("e5",)
    alpha: NonNegative = 25.0
    beta: NonNegative = 50.0

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for layer in self.layers:
            s, t = (image_offsets(features.stage(layer)) for features in (student, teacher))
            terms[f"distance_{layer}"] = self.alpha * F.huber_loss(relative_distances(s), relative_distances(t))
            terms[f"angle_{layer}"] = self.beta * F.huber_loss(angles(s), angles(t))
        return terms

    def equation(self) -> str:
        return " + ".join(
            weighted(weight, f"{symbol}(t_{layer} -> s_{layer})")
            for layer in self.layers
            for weight, symbol in ((self.alpha, "Distance"), (self.beta, "Angle"))
        )


def image_offsets(maps: Tensor) -> Tensor:
    """The vector from every image to every other, [B, C, h, w] -> [B, B, C]."""
    embedded = maps.mean(dim=(2, 3))
    return embedded.unsqueeze(0) - embedded.unsqueeze(1)


def relative_distances(offsets: Tensor) -> Tensor:
    """Their lengths, divided by the mean of those that are not 0: [B, B, C] -> [B, B]."""
    lengths = torch.linalg.vector_norm(offsets, dim=2)
    mean = lengths.sum() / (lengths > 0).sum().clamp(min=1)
    relative: Tensor = lengths / mean.clamp(min=NORM_FLOOR)
    return relative


def angles(offsets: Tensor) -> Tensor:
    """The cosine of the angle at image i between images j and k, [B, B, C] -> [B, B, B]; 0 where two are the same."""
    directions = l2_normalise(offsets, dim=2)
    return directions @ directions.transpose(1, 2)
