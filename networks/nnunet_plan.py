"""The network in nnU-Net's plans.json, read as data: its names of classes are compared, and never imported."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from networks.nnunet import Architecture, Pair
from utils.errors import UserError

NETWORKS = {
    "dynamic_network_architectures.architectures.unet.PlainConvUNet": False,
    "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet": True,
    "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet": True,
}
"""The classes that are known, and whether their encoder has residual blocks."""
NORMS = {"torch.nn.modules.instancenorm.InstanceNorm2d": False, "torch.nn.modules.batchnorm.BatchNorm2d": True}
ACTIVATIONS = {
    "torch.nn.LeakyReLU": 0.01,
    "torch.nn.modules.activation.LeakyReLU": 0.01,
    "torch.nn.ReLU": 0.0,
    "torch.nn.modules.activation.ReLU": 0.0,
}
"""The slopes below zero that they have by themselves."""
UNNAMED = ("dropout_op", "dropout_op_kwargs", "block", "bottleneck_channels", "stem_channels", "nonlin_first")
"""Arguments that the two networks take, and that nnU-Net's plans leave empty."""


def read_architecture(configuration: Mapping[str, Any]) -> Architecture:
    """The network of a 2D configuration, in the form of today or of before nnU-Net 2.4.

    UserError, which says what is not known here; KeyError, TypeError or ValueError where the form is another.
    """
    if "architecture" not in configuration:
        return _read_earlier(configuration)
    content = configuration["architecture"]
    name = content["network_class_name"]
    if name not in NETWORKS:
        raise UserError(f"its network is {name}")
    residual, given = NETWORKS[name], dict(content["arch_kwargs"])
    blocks = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    norm_options, slope_options = (dict(given.pop(name) or {}) for name in ("norm_op_kwargs", "nonlin_kwargs"))
    conv, norm, activation = given.pop("conv_op"), given.pop("norm_op"), given.pop("nonlin")
    for kind, value, known in (
        ("convolution", conv, ("torch.nn.modules.conv.Conv2d",)),
        ("norm", norm, NORMS),
        ("activation", activation, ACTIVATIONS),
    ):
        if value not in known:
            raise UserError(f"its {kind} is {value}")
    stages = operator.index(given.pop("n_stages"))
    plan = Architecture(
        residual=residual,
        features=_counts(given.pop("features_per_stage"), stages),
        kernels=_pairs(given.pop("kernel_sizes"), stages),
        strides=_pairs(given.pop("strides"), stages),
        blocks=_counts(given.pop(blocks), stages),
        decoder_convs=_counts(given.pop("n_conv_per_stage_decoder"), stages - 1),
        conv_bias=bool(given.pop("conv_bias", False)),
        batch_norm=NORMS[norm],
        norm_eps=float(norm_options.pop("eps", 1e-5)),
        norm_affine=bool(norm_options.pop("affine", NORMS[norm])),
        negative_slope=float(slope_options.pop("negative_slope", ACTIVATIONS[activation])),
    )
    slope_options.pop("inplace", None)
    unknown = [name for name, value in given.items() if name not in UNNAMED or value]
    if unknown := [*unknown, *norm_options, *slope_options]:
        raise UserError(f"its network has the option {unknown[0]}")
    return _checked(plan)


def _read_earlier(configuration: Mapping[str, Any]) -> Architecture:
    """The form that has no `architecture`, of which nnU-Net 2.4 and later make the same network as this does."""
    name = configuration["UNet_class_name"]
    if name not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise UserError(f"its network is {name}")
    blocks = configuration["n_conv_per_stage_encoder"]
    stages = len(blocks)
    first, most = (operator.index(configuration[key]) for key in ("UNet_base_num_features", "unet_max_num_features"))
    plan = Architecture(
        residual=name == "ResidualEncoderUNet",
        features=tuple(min(first * 2**i, most) for i in range(stages)),
        kernels=_pairs(configuration["conv_kernel_sizes"], stages),
        strides=_pairs(configuration["pool_op_kernel_sizes"], stages),
        blocks=_counts(blocks, stages),
        decoder_convs=_counts(configuration["n_conv_per_stage_decoder"], stages - 1),
    )
    return _checked(plan)


def _checked(plan: Architecture) -> Architecture:
    """The same; ValueError for sizes that no network of nnU-Net has."""
    sides = [side for pair in (*plan.kernels, *plan.strides) for side in pair]
    counts = (*plan.features, *plan.blocks, *plan.decoder_convs)
    if not 2 <= len(plan.features) <= 16 or plan.strides[0] != (1, 1):
        raise ValueError("its first stage is not at the image's resolution, or it has no other")
    if not all(1 <= side <= 15 for side in sides) or not all(1 <= count <= 4096 for count in counts):
        raise ValueError("its sizes are out of range")
    if any(side % 2 == 0 for pair in plan.kernels for side in pair):
        raise ValueError("its kernels have no middle")
    return plan


def _counts(value: int | Sequence[int], stages: int) -> tuple[int, ...]:
    """A number for each stage; one stands for all."""
    values = [value] * stages if isinstance(value, int) else value
    return tuple(operator.index(each) for each in _of_length(values, stages))


def _pairs(value: int | Sequence[int | Sequence[int]], stages: int) -> tuple[Pair, ...]:
    """(rows, columns) for each stage; one number stands for both, and one for all."""
    values = [value] * stages if isinstance(value, int) else value
    pairs = [_counts(each, 2) for each in _of_length(values, stages)]
    return tuple((rows, columns) for rows, columns in pairs)


def _of_length(values: Sequence[Any], length: int) -> Sequence[Any]:
    if len(values) != length:
        raise ValueError(f"{len(values)} values for {length} stages")
    return values
