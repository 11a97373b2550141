"""Intra-class feature variation: how far the pixels of a class scatter about their prototype."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillation.affinities import class_means, l2_normalise, shrink_mask
from distillation.layerwise import Layerwise
from distillation.stages import Layers
from networks.contract import Features, resize
from utils.batch import Batch
from utils.numbers import NonNegative


class IFVD(Layerwise):
    """Intra-class feature variation: each pixel is as typical of its class as it is for the teacher.

    Y. Wang, W. Zhou, T. Jiang, X. Bai, Y. Xu: Intra-class Feature Variation Distillation for Semantic
    Segmentation, ECCV 2020: weight times the mean over the pixels of (v_s - v_t)^2, v the cosine of a pixel's
    vector and its class's mean vector in the same image; 200 is the weight in the authors' code. The paper
    compares the map before the classifier; e5 is that map of a student without a decoder. Masks are
    shrunk to the map; a class without a pixel there has no prototype and no part in the mean. Lesions
    smaller than the map's stride can have none there (see `shrink_mask`): give finer `layers` where they matter.
    """

    layers: Layers = ("e5",)
    weight: NonNegative = 200.0
    symbol = "IFV"

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for layer in self.layers:
            t = teacher.stage(layer)
            s = resize(student.stage(layer), t.shape[2:])
            classes = self.teacher_channels.classes
            s_variation, t_variation = (class_variation(maps, batch.mask, classes) for maps in (s, t))
            terms[layer] = self.weight * F.mse_loss(s_variation, t_variation)
        return terms


def class_variation(maps: Tensor, mask: Tensor, classes: int) -> Tensor:
    """The cosine of each pixel's vector and its class's mean in its image, [B, C, h, w] -> [B, h * w].

    mask: [B, H, W] class indices below `classes`, at any resolution.
    """
    prototypes, _ = class_means(maps, mask, classes)
    cosines = l2_normalise(prototypes, dim=2) @ l2_normalise(maps.flatten(2), dim=1)
    labels = shrink_mask(mask, maps.shape[2:]).flatten(1).unsqueeze(1)
    return cosines.gather(1, labels).squeeze(1)
