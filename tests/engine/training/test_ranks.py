"""Several processes train what one trains on the same batches, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
import torch
from torch import Tensor

from datasets.loader import StepBatches
from tests.cluster import free_port
from tests.commands import in_process
from tests.engine.training.ranks import RUNS, VARIANTS, DoubleNetwork, train_all
from tests.paths import ROOT
from tests.small import write_bare_archive
from utils.batch import part_sizes

NAMES = [name or "alone" for name in (*RUNS, *VARIANTS)]


def start(ranks: int, command: list[str]) -> list[subprocess.Popen[str]]:
    """The processes of one training, as torchrun starts them."""
    meeting = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bare_archive(tmp_path_factory.mktemp("slices"), cases=6)


@pytest.fixture(scope="module")
def trained(slices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process, two, and one that torchrun has started leave, in folders 0, 2 and 1."""
    out = tmp_path_factory.mktemp("trained")
    started = []
    for ranks in (1, 2):
        (out / str(ranks)).mkdir()
        program = [sys.executable, "-m", "tests.engine.training.ranks", str(slices), str(out / str(ranks))]
        started += start(ranks, program)
    (out / "0").mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(slices, out / "0")
    torch.set_num_threads(threads)
    for process in started:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    return out


def states(folder: Path, name: str) -> list[dict[str, Tensor]]:
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob(f"{name}.?.pt"))]


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_equal_one_process(trained: Path, name: str) -> None:
    (alone,), both = states(trained / "0", name), states(trained / "2", name)
    assert len(both) == 2
    for state in both:
        assert state.keys() == alone.keys()
        for key, value in alone.items():
            exact = not value.is_floating_point()
            least = 1e-9 if value.dtype == torch.float64 else 1e-5  # of what is measured in float32
            torch.testing.assert_close(state[key], value, rtol=0 if exact else 1e-6, atol=0 if exact else least)


@pytest.mark.parametrize("name", NAMES)
def test_one_rank_is_one_process_bit_for_bit(trained: Path, name: str) -> None:
    (alone,), (rank,) = states(trained / "0", name), states(trained / "1", name)
    assert all(torch.equal(rank[key], value) for key, value in alone.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_runs_learn(trained: Path, name: str) -> None:
    """Equality of networks that stand still would say nothing."""
    torch.manual_seed(0)
    before, (state,) = DoubleNetwork(2).state_dict(), states(trained / "0", name)
    assert (state["network.head.weight"] - before["head.weight"]).abs().max() > 1e-5


def test_only_the_first_rank_writes(trained: Path) -> None:
    assert (trained / "2" / "hlfd" / "last.ckpt").exists()
    (content,) = {torch.load(path, weights_only=True)["step"] for path in trained.glob("2/hlfd/last.ckpt")}
    assert content == RUNS["hlfd"]


@pytest.mark.parametrize(("samples", "parts"), [(8, 3), (2, 4), (5, 1), (6, 6)])
def test_the_parts_of_a_batch_are_the_batch(samples: int, parts: int) -> None:
    whole = StepBatches(9, samples, seed=3, unlabelled=4, unlabelled_per_batch=1)
    whole.steps = range(7)
    pieces = []
    for part in range(parts):
        own = StepBatches(9, samples, seed=3, unlabelled=4, unlabelled_per_batch=1)
        own.steps, own.part, own.parts = whole.steps, part, parts
        pieces.append(list(own))
    for step, batch in enumerate(whole):
        assert whole.size_of(step) == len(batch)
        sizes = part_sizes(len(batch), parts)
        assert sum(sizes) == len(batch) and max(sizes) - min(sizes) <= 1
        joined = [item for own, size in zip(pieces, sizes, strict=True) for item in own[step][:size]]
        assert joined == batch
        assert all(own[step] for own in pieces)


def train(slices: Path, out: Path, *words: object) -> list[str]:
    options = ("--model", "enet", "--train_data_path", slices, "--checkpoint_path", out, "--size", 32, "--crop", 0)
    more = ("--batch_size", 4, "--device", "cpu", "--val_every", 400, "--augment", "none", "--workers", 0)
    return list(map(str, (sys.executable, "train.py", *options, *more, *words)))


def step_of(out: Path) -> int:
    return int(torch.load(out / "last.ckpt", weights_only=True)["step"])


def stop_after(out: Path, step: int, processes: list[int]) -> None:
    """Ask the processes of a training to end when it has saved this step; not before, for they might not listen yet."""
    while step_of(out) < step:
        time.sleep(0.1)
    for process in processes:
        os.kill(process, signal.SIGTERM)


def test_a_killed_rank_ends_all_and_any_number_resumes(slices: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("--steps", 2000, "--save_every", 2, "--resume")
    first, second = start(2, train(slices, out, *words))
    while not (out / "last.ckpt").exists() or step_of(out) < 4:
        assert first.poll() is None and second.poll() is None, first.stderr and first.stderr.read()
        time.sleep(0.2)
    second.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 2 and time.monotonic() - killed < 60
    told = [line for line in errors.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "another process of this training has ended" in told[0] and "--resume" in told[0]
    done = step_of(out)
    assert done >= 4
    # One goes on in this process, which has loaded PyTorch already, and is asked to stop as a process is.
    watcher = Thread(target=stop_after, args=(out, done + 4, [os.getpid()]))
    watcher.start()
    alone = in_process("train.py", *train(slices, out, *words)[2:])
    watcher.join()
    assert alone.returncode == 130 and "interrupted; --resume continues" in alone.stdout, alone
    processes = start(3, train(slices, out, *words))
    stop_after(out, step_of(out) + 4, [process.pid for process in processes])
    ends = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [130] * 3, ends
    assert "interrupted; --resume continues" in ends[0][0] and not any(out for out, _ in ends[1:])


def test_an_error_of_all_is_told_once(slices: Path, tmp_path: Path) -> None:
    processes = start(2, train(slices / "nowhere", tmp_path / "run", "--steps", 2))
    ends = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert sum(errors.count("error: ") for _, errors in ends) == 1
    assert not (tmp_path / "run").exists()
