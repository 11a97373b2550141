"""scripts/export.py: what its files compute and say, and what scripts/evaluate.py makes of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from torch import Tensor

from engine.evaluation.evaluate import cases_seen_in_training
from engine.export.content import describe_export
from engine.export.onnx_file import save_onnx, to_onnx, trace
from engine.export.verify import smooth_noise, verify
from engine.report.scoring import load_networks
from engine.runtime.files import read_onnx, read_safetensors
from engine.runtime.network import open_network
from engine.saved_segmenter import load_exported, load_segmenter
from networks import build
from tests.commands import error_of, in_process, output_of
from tests.engine.export.conftest import OFFSET, Place
from tests.paths import ROOT
from tests.small import SmallNetwork
from utils.errors import UserError
from utils.fingerprint import file_digest

CPU = torch.device("cpu")


def scores(place: Place, path: Path, out: Path, *words: object) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table and the summary that scripts/evaluate.py writes."""
    source = ("--test_data_path", place.slices, "--outpath", out / "scores.json")
    output_of(in_process("scripts/evaluate.py", "--ckpt", path, *source, *words))
    table = pd.read_csv(out / "scores.csv").drop(columns="seconds", errors="ignore")
    return table, json.loads((out / "scores.json").read_text())


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_files_are_there_and_were_checked(place: Place) -> None:
    names = {path.name for path in place.exported.iterdir()}
    assert names - {"model_int8.onnx", "run.json"} == {"model.onnx", "model.pt2", "model.safetensors", "model_card.md"}
    for name in ("model.onnx", "model.pt2", "model.safetensors"):
        assert f"{name}: as PyTorch at 64 x 64 and 49 x 35, in batches of 1 and 2" in place.printed
    checked = read_onnx(place.exported / "model.onnx")[1]["checked"]
    assert checked["largest_difference"] <= 1e-4 and checked["equal_labels"] >= 0.9999


def test_a_run_file_says_what_was_read(place: Place) -> None:
    (launch,) = json.loads((place.exported / "run.json").read_text())
    assert launch["digests"].keys() == {"checkpoint", "slice contents"} and launch["classes"] == ["tumor"]
    assert launch["digests"]["checkpoint"] == file_digest(place.checkpoint) and launch["seconds"] > 0
    assert launch["command"].startswith("python export.py --ckpt best.ckpt --outpath exported --int8")
    assert str(place.slices.parent) not in (place.exported / "run.json").read_text()


def test_a_run_file_of_something_else_is_told_before_any_work(place: Place, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    line = error_of(in_process("scripts/export.py", "--ckpt", place.checkpoint, "--outpath", tmp_path))
    assert "run.json: is not a list of launches" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("words", [(), ("--decision", "argmax"), ("--threshold", "0.3"), ("--slice_protocol",)])
@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_evaluate_finds_in_an_export_what_it_finds_in_the_checkpoint(
    place: Place, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    """With the decision folded in, too: calibration, thresholds and the slice protocol see the network's own logits."""
    expected, of_checkpoint = scores(place, place.checkpoint, tmp_path, *words)
    found, of_export = scores(place, place.exported / name, tmp_path, *words)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3)
    for key in ("model", "task", "parameters", "gmacs", "gmacs_at", "seen_in_training", "cases"):
        assert of_export[key] == of_checkpoint[key], key


def test_the_decision_is_in_the_bias(place: Place, tmp_path: Path) -> None:
    network = load_segmenter(place.checkpoint, CPU)[0].network
    image = smooth_noise(2, 40, 56)
    with torch.no_grad():
        expected = network(image).numpy()
    (folded,) = session_of(place.exported / "model.onnx").run(None, {"image": image.numpy()})
    np.testing.assert_allclose(folded[:, 1], expected[:, 1] + OFFSET, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(folded[:, 0], expected[:, 0], atol=1e-4 * np.abs(expected).max())
    words = ("--ckpt", place.checkpoint, "--outpath", tmp_path, "--formats", "onnx", "--decision", "argmax")
    output_of(in_process("scripts/export.py", *words))
    (plain,) = session_of(tmp_path / "model.onnx").run(None, {"image": image.numpy()})
    np.testing.assert_allclose(plain, expected, atol=1e-4 * np.abs(expected).max())
    assert load_exported(tmp_path / "model.onnx", "onnxruntime")[0].offsets == ()
    assert {path.name for path in tmp_path.iterdir()} - {"run.json"} == {"model.onnx"}


def test_the_metadata_says_what_a_caller_needs(place: Place) -> None:
    about = json.loads(session_of(place.exported / "model.onnx").get_modelmeta().custom_metadata_map["segmenter"])
    assert about["window"] == [-200.0, 300.0] and about["frame"] == {"size": 64, "crop": 0}
    assert about["task"]["name"] == "tumor" and about["task"]["labels"] == [[2]]
    assert about["codes"] == {"2": {"scheme": "SCT", "value": "108369006", "meaning": "Neoplasm"}}
    assert about["input"]["crop"] == [[0, 64], [0, 64]] and "32 pixels" in about["input"]["sizes"]
    assert about["offsets"] == [] and about["folded_offsets"] == [OFFSET]


def test_no_file_says_where_it_was_made(place: Place) -> None:
    for path in place.exported.iterdir():
        content = path.read_bytes()
        for folder in (ROOT, place.checkpoint.parent.parent, Path(torch.__file__).parent):
            assert str(folder).encode() not in content, path.name
    assert load_exported(place.exported / "model.onnx", "onnxruntime")[1]["config"]["init"] == "first.ckpt"


def test_int8_is_kept_only_where_it_is_worth_it(place: Place) -> None:
    line = next(line for line in place.printed.splitlines() if line.startswith("model_int8.onnx: int8"))
    found = re.search(r"\((minmax|percentile)\): x (\d+\.\d+) the speed, .*, ([+-]\d+\.\d+) points", line)
    assert found, line
    path, (_, speed, points) = place.exported / "model_int8.onnx", found.groups()
    assert path.exists() == ("not kept" not in place.printed)
    if float(speed) < 0.99 or float(points) < -0.51:
        assert not path.exists()


def test_quantised_weights_have_seven_bits_and_activations_none_below_zero(place: Place, tmp_path: Path) -> None:
    from engine.export.int8 import quantise

    content = {**read_onnx(place.exported / "model.onnx")[1], "offsets": []}
    cases = torch.load(place.checkpoint, weights_only=True)["cases"]
    paths = place.exported / "model.onnx", tmp_path / "int8.onnx"
    result = quantise(paths[0], content, cases, load_slices(place), paths[1], 6, vnni=False)
    assert result.dice == pytest.approx(result.dice_fp32, abs=0.1)
    model = onnx.load(tmp_path / "int8.onnx")
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = [value for name, value in tensors.items() if value.dtype == np.int8 and value.ndim == 4]
    assert weights and max(int(np.abs(value.astype(int)).max()) for value in weights) <= 64
    assert any(value.dtype == np.uint8 for value in tensors.values())
    assert load_exported(tmp_path / "int8.onnx", "onnxruntime")[1]["quantised"]["method"] in ("minmax", "percentile")
    assert {path.name for path in tmp_path.iterdir()} == {"int8.onnx"}
    assert {path.name for path in place.exported.parent.iterdir()} == {"slices", "run", "exported"}


def load_slices(place: Place) -> Any:
    from datasets.slices.slice_folder import SliceFolder

    return SliceFolder.open(place.slices, "kits", "tumor")


def test_a_file_that_differs_from_pytorch_is_not_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, other = SmallNetwork(2).eval(), SmallNetwork(2).eval()
    verify(tmp_path / "same.onnx", network, network, [(64, 64)])
    with pytest.raises(UserError, match=r"other\.onnx: differs from PyTorch at 1 x 64 x 64"):
        verify(tmp_path / "other.onnx", network, other, [(64, 64)])


class RoughNetwork(SmallNetwork):
    """In float32 it is off by three times what an exported file may be."""

    def forward(self, image: Tensor) -> Tensor:
        logits = super().forward(image)
        return logits if image.dtype == torch.float64 else logits * (1 + 3e-4)


def test_a_file_may_be_more_exact_than_pytorch_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rough, exact, other = RoughNetwork(2).eval(), SmallNetwork(2).eval(), SmallNetwork(2).eval()
    exact.load_state_dict(rough.state_dict())
    assert verify(tmp_path / "exact.onnx", rough, exact, [(64, 64)])["largest_difference"] < 1e-5
    assert verify(tmp_path / "rough.pt2", rough, rough, [(64, 64)])["largest_difference"] == 0
    with pytest.raises(UserError, match=r"other\.onnx: differs from PyTorch"):
        verify(tmp_path / "other.onnx", rough, other, [(64, 64)])


@pytest.mark.parametrize(("flipped", "refused"), [(1, False), (7, True)])
def test_labels_are_counted_over_all_images(tmp_path: Path, flipped: int, refused: bool) -> None:
    """One in 10,000 may be another's, as where two logits are nearly equal; so many are, in each of two batches."""

    def logits(image: Tensor, flips: int = 0) -> Tensor:
        first = torch.ones_like(image)
        second = first - 1e-6
        second.view(-1)[:flips] += 2e-6
        return torch.cat((first, second), dim=1)

    run = partial(logits, flips=flipped)
    with pytest.raises(UserError, match="of its labels are PyTorch's") if refused else nullcontext():
        verify(tmp_path / "model.onnx", logits, run, [(128, 128)])


@pytest.mark.parametrize("name", ["resnet_18"])
def test_a_network_of_the_registry_runs_at_any_size_and_batch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build(name, classes=3).eval()
    content = {"config": {}, "cases": {"train": [], "val": []}, "folded_offsets": [], "input": {"size": None}}
    content["cost"] = {"parameters": 1, "gmacs": 1.0, "gmacs_at": 64}
    path = tmp_path / "model.onnx"
    save_onnx(to_onnx(trace(network)), content, path)
    exported = open_network(path, *read_onnx(path), classes=3)
    for shape in ((1, 1, 64, 64), (3, 1, 65, 47), (2, 1, 33, 128)):
        image = torch.randn(shape)
        with torch.no_grad():
            expected = network(image)
        assert (exported(image) - expected).abs().max() <= 1e-4 * expected.abs().max(), shape


def test_the_model_card(place: Place, tmp_path: Path) -> None:
    scores(place, place.checkpoint, tmp_path)
    words = ("--ckpt", place.checkpoint, "--outpath", tmp_path / "card", "--formats", "safetensors")
    named = ("--results", tmp_path / "scores.json", "--licence", "CC BY 4.0")
    output_of(in_process("scripts/export.py", *words, *named))
    card = (tmp_path / "card" / "model_card.md").read_text()
    for text in ("`tiny`", "kits, task tumor", "tumor (label 2, SCT 108369006)", "-200 to 300 HU", "64 x 64 pixels"):
        assert text in card, text
    for text in ("3 trained it, 1 chose", "no medical device", "CC BY 4.0", "4 of them chose or trained the network"):
        assert text in card, text
    assert re.search(r"\| tumor \| 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) \|", card), card
    assert "not scored" in (place.exported / "model_card.md").read_text()
    again = tmp_path / "again" / "model.safetensors"
    weights = ("--ckpt", tmp_path / "card" / "model.safetensors", "--outpath", again.parent, "--formats", "safetensors")
    output_of(in_process("scripts/export.py", *weights))
    assert read_safetensors(again)["trained_by"] == read_safetensors(place.exported / again.name)["trained_by"]
    line = error_of(in_process("scripts/export.py", *weights, *named))
    assert "scores.json: are of another file than" in line
    result = json.loads((tmp_path / "scores.json").read_text())
    (tmp_path / "scores.json").write_text(json.dumps({**result, "task": "organ"}))
    line = error_of(in_process("scripts/export.py", *words[:3], tmp_path / "no", *named))
    assert "scores.json" in line and "task organ" in line and not list((tmp_path / "no").iterdir())


def test_the_example_without_this_project(place: Place, tmp_path: Path) -> None:
    """The code of docs/deploy.md, in a process that has neither PyTorch nor the project."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    segmenter, _ = load_segmenter(place.checkpoint, CPU)
    image, _ = load_slices(place).read_case("00003")
    enlarged = np.kron(image[0], np.ones((2, 2), np.int16))[:, :100]
    (tmp_path / "model.onnx").write_bytes((place.exported / "model.onnx").read_bytes())
    np.save(tmp_path / "ct.npy", enlarged)
    check = "import sys\nassert not {'torch', 'engine', 'datasets'} & sys.modules.keys()\n"
    save = "np.save('labels.npy', segment(np.load('ct.npy')))\n"
    subprocess.run([sys.executable, "-c", code + save + check], cwd=tmp_path, check=True)
    labels = np.load(tmp_path / "labels.npy")
    expected = segmenter.source_labels()[segmenter.segment(enlarged[None], (-200.0, 300.0))[0]]
    assert labels.shape == expected.shape and (expected == 2).any()
    assert (labels == expected).mean() > 0.99


def test_openvino_reads_the_same_file(place: Place, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    expected, _ = scores(place, place.checkpoint, tmp_path)
    found, _ = scores(place, place.exported / "model.onnx", tmp_path, "--runtime", "openvino")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_what_was_exported_is_not_trained_on_or_looked_into(place: Place, name: str) -> None:
    with pytest.raises(UserError, match=rf"{re.escape(name)}: was exported; give the checkpoint"):
        load_segmenter(place.exported / name, CPU)


def test_a_report_takes_an_exported_network(place: Place) -> None:
    paths = [place.checkpoint, place.exported / "model.onnx"]
    first, second = load_networks(paths, ["trained", "exported"], "cpu")
    assert first.segmenter.description() == second.segmenter.description()


def test_an_exported_network_leaves_the_arithmetic_of_its_process(place: Place) -> None:
    """In a process of its own, for the first session decides."""
    code = (
        "import numpy as np, torch; from pathlib import Path; from engine.saved_segmenter import load_exported\n"
        f"network = load_exported(Path({str(place.exported / 'model.onnx')!r}), 'onnxruntime')[0].network\n"
        "network(torch.zeros(1, 1, 64, 64))\n"
        "assert np.float32(1e-38) * np.float32(1e-2) > 0"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_names_of_cases_stay_here_and_the_cases_are_known_again(place: Place) -> None:
    segmenter, checkpoint = load_segmenter(place.checkpoint, CPU)
    named = {**checkpoint, "cases": {"train": ["Doe_Jane", "00001"], "val": ["case_7"]}}
    content = describe_export(segmenter, named, place.checkpoint, None)
    assert "Doe" not in json.dumps(content) and content["cases"]["val"] == ["case_7"]
    again = describe_export(segmenter, {**checkpoint, "cases": content["cases"]}, place.checkpoint, None)
    assert again["cases"] == content["cases"]
    assert cases_seen_in_training(content, ["x", "Doe_Jane", "00001"]) == ["00001", "Doe_Jane"]
