"""EMKD: what is predicted, where the networks look, and how alike the tissues appear.

D. Qin, J.-J. Bu, Z. Liu, X. Shen, S. Zhou, J.-J. Gu, Z.-H. Wang, L. Wu, H.-F. Dai: Efficient Medical Image
Segmentation Based on Knowledge Distillation, IEEE Transactions on Medical Imaging 2021 (arXiv 2108.09987).
"""

from __future__ import annotations

from torch import Tensor

from distillation.affinities import class_means, l2_normalise
from distillation.distances import attention_distance, channel_kl
from distillation.method import Method, join_terms, weighted
from distillation.stages import Layers
from networks.contract import Features
from utils.batch import Batch
from utils.numbers import NonNegative, Positive


class EMKD(Method):
    """EMKD for medical images: prediction maps, importance maps and region affinity.

    alpha PMD + beta IMD + gamma RAD, with the paper's 0.1, 0.9 and 0.9.

    PMD, prediction maps: T^2 KL over classes, mean over the pixels, T 4. IMD, importance maps: the distance of
    attention maps, exponent 4, and RAD, region affinity: `region_affinity_distance`, both summed over `layers`.
    Temperature, exponent and layers (the stem and the second residual stage) are those of the authors' code.

    RAD needs a pixel of each class in the mask shrunk to the map. Lesions smaller than the map's stride can have none
    there (see `shrink_mask`), and RAD teaches nothing about them: give finer `layers` where they matter.
    """

    alpha: NonNegative = 0.1
    beta: NonNegative = 0.9
    gamma: NonNegative = 0.9
    temperature: Positive = 4.0
    layers: Layers = ("e1", "e3")

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        classes = self.teacher_channels.classes
        terms = {"pmd_logits": self.alpha * channel_kl(student.logits, teacher.logits, self.temperature)}
        pairs = {layer: (student.stage(layer), teacher.stage(layer)) for layer in self.layers}
        for layer, (s, t) in pairs.items():
            terms[f"imd_{layer}"] = self.beta * attention_distance(s, t, t.shape[2:])
        for layer, (s, t) in pairs.items():
            terms[f"rad_{layer}"] = self.gamma * region_affinity_distance(s, t, batch.mask, classes)
        return terms

    def equation(self) -> str:
        parts = [weighted(self.alpha, "KL(t_logits -> s_logits)")]
        for weight, symbol in ((self.beta, "AT"), (self.gamma, "RA")):
            parts.append(weighted(weight, join_terms([f"{symbol}(t_{layer} -> s_{layer})" for layer in self.layers])))
        return " + ".join(parts)


def region_affinity_distance(student: Tensor, teacher: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Squared difference of two networks' `region_contrast`, mean over the images of the batch, in [0, 4].

    student, teacher: [B, C, h, w], each with any C, h and w; mask: [B, H, W] class indices. A class counts in an
    image where both maps have a pixel of it; an image with fewer than two classes adds 0 to the mean.
    """
    (s, in_student), (t, in_teacher) = (class_means(maps, mask, classes) for maps in (student, teacher))
    present = in_student & in_teacher
    return (region_contrast(s, present) - region_contrast(t, present)).square().mean()


def region_contrast(means: Tensor, present: Tensor) -> Tensor:
    """How alike the classes of an image look: the mean cosine of every two classes' mean vectors, [B].

    means: [B, classes, C]; present: bool [B, classes], those that count. 0 for fewer than two classes.
    """
    vectors = l2_normalise(means, dim=2)
    pairs = (present.unsqueeze(2) & present.unsqueeze(1)).triu(diagonal=1)
    cosines = (vectors @ vectors.transpose(1, 2)) * pairs
    return cosines.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)
