"""The architectures of segmentation_models_pytorch with any of its encoders: `smp/<architecture>/<encoder>`.

P. Iakubovskii: Segmentation Models PyTorch, 2019, github.com/qubvel-org/segmentation_models.pytorch.

Encoder stages are the encoder's own maps at strides 2 to 32, decoder stages the outputs of the decoder's own
blocks (`ARCHITECTURES`). Where there are fewer maps than stages, one rule fills the gaps: a stage takes the map
whose stride is nearest (by ratio) to the usual one, which is 2, 4, 8, 16, 32 for e1..e5 and 16, 8, 4, 2 for
d5..d2; the finer of two equally near. A network that needs this says so once, when it is built.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from networks.contract import DECODER, ENCODER, STRIDES, Features, SegmentationNetwork, pad_to_multiple
from networks.pretrained import load_grey, read_weights
from networks.stages import assign
from utils.errors import UserError
from utils.layers import BatchNorm
from utils.registry import match_name, normalise_name

PROBE = 256


class Architecture(NamedTuple):
    """decoder: the modules whose outputs are its maps, coarse to fine. encoder: the same, fine to coarse, where the
    encoder's own maps will not do. divisor: of the image's sizes, where the encoder's is too small."""

    decoder: tuple[str, ...]
    encoder: tuple[str, ...] = ()
    divisor: int = 0


BLOCKS = Architecture(tuple(f"decoder.blocks.{i}" for i in range(4)))
ARCHITECTURES = {
    # Ronneberger et al. 2015, arXiv 1505.04597
    "unet": BLOCKS,
    # Zhou et al. 2018, arXiv 1807.10165; x_0_i is the last nested node of its resolution
    "unetplusplus": Architecture(tuple(f"decoder.blocks.x_0_{i}" for i in range(4))),
    # Fan et al. 2020, IEEE Access 8
    "manet": BLOCKS,
    # Chaurasia and Culurciello 2017, arXiv 1707.03718
    "linknet": BLOCKS,
    # Kirillov et al. 2019, arXiv 1901.02446; the pyramid, then the merged maps
    "fpn": Architecture(("decoder.p4", "decoder.p3", "decoder.p2", "decoder.merge")),
    # Zhao et al. 2017, arXiv 1612.01105
    "pspnet": Architecture(("decoder.conv",)),
    # Chen et al. 2017, arXiv 1706.05587
    "deeplabv3": Architecture(("decoder.relu",)),
    # Chen et al. 2018, arXiv 1802.02611
    "deeplabv3plus": Architecture(("decoder.aspp", "decoder.block2")),
    # Li et al. 2018, arXiv 1805.10180; its attention halves the map of stride 16 three times more
    "pan": Architecture(("decoder.gau3", "decoder.gau2", "decoder.gau1"), divisor=128),
    # Xiao et al. 2018, arXiv 1807.10221; the pyramid, then the fused maps
    "upernet": Architecture((*(f"decoder.fpn_conv_blocks.{i}" for i in range(3)), "decoder.fusion_block")),
    # Xie et al. 2021, arXiv 2105.15203; the projected stages, then the fused ones
    "segformer": Architecture((*(f"decoder.mlp_stage.{i}" for i in (1, 2, 3)), "decoder.fuse_stage")),
    # Ranftl et al. 2021, arXiv 2103.13413; a ViT's maps all have one size until they are reassembled
    "dpt": Architecture(
        tuple(f"decoder.fusion_blocks.{i}" for i in range(4)),
        encoder=tuple(f"decoder.reassemble_blocks.{i}" for i in range(4)),
        divisor=32,
    ),
}
OPTIONS: dict[str, dict[str, Any]] = {"dpt": {"dynamic_img_size": True}}


class MapRecorder:
    """Keeps what named modules return, from one forward pass to the `take` that follows it."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.outputs: dict[str, Any] = {}
        for name in names:
            model.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.outputs[name] = output

    def take(self) -> dict[str, Any]:
        outputs, self.outputs = self.outputs, {}
        return outputs


class Skipped(nn.Module):
    """In place of a block whose result nobody uses, since some encoders go on calling it."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x


class SmpNetwork(SegmentationNetwork):
    """One of `ARCHITECTURES` on one of smp's encoders, both by their exact names.

    Images are padded to the network's divisor and the logits cropped back; the stages keep the padded sizes.
    Blocks that the architecture never uses (PSPNet stops at stride 8) are left out.
    """

    def __init__(self, architecture: str, encoder: str, classes: int, pretrained: bool | Path = False) -> None:
        super().__init__(classes)
        self.name = f"smp/{architecture}/{encoder}"
        self.architecture = ARCHITECTURES[architecture]
        self.model = _create(architecture, encoder, classes, pretrained)
        for module in self.model.modules():
            if type(module) is nn.BatchNorm2d:
                # The subclass has the same state: only its training step on one value per channel differs.
                module.__class__ = BatchNorm
            elif isinstance(module, nn.Dropout2d):
                # In place it would also change the map before it, which is a stage.
                module.inplace = False
        self.divisor = self.architecture.divisor or self.model.encoder.output_stride
        self._recorder = MapRecorder(self.model, ("encoder", *self.architecture.encoder, *self.architecture.decoder))
        self._arrange()

    def features(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        encoder, decoder, logits = self._run(pad_to_multiple(image, self.divisor))
        return Features(
            tuple(encoder[i] for i in self._encoder_maps),
            tuple(decoder[i] for i in self._decoder_maps),
            logits[..., :height, :width],
        )

    def _run(self, image: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The encoder's maps, the decoder's maps and the logits; smp gives missing stages zero channels."""
        logits: Tensor = self.model(image)
        outputs = self._recorder.take()
        encoder = [outputs[name] for name in self.architecture.encoder] or outputs["encoder"][1:]
        return (
            [maps for maps in encoder if maps.shape[1]],
            [outputs[name] for name in self.architecture.decoder],
            logits,
        )

    @torch.enable_grad()
    def _arrange(self) -> None:
        """Learn what maps there are from runs without data, assign them to the stages, drop what is unused."""
        blank = torch.empty(1, 1, PROBE, PROBE, device="meta")
        probe = deepcopy(self).to("meta").eval()
        try:
            encoder, decoder, logits = probe._run(blank)
            total = torch.stack([maps.sum() for maps in (*encoder, *decoder, logits)]).sum()
            gradients = torch.autograd.grad(total, list(probe.model.parameters()), allow_unused=True)
            used = {id(own) for own, g in zip(self.model.parameters(), gradients, strict=True) if g is not None}
            _drop_unused(self.model, used)
            deepcopy(self).to("meta").eval()._run(blank)
        except Exception as error:
            raise UserError(f"{self.name}: does not work ({_reason(error)}); choose another encoder") from None
        encoder_strides, decoder_strides = ([PROBE // maps.shape[-1] for maps in side] for side in (encoder, decoder))
        self._encoder_maps = assign(encoder_strides, STRIDES)
        self._decoder_maps = assign(decoder_strides, STRIDES[3::-1])
        self.encoder_channels = tuple(encoder[i].shape[1] for i in self._encoder_maps)
        self.decoder_channels = tuple(decoder[i].shape[1] for i in self._decoder_maps)
        self.encoder_strides = tuple(encoder_strides[i] for i in self._encoder_maps)
        self.decoder_strides = tuple(decoder_strides[i] for i in self._decoder_maps)
        shared = [
            *_shared(self._encoder_maps, encoder_strides, ENCODER),
            *_shared(self._decoder_maps, decoder_strides, DECODER),
        ]
        if shared:
            _announce(f"note: {self.name} has fewer maps than stages: {'; '.join(shared)}")


def _shared(chosen: Sequence[int], strides: Sequence[int], stages: Sequence[str]) -> list[str]:
    """`e1 and e2 are one map, of stride 4`, for every map that is more than one stage."""
    groups = {i: [stage for stage, j in zip(stages, chosen, strict=True) if i == j] for i in chosen}
    return [
        f"{', '.join(group[:-1])} and {group[-1]} are one map, of stride {strides[i]}"
        for i, group in groups.items()
        if len(group) > 1
    ]


@cache
def _announce(message: str) -> None:
    print(message, file=sys.stderr)


def _create(architecture: str, encoder: str, classes: int, pretrained: bool | Path) -> Any:
    make = partial(
        smp.create_model, architecture, encoder, in_channels=1, classes=classes, **OPTIONS.get(architecture, {})
    )
    # smp, timm and the download raise all kinds of exceptions, whose messages the user needs.
    try:
        # Random weights are drawn once, whether ImageNet's replace them or not.
        with torch.random.fork_rng(devices=[], enabled=pretrained is True):
            model = make(encoder_weights=None)
    except Exception as error:
        raise UserError(f"smp/{architecture}/{encoder}: does not exist ({_reason(error)}); choose another") from None
    if pretrained is True:
        try:
            model = make(encoder_weights=True if encoder.startswith("tu-") else "imagenet")
        except Exception as error:
            raise UserError(
                f"ImageNet weights of {encoder}: cannot be had ({_reason(error)}); give the path of a file with a "
                "state dict of the encoder, or train without them"
            ) from None
    elif pretrained:
        load_grey(model.encoder, read_weights(pretrained), pretrained, f"smp's encoder {encoder}")
    return model


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _drop_unused(module: nn.Module, used: set[int]) -> None:
    """Take out every block of which no parameter is used."""
    for name, child in list(module.named_children()):
        parameters = {id(parameter) for parameter in child.parameters()}
        if parameters and not parameters & used:
            setattr(module, name, Skipped())
        else:
            _drop_unused(child, used)


def full_name(name: str) -> str:
    """The exact form of a name `smp/<architecture>/<encoder>`; UserError if there is none."""
    _, _, pair = name.partition("/")
    architecture, _, encoder = pair.partition("/")
    architecture = match_name("architecture of segmentation_models_pytorch", architecture, ARCHITECTURES)
    encoder, dot, tag = encoder.partition(".")
    encoders = {
        normalise_name(exact): exact
        for exact in (*smp.encoders.get_encoder_names(), *map("tu-{}".format, timm.list_models()))
    }
    if normalise_name(encoder) not in encoders or "/" in tag:
        matches = difflib.get_close_matches(normalise_name(encoder), encoders, n=6, cutoff=0)
        near = [encoders[match] for match in matches]
        raise UserError(
            f"there is no encoder {encoder!r} in segmentation_models_pytorch: choose one of resnet34, efficientnet-b0, "
            f"mobilenet_v2, mit_b1, ..., or any model of timm as tu-<name>; the nearest names are {', '.join(near)}"
        )
    return f"smp/{architecture}/{encoders[normalise_name(encoder)]}{dot}{tag}"


def smp_network(name: str, classes: int, pretrained: bool | Path = False) -> SmpNetwork:
    """The network of a name `smp/<architecture>/<encoder>`, with `pretrained` as for every network."""
    _, architecture, encoder = full_name(name).split("/")
    return SmpNetwork(architecture, encoder, classes, pretrained)


unetplusplus = partial(smp_network, "smp/unetplusplus/resnet34")
deeplabv3plus = partial(smp_network, "smp/deeplabv3plus/resnet34")
pspnet = partial(smp_network, "smp/pspnet/resnet34")
fpn = partial(smp_network, "smp/fpn/resnet34")
segformer = partial(smp_network, "smp/segformer/mit_b1")
