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
from torch.export import Dim, ExportedProgram

from engine.runtime.files import messages
from engine.runtime.metadata import KEY, encode
from engine.runtime.network import INPUT, OUTPUT
from networks.contract import SegmentationNetwork

SHAPE = (2, 1, 96, 64)  # of the image that is followed through the network; a 1 would be taken for a constant
AXES = {0: "batch", 2: "height", 3: "width"}


def trace(network: SegmentationNetwork) -> ExportedProgram:
    """The program of a network in eval mode on the CPU, for any batch, height and width.

    It does not tell where on this machine the code lay.
    """
    dynamic = dict.fromkeys(AXES, Dim.AUTO)
    with quiet():
        program = torch.export.export(network, (torch.zeros(SHAPE),), dynamic_shapes=(dynamic,), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def to_onnx(program: ExportedProgram) -> Any:
    """The program as an ONNX model."""
    with quiet():
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(AXES,),
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
