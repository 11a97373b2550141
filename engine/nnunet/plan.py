"""What plans.json says about a 2D configuration: its network, and what is done to an image before and after it."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from networks.nnunet import Architecture, Pair
from networks.nnunet_plan import read_architecture
from utils.errors import UserError

CT = "CTNormalization"
RESAMPLING = "resample_data_or_seg_to_shape"
AS_STORED, REORIENTED = ("SimpleITKIO", "NibabelIO"), ("NibabelIOWithReorient",)
"""What reads an image's axes as they are stored, and what turns them to right, anterior and superior first."""
MOST_PARENTS = 8
LARGEST_PATCH = 4096
SPACINGS = (0.01, 100.0)


@dataclass(frozen=True)
class Plan:
    """A 2D configuration. Rows and columns are those of nnU-Net's own planes.

    patch: (rows, columns) that the network was trained on; spacing: of its pixels in mm; low, high, mean, std: of the
    normalisation, in physical units; transpose: nnU-Net's order of the axes that it reads; reorients: whether it turns
    images to RAS before; image_order, logits_order: of the splines; separate_z: None lets the spacing decide;
    median: (rows, columns) of the images that it was planned for, as they are stored.
    """

    architecture: Architecture
    patch: Pair
    spacing: tuple[float, float]
    low: float
    high: float
    mean: float
    std: float
    transpose: tuple[int, int, int]
    reorients: bool
    image_order: int
    logits_order: int
    separate_z: bool | None
    median: Pair

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest normalised value."""
        return (self.low - self.mean) / self.std, (self.high - self.mean) / self.std


def read_plan(content: Mapping[str, Any], name: str) -> Plan:
    """The configuration of this name in a plans.json.

    UserError, which says what of it is not known here; KeyError, TypeError or ValueError where the form is another.
    """
    configuration = _configuration(content["configurations"], name)
    patch = tuple(map(operator.index, configuration["patch_size"]))
    if len(patch) != 2:
        raise UserError(f"its configuration {name} is of {len(patch)} dimensions")
    if configuration.get("previous_stage"):
        raise UserError(f"its configuration {name} is the second stage of a cascade")
    data, logits = (configuration[f"resampling_fn_{kind}_kwargs"] for kind in ("data", "probabilities"))
    for what, value, known in (
        ("preprocessor", configuration.get("preprocessor_name"), "DefaultPreprocessor"),
        ("normalisation", "".join(configuration["normalization_schemes"]), CT),
        ("resampling", configuration["resampling_fn_data"], RESAMPLING),
        ("resampling", configuration["resampling_fn_probabilities"], RESAMPLING),
    ):
        if value != known:
            raise UserError(f"its {what} is {value}")
    reader = content["image_reader_writer"]
    if reader not in (*AS_STORED, *REORIENTED):
        raise UserError(f"its images are read by {reader}")
    intensities = content["foreground_intensity_properties_per_channel"]["0"]
    rows, columns = (float(length) for length in configuration["spacing"])
    first, second, third = map(operator.index, content["transpose_forward"])
    median = [round(float(length)) for length in content["original_median_shape_after_transp"]]
    plan = Plan(
        architecture=read_architecture(configuration),
        patch=(patch[0], patch[1]),
        spacing=(rows, columns),
        low=float(intensities["percentile_00_5"]),
        high=float(intensities["percentile_99_5"]),
        mean=float(intensities["mean"]),
        std=max(float(intensities["std"]), 1e-8),
        transpose=(first, second, third),
        reorients=reader in REORIENTED,
        image_order=operator.index(data["order"]),
        logits_order=operator.index(logits["order"]),
        separate_z=data.get("force_separate_z"),
        median=(median[-2], median[-1]),
    )
    return _checked(plan)


def _checked(plan: Plan) -> Plan:
    """The same; ValueError for numbers that no plan of nnU-Net has, which would fill the memory or give no answer."""
    steps = [math.prod(sides) for sides in zip(*plan.architecture.strides, strict=True)]
    if any(not 0 < side <= LARGEST_PATCH or side % step for side, step in zip(plan.patch, steps, strict=True)):
        raise ValueError("its patch is none of its network")
    if not all(SPACINGS[0] <= length <= SPACINGS[1] for length in plan.spacing):
        raise ValueError("its spacing is none in mm")
    if not (math.isfinite(plan.mean) and math.isfinite(plan.std) and -math.inf < plan.low < plan.high < math.inf):
        raise ValueError("its intensities are none")
    if sorted(plan.transpose) != [0, 1, 2] or not {plan.image_order, plan.logits_order} <= set(range(6)):
        raise ValueError("its order of axes or of splines is none")
    return plan


def _configuration(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The configuration, with what it inherits; its network is named as one thing, and is inherited as one."""
    content: dict[str, Any] = {}
    parent: str | None = name
    for _ in range(MOST_PARENTS):
        if parent is None:
            return content
        content = {**configurations[parent], **content}
        parent = configurations[parent].get("inherits_from")
    raise ValueError(f"configuration {name} inherits without end")
