"""Intra-class feature variation: how far the pixels of a class scatter about their prototype."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from distillation.affinities import class_means, shrink_mask, unit
from distillation.layerwise import Layerwise
from distillation.stages import stage
from networks.contract import Channels, Features, resize
from utils.batch import Batch


class IFVD(Layerwise):
    """Intra-class feature variation: each pixel is as typical of its class as it is for the teacher.

    Y. Wang, W. Zhou, T. Jiang, X. Bai, Y. Xu: Intra-class Feature Variation Distillation for Semantic
    Segmentation, ECCV 2020: weight times the mean over the pixels of (v_s - v_t)^2, v the cosine of a pixel's
    vector and its class's mean vector in the same image; 200 is the weight in the authors' code. The paper
    compares the map before the classifier; e5 is that map of a student without a decoder. Masks are
    shrunk to the map; a class without a pixel there has no prototype and no part in the mean. Lesions
    smaller than the map's stride can have none there (see `shrink_mask`): give finer `layers` where they matter.
    """

    symbol = "IFV"

    def __init__(
        self, student: Channels, teacher: Channels, layers: Sequence[str] = ("e5",), weight: float = 200.0
    ) -> None:
        super().__init__(student, teacher, layers, weight)
        self.classes = teacher.classes

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for layer in self.layers:
            t = stage(teacher, layer)
            s = resize(stage(student, layer), t.shape[2:])
            of_s, of_t = (class_variation(maps, batch.mask, self.classes) for maps in (s, t))
            terms[layer] = self.weight * F.mse_loss(of_s, of_t)
        return terms


def class_variation(maps: Tensor, mask: Tensor, classes: int) -> Tensor:
    """The cosine of each pixel's vector and its class's mean in its image, [B, C, h, w] -> [B, h * w].

    mask: [B, H, W] class indices below `classes`, at any resolution.
    """
    prototypes, _ = class_means(maps, mask, classes)
    cosines = unit(prototypes, dim=2) @ unit(maps.flatten(2), dim=1)
    own = shrink_mask(mask, maps.shape[2:]).flatten(1).unsqueeze(1)
    return cosines.gather(1, own).squeeze(1)
