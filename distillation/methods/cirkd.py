"""Cross-image relations: pixels compared with those of other images, in the batch and in a memory.

C. Yang, H. Zhou, Z. An, X. Jiang, Y. Xu, Q. Zhang: Cross-Image Relational Knowledge Distillation for Semantic
Segmentation, CVPR 2022 (arXiv 2204.06986).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distillation.affinities import class_means, l2_normalise, pool_patches, shrink_mask
from distillation.distances import softened_kl
from distillation.layerwise import Layerwise
from distillation.method import Method, weighted
from distillation.stages import Layer, Layers
from networks.contract import Channels, Features, resize
from utils.batch import Batch
from utils.layers import BatchNorm
from utils.numbers import NonNegative, NonNegativeInt, Positive, PositiveInt

PATCHES = 16
"""Along a side of an image in the relations of a batch; as many as e5 has pixels, of 512 pixels at stride 32."""
ANCHORS = 2048
"""Pixels of a batch that are compared with the memory."""
NEW_PIXELS = 16
"""Pixels of a class that enter the memory from one image, as in the authors' code."""


class MiniBatch(Layerwise):
    """The part of CIRKD without a memory: each pixel's similarity to the pixels of all images of the batch.

    weight times the mean over the images i, j and the pixels of i of KL(softmax(r_t / T) || softmax(r_s / T)), r the
    cosines of that pixel with all pixels of j; the paper's weight is 1, its temperature 0.1. Maps of more
    than 16 pixels in a row are averaged over patches (as the authors' code can). In a batch of one, the
    image is compared with itself. Unequal widths need no adapter.
    """

    layers: Layers = ("e5",)
    weight: NonNegative = 1.0
    temperature: Positive = 0.1
    symbol = "P2P"

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        student = resize(student, teacher.shape[2:])
        return softened_kl(image_relations(student), image_relations(teacher), self.temperature, dim=-1)


class CIRKD(Method):
    """Cross-image relations: to the batch, and to the teacher's remembered pixels and regions of every class.

    alpha P2P in the batch (see `MiniBatch`) + beta P2P to the memory + gamma P2R to the memory, 1, 0.1 and 0.1 in the
    paper. The last two are the mean over the pixels of KL(softmax(r_t / T) || softmax(r_s / T)), r the cosines with
    vectors that the teacher gave to earlier images: single pixels, or means of a class in an image.
    At most 2048 pixels of a batch take part, drawn at random.

    Sizes as in the authors' code: queues of pixel_memory and region_memory vectors a class, out of which each step
    compares pixel_contrast and region_contrast, shared evenly among the classes. Both queues are saved with a
    run: 4 * classes * (pixel_memory + region_memory) * teacher's width bytes.

    A class enters the queues where it has a pixel in the mask shrunk to the map. Lesions smaller than the map's stride
    can have none there (see `shrink_mask`): give a finer `layer` where they matter.

    For the memory the student is projected by 1x1 convolution, batch norm, ReLU and 1x1 convolution, as in the authors'
    code also where the widths are equal; logits are compared as they are.
    """

    layer: Layer = "e5"
    alpha: NonNegative = 1.0
    beta: NonNegative = 0.1
    gamma: NonNegative = 0.1
    temperature: Positive = 0.1
    pixel_memory: PositiveInt = 20000
    region_memory: PositiveInt = 2000
    pixel_contrast: NonNegativeInt = 4096
    region_contrast: NonNegativeInt = 1024

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.classes = teacher.classes
        width = teacher.stage(self.layer).channels
        inputs = student.stage(self.layer).channels
        self.projection = nn.Identity() if self.layer == "logits" else projection(inputs, width)
        self.pixels, self.regions = (
            Memory(self.classes, size, width) for size in (self.pixel_memory, self.region_memory)
        )

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        s, t = (features.stage(self.layer) for features in (student, teacher))
        size = t.shape[2:]
        t_vectors = l2_normalise(t.detach(), dim=1)
        s_vectors = l2_normalise(resize(self.projection(s), size), dim=1)
        self._remember(t_vectors, batch.mask)
        anchors = [vectors.movedim(1, 3).flatten(0, 2) for vectors in (s_vectors, t_vectors)]
        if len(anchors[0]) > ANCHORS:
            chosen = torch.randperm(len(anchors[0]))[:ANCHORS].to(t.device)
            anchors = [vectors[chosen] for vectors in anchors]
        s_relations, t_relations = image_relations(resize(s, size)), image_relations(t)
        terms = {"batch": self.alpha * softened_kl(s_relations, t_relations, self.temperature, dim=-1)}
        for name, weight, memory, contrast in (
            ("pixel", self.beta, self.pixels, self.pixel_contrast),
            ("region", self.gamma, self.regions, self.region_contrast),
        ):
            remembered = memory.draw(contrast // self.classes + 1).T
            s_relations, t_relations = (vectors @ remembered for vectors in anchors)
            terms[name] = weight * softened_kl(s_relations, t_relations, self.temperature, dim=-1)
        return terms

    @torch.no_grad()
    def _remember(self, vectors: Tensor, mask: Tensor) -> None:
        """Put the teacher's pixels and class means of these images into the queues of their classes."""
        means, present = class_means(vectors, mask, self.classes)
        labels = shrink_mask(mask, vectors.shape[2:])
        for image, label in present.nonzero().tolist():
            self.regions.add(label, means[image, label].unsqueeze(0))
            pixels = vectors[image][:, labels[image] == label].T
            self.pixels.add(label, pixels[torch.randperm(len(pixels))[:NEW_PIXELS].to(pixels.device)])

    def equation(self) -> str:
        maps = f"(t_{self.layer} -> s_{self.layer})"
        parts = ((self.alpha, "P2P"), (self.beta, "MemoryP2P"), (self.gamma, "MemoryP2R"))
        return " + ".join(weighted(weight, f"{symbol}{maps}") for weight, symbol in parts)


class Memory(nn.Module):
    """A queue of vectors for each class: the newest `size`, at L2 norm 1."""

    vectors: Tensor
    added: Tensor
    """How many vectors each class has got so far."""

    def __init__(self, classes: int, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("vectors", torch.zeros(classes, size, width))
        self.register_buffer("added", torch.zeros(classes, dtype=torch.long))

    def add(self, label: int, vectors: Tensor) -> None:
        """vectors: [n, width], which replace the oldest of their class."""
        start = int(self.added[label])
        newest = vectors[-self.size :]
        places = torch.arange(start, start + len(newest), device=vectors.device) % self.size
        self.vectors[label, places] = l2_normalise(newest, dim=1)
        self.added[label] += len(newest)

    def draw(self, count: int) -> Tensor:
        """At most `count` different ones of every class, at random: [n, width]."""
        filled = self.added.clamp(max=self.size).tolist()
        return torch.cat([self.vectors[label, torch.randperm(n)[:count]] for label, n in enumerate(filled)])


def projection(inputs: int, outputs: int) -> nn.Module:
    """The student's head."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=1, bias=False),
        BatchNorm(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, kernel_size=1, bias=False),
    )


def image_relations(maps: Tensor) -> Tensor:
    """Cosines of each patch of each image with all n patches of each image: [B, C, h, w] -> [B * n, B, n]."""
    maps = pool_patches(maps, max_patches=PATCHES)
    vectors = l2_normalise(maps.movedim(1, 3).flatten(0, 2), dim=1)
    relations: Tensor = (vectors @ vectors.T).unflatten(1, (len(maps), -1))
    return relations
