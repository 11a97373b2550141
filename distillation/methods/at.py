"""Attention transfer as the HLFD paper has it."""

from __future__ import annotations

from torch import Tensor

from distillation.distances import attention_distance
from distillation.layerwise import Layerwise
from distillation.stages import Layers
from networks.contract import Features
from utils.batch import Batch
from utils.numbers import NonNegative


class AT(Layerwise):
    """Attention transfer as in the HLFD paper: exponent 4, e5 alone (`attn_kd`); its own authors' is `at_paper`.

    weight times the sum of attention(t -> s) over the layers; S. Zagoruyko, N. Komodakis: Paying More Attention to
    Attention, ICLR 2017 (arXiv 1612.03928).
    """

    layers: Layers = ("e5",)
    weight: NonNegative = 1.0
    symbol = "AT"

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return attention_distance(student, teacher, teacher.shape[2:])

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        return {f"imd_{layer}": term for layer, term in super().forward(student, teacher, batch).items()}
