"""Prep.ipynb runs from a fresh clone, on the phantoms that it makes itself, and is committed without outputs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from engine.segmenter import Segmenter
from networks import build

NOTEBOOK = Path(__file__).parent.parent / "Prep.ipynb"


def test_it_holds_no_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


def test_its_command_for_training_fits_its_phantoms() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    (size,) = (re.search(r'"--size",\s*(\d+)', cell.source)[1] for cell in cells if "make_phantom.py" in cell.source)
    (line,) = (line for cell in cells for line in cell.source.splitlines() if line.startswith("python train.py"))
    arguments = shlex.split(line)
    assert arguments[arguments.index("--size") + 1] == size and arguments[arguments.index("--crop") + 1] == "0"


def test_it_runs_on_phantoms_and_ends_with_what_a_network_sees(tmp_path: Path) -> None:
    network = build("malunet", 2)
    kits = Segmenter(network, "malunet", "kits", organ_and_tumor()["tumor"], Frame(128, 0), (-200.0, 300.0))
    content = {"weights": network.state_dict(), "cases": {"train": [], "val": []}, "config": {}, "epoch": 1}
    (tmp_path / "teacher").mkdir()
    torch.save({**kits.description(), **content}, tmp_path / "teacher" / "best.ckpt")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(cell for cell in notebook.cells if 'OUT = Path("runs/prep")' in cell.source)
    settings.source = settings.source.replace('"runs/prep"', repr(str(tmp_path)))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.execute()
    printed = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "stream"
    )
    assert "6 cases are valid, 0 are not" in printed
    assert (tmp_path / "slices" / "train" / "cases.json").exists()
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 6
    assert "Grad-CAM of tumor" in printed
