"""Prototypes: DIST towards what a block of slices says of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from distillation.methods.dist import DIST
from networks.contract import Features
from utils.batch import Batch


class Prototypes(DIST):
    """Prototypes of a 3D teacher: DIST towards the centroid of each pixel's class in the block around the slice.

    After X. Yu, Q. Yang, H. Liu, H. H. Lee, Y. Tang, L. W. Remedios, M. E. Kim, R. Zhang, S. Bao, Y. Huo, A. Z. Moore,
    L. Ferrucci, B. A. Landman: Enhancing Single-Slice Segmentation with 3D-to-2D Unpaired Scan Distillation, 2024
    (arXiv 2406.12254): the centroids of a 3D teacher's predicted distributions, one for each class, teach a student of
    single slices their correlation between and within classes, as DIST does with the predictions themselves.

    The centroid of class c is the mean of the teacher's probabilities over all voxels of the block, each counted with
    its probability of c. The mask says of which class a pixel is; without one, the teacher.

    Only the paper's abstract was at hand, so that the details are ours. There the scans are other ones than the
    student's, and the centroids those of the whole data. Here they are of the block around each slice: with two classes
    a correlation undoes what is the same for all images, and would leave only the mask. For the same reason a batch
    needs more than one image. A teacher of single slices has centroids too, of its slices.
    """

    target = "centroids(t_logits)"

    def targets(self, teacher: Features, batch: Batch) -> Tensor:
        logits = teacher.logits if teacher.block is None else teacher.block.logits
        centroids = class_centroids((logits / self.temperature).softmax(dim=1))
        rows = batch.mask.flatten(1).long()[:, :, None].expand(-1, -1, centroids.shape[2])
        of_pixels: Tensor = centroids.gather(1, rows).transpose(1, 2)
        return of_pixels.reshape(-1, centroids.shape[2], *batch.mask.shape[1:])


def class_centroids(probabilities: Tensor) -> Tensor:
    """[B, C, ...] -> [B, C, C]: of each class the mean probabilities where that class is, by its own probability."""
    flat = probabilities.flatten(2)
    weights = flat / flat.sum(dim=2, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    return weights @ flat.transpose(1, 2)
