"""Whether probabilities are as often right as they say."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 15


class CalibrationError:
    """Expected calibration error of the probability of one region, over voxels that come in parts.

    The voxels of each of 15 equal bins of probability give |mean probability - frequency|, weighted by their share.
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger: On Calibration of Modern Neural Networks, ICML 2017, arXiv 1706.04599.
    """

    def __init__(self) -> None:
        self.surplus = torch.zeros(BINS, dtype=torch.float64)
        self.voxels = 0

    def add(self, probability: Tensor, truth: Tensor) -> None:
        """probability: float [n, H, W]; truth: bool [n, H, W], on any device."""
        # Sums of millions of voxels need float64, which Apple's GPUs do not have.
        device = torch.device("cpu") if probability.device.type == "mps" else probability.device
        probability, truth = probability.flatten().to(device), truth.flatten().to(device)
        bins = (probability * BINS).ceil_().clamp_(1, BINS).int() - 1
        surplus = (probability - truth.to(probability)).double()
        self.surplus += torch.bincount(bins, surplus, minlength=BINS).cpu()
        self.voxels += len(probability)

    def value(self) -> float:
        return float(self.surplus.abs().sum()) / self.voxels
