"""Networks in plans.json: today's form, the earlier one, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from networks.nnunet_plan import read_architecture
from tests.nnunet import settings
from utils.errors import UserError


def configuration(**changes: Any) -> dict[str, Any]:
    """Of the small plans; changes: of the network's arguments."""
    content: dict[str, Any] = settings()["configurations"]["2d"]
    content["architecture"]["arch_kwargs"] |= changes
    return content


def test_both_forms_describe_the_same_network() -> None:
    earlier = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 2,
        "unet_max_num_features": 5,
        "n_conv_per_stage_encoder": [1, 1, 2, 1],
        "n_conv_per_stage_decoder": [1, 1, 1],
        "conv_kernel_sizes": [[3, 3]] * 4,
        "pool_op_kernel_sizes": [[1, 1], [2, 2], [2, 2], [2, 2]],
    }
    assert read_architecture(earlier) == read_architecture(configuration(features_per_stage=[2, 4, 5, 5]))
    with pytest.raises(UserError, match="its network is SwinUNETR"):
        read_architecture({**earlier, "UNet_class_name": "SwinUNETR"})


def test_one_number_stands_for_all_stages_and_both_axes() -> None:
    plan = read_architecture(configuration(kernel_sizes=3, n_conv_per_stage=2, strides=[1, 2, [2, 1], 2]))
    assert plan.kernels == ((3, 3),) * 4 and plan.blocks == (2, 2, 2, 2)
    assert plan.strides == ((1, 1), (2, 2), (2, 1), (2, 2))


def test_plans_are_left_as_they_were() -> None:
    content = configuration()
    read_architecture(content)
    assert content == configuration()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_op": "torch.nn.modules.conv.Conv3d"}, "its convolution is torch.nn.modules.conv.Conv3d"),
        ({"norm_op": "os.system"}, "its norm is os.system"),
        ({"norm_op": None}, "its norm is None"),
        ({"nonlin": "torch.nn.GELU"}, "its activation is torch.nn.GELU"),
        ({"nonlin_first": True}, "its network has the option nonlin_first"),
        ({"squeeze_excitation": True}, "its network has the option squeeze_excitation"),
        ({"norm_op_kwargs": {"affine": True, "track_running_stats": True}}, "has the option track_running_stats"),
        ({"nonlin_kwargs": {"inplace": True, "lambd": 1}}, "its network has the option lambd"),
    ],
)
def test_what_is_not_known_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_architecture(configuration(**changes))


def test_classes_are_compared_and_never_imported() -> None:
    content = configuration()
    content["architecture"]["network_class_name"] = "tests.networks.nnunet_reference.PlainConvUNet"
    with pytest.raises(UserError, match=r"its network is tests\.networks"):
        read_architecture(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": [[2, 2]] * 4},
        {"kernel_sizes": [[2, 2]] * 4},
        {"kernel_sizes": [[99, 99]] * 4},
        {"features_per_stage": [2, 3, 4]},
        {"features_per_stage": [2, 3, 4, 10**9]},
        {"n_stages": 1, "features_per_stage": [2], "kernel_sizes": 3, "strides": 1, "n_conv_per_stage": 1},
        {"n_conv_per_stage": [0, 1, 1, 1]},
        {"n_conv_per_stage": "1111"},
    ],
)
def test_sizes_that_no_network_has_are_no_plans(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_architecture(configuration(**changes))
