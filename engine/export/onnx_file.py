"""Networks as torch.export and ONNX programs for any batch and size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from engine.runtime.files import messages
from engine.runtime.metadata import KEY, encode
from engine.runtime.network import INPUT, OUTPUT
from networks.contract import SegmentationNetwork

SHAPE = (2, 1, 96, 64)  # of the image that is followed through the network; a 1 would be taken for a constant
AXES = {0: "batch", 2: "height", 3: "width"}


def takes_one_size(network: nn.Module) -> bool:
    """Whether a network's program is for one size alone: pooling to a grid divides the image when it is exported."""
    pools = [each.output_size for each in network.modules() if isinstance(each, nn.AdaptiveAvgPool2d)]
    return any(size not in (1, (1, 1)) for size in pools)


def trace(network: SegmentationNetwork, side: int | None = None) -> ExportedProgram:
    """The program of a network in eval mode on the CPU, for any batch, height and width.

    side: pixels a side of the only images that it then takes. It does not tell where on this machine the code lay.
    """
    shape = SHAPE if side is None else (*SHAPE[:2], side, side)
    with quiet():
        program = torch.export.export(
            network, (torch.zeros(shape),), dynamic_shapes=(dict.fromkeys(axes(side), Dim.AUTO),), strict=False
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def axes(side: int | None) -> dict[int, str]:
    """Dimensions of the image that are not fixed, and their names."""
    return AXES if side is None else {0: AXES[0]}


def to_onnx(program: ExportedProgram, side: int | None = None) -> Any:
    """The program as an ONNX model; side: as `trace` was given it."""
    with quiet():
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(axes(side),),
        )
    assert exported is not None
    model = exported.model_proto
    for message in messages(model):
        # Notes of the exporter on every node, which say where it was written.
        for field in {"metadata_props", "doc_string"}.intersection(message.DESCRIPTOR.fields_by_name):
            message.ClearField(field)
    return model


def save_onnx(model: Any, content: Mapping[str, Any], path: Path) -> None:
    """Write a model with its metadata, in place of what it had."""
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=encode(content))
    path.write_bytes(model.SerializeToString())


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters write and print many lines about what they try, which no user can act on; errors are raised anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
