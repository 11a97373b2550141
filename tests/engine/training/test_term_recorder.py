"""What a recorder of terms writes, and how it continues."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distillation.distiller import Distiller
from distillation.teacher import NetworkTeacher
from engine.training.term_recorder import TermRecorder, read_records
from tests.golden.features import random_batch
from tests.small import TinyNetwork, make_method
from utils.errors import UserError


def test_recorder_writes_values_and_gradients_every_few_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student, teacher = (TinyNetwork((3, 4, 5, 6, 7), (), 2, classes=2) for _ in range(2))
    method = make_method("skd", student.channels, teacher.channels)
    recorder = TermRecorder(tmp_path / "run" / "terms.jsonl", every=2)
    task = Distiller(student, NetworkTeacher(teacher), method, observe=recorder)
    for step in range(3):
        task.before_step(step, 3)
        terms = task(random_batch())
    task.eval()(random_batch())
    records = read_records(tmp_path / "run" / "terms.jsonl")
    assert [record["step"] for record in records] == [0, 2]
    assert records[1]["values"] == {term: value.item() for term, value in terms.items() if term != "loss"}
    assert records[1]["norms"]["imd_e5"]["head"] == 0 < records[1]["norms"]["imd_e5"]["down.0"]


def test_recorder_continues_at_a_step_and_drops_what_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "terms.jsonl"
    path.write_text(
        "".join(f'{{"step": {step}, "values": {{}}, "norms": {{}}}}\n' for step in (0, 2, 4)) + '{"step": 6, "v'
    )
    assert [record["step"] for record in read_records(path)] == [0, 2, 4]
    recorder, weight = TermRecorder(path, every=2), torch.nn.Linear(1, 1)
    for step in range(3, 7):
        recorder(step, {"term": weight(torch.ones(1)).sum()}, weight)
    assert [record["step"] for record in read_records(path)] == [0, 2, 4, 6]
    assert [bool(record["values"]) for record in read_records(path)] == [False, False, True, True]
    TermRecorder(path, every=2)(0, {"term": weight(torch.ones(1)).sum()}, weight)
    assert [record["step"] for record in read_records(path)] == [0]


def test_records_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "terms.jsonl"
    path.write_text('{"step": 0, "val\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"terms\.jsonl: is not what train_kd\.py --record_terms writes"):
        read_records(path)
