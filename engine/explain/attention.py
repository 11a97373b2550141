"""Grad-CAM and Grad-CAM++ of one class at the stages of the feature contract, computed by medcam.

R. R. Selvaraju et al.: Grad-CAM, ICCV 2017 (arXiv 1610.02391); A. Chattopadhay et al.: Grad-CAM++, WACV 2018 (arXiv
1710.11063). K. Gotkowski et al.: M3d-CAM, BVM 2021 (arXiv 2007.00453), whose package medcam is.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from medcam import medcam
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets.frame import Frame
from datasets.window import window_image
from engine.segmenter import Segmenter
from networks.contract import STAGES, SegmentationNetwork, resize
from utils.errors import UserError

Maps = NDArray[np.float32]
METHODS = {"gcam": "Grad-CAM", "gcampp": "Grad-CAM++"}


class ClassLogit(nn.Module):
    """The logit of one class, [B, 1, H, W]; every stage passes through a module of its own name.

    medcam finds layers by the names of modules, and the stages of a network are tensors, which may be the output of no
    module alone. An identity gives back the tensor itself, so its hooks see the stage on its way to the logits.
    """

    def __init__(self, network: SegmentationNetwork, target: int) -> None:
        super().__init__()
        self.network = network
        self.target = target
        self.stages = nn.ModuleDict({name: nn.Identity() for name in STAGES if name != "logits"})

    def forward(self, image: Tensor) -> Tensor:
        features = self.network.features(image)
        for name, identity in self.stages.items():
            identity(features.stage(name))
        return features.logits[:, self.target : self.target + 1]


class Attention:
    """Maps of one network by one method; the network itself is left alone.

    target: the class index. The score whose gradients weigh the channels is the class's logit, summed over all pixels.
    """

    def __init__(self, segmenter: Segmenter, target: int, layers: Sequence[str], method: str) -> None:
        self.frame = segmenter.frame
        self.model = segmenter.model
        self.method = method
        self.layers = tuple(layers)
        self.strides = [segmenter.network.channels.stage(name).stride for name in layers]
        # Gradients go to the image, not to the weights, which is half the work. A copy, because medcam changes it.
        score = ClassLogit(deepcopy(segmenter.network).requires_grad_(False), target)
        injected = medcam.inject(score, backend=method, layer=[f"stages.{name}" for name in layers], label=0)
        self.backend = injected.medcam_dict["model_backend"]

    def __call__(self, image: NDArray[np.int16], window: tuple[float, float]) -> Maps:
        """[N, layers, H, W] in the pixels of the slices [N, H, W], one batch; 0 outside of what the network sees.

        medcam stretches each map from its least value, 0 as a rule, to its largest: 0 to 1. A map without any contrast,
        or that is not finite, is 0 everywhere. UserError for a stage that does not lead to the logits.
        """
        values = torch.from_numpy(window_image(image, *window)).to(self.backend.device)
        framed = self.frame.image(values).unsqueeze(1).requires_grad_()
        try:
            with torch.enable_grad():
                _, by_layer, *_ = self.backend.generate_attention_map(framed, None)
        except ValueError as error:
            raise UserError(f"{self.model}: {error}; choose other --layers") from None
        size = framed.shape[2:]
        maps = [
            # In a batch, medcam divides 0 by 0 in a map without contrast.
            in_input(torch.from_numpy(by_layer[f"stages.{name}"]).nan_to_num(0.0, 0.0, 0.0), stride, size)
            for name, stride in zip(self.layers, self.strides, strict=True)
        ]
        return back_to_slices(self.frame, torch.cat(maps, dim=1), image.shape[1:])


def in_input(maps: Tensor, stride: int, size: torch.Size) -> Tensor:
    """[n, C, h, w] of a stage, at the (H, W) of the network's input, which networks pad to a multiple of a stride."""
    covered = [max(length, stride * cells) for length, cells in zip(size, maps.shape[2:], strict=True)]
    return resize(maps, covered)[..., : size[0], : size[1]]


def back_to_slices(frame: Frame, maps: Tensor, shape: tuple[int, ...]) -> Maps:
    """[n, C, h, w] in a frame -> [n, C, H, W] in the slices' own pixels, 0 outside of the frame."""
    background = maps.new_zeros(len(maps), 1, *maps.shape[2:])
    full = frame.back(torch.cat([background, maps], dim=1), (shape[0], shape[1]))
    return full[:, 1:].numpy()


def field_of_view(frame: Frame, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """[H, W]: 1 where the network sees the slice, 0 elsewhere."""
    side = [frame.side or length for length in shape]
    field: NDArray[np.float32] = back_to_slices(frame, torch.ones(1, 1, *side), shape)[0, 0]
    return field
