"""Times a prediction from NIfTI to NIfTI against the network's bare forward passes, and measures its memory.

    python scripts/bench_predict.py --ckpt student/best.ckpt --inpath case.nii.gz
    python scripts/bench_predict.py --model malunet --slices 120 --repeats 5 --memory_slices 735

Both go over the same slices in the same batches, on the same device and threads, and take turns, so that a busy machine
slows both; medians are compared. From NIfTI to NIfTI: everything that predict.py does but start Python and load the
network. On a machine that is busy with other things processor time, of all threads together, tells more.
Memory is the most that a predict.py of its own holds, for a volume of --memory_slices slices.
Without --ckpt the network is untrained, which finds much, without --inpath the image is a phantom.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import _root

from utils.errors import UserError, run
from utils.numbers import NonNegativeInt, PositiveInt
from utils.options import Parser, option

if TYPE_CHECKING:
    from engine.segmenter import Segmenter


@dataclass(frozen=True)
class BenchOptions:
    """what is timed"""

    ckpt: Path | None = option(None, "a checkpoint of train.py or train_kd.py")
    model: str = option("malunet", "without --ckpt, the network's name")
    inpath: Path | None = option(None, "a .nii or .nii.gz file")
    size: PositiveInt = option(512, "without --inpath, pixels along a side of a slice")
    slices: PositiveInt = option(120, "without --inpath, their number")
    batch_size: PositiveInt = option(8, "slices at once")
    repeats: PositiveInt = option(5, "timed turns")
    memory_slices: NonNegativeInt = option(0, "slices of the volume that memory is measured with; 0: do not measure")
    probabilities: bool = option(False, "measure memory with --probabilities of predict.py")
    device: str = option("cpu", "auto, cpu, cuda, cuda:1 or mps")


def main() -> None:
    (options,) = Parser(__doc__).read(BenchOptions)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = options.inpath or draw_image(folder / "phantom", options)
        ckpt = options.ckpt or save_untrained(folder / "untrained.ckpt", options.model)
        if options.memory_slices:
            long = write_longer(image, folder / "long.nii.gz", options.memory_slices)
            gigabytes = peak_memory(ckpt, long, folder / "long", options)
            print(f"memory, {options.memory_slices} slices: {gigabytes:.2f} GB", flush=True)
        compare(ckpt, image, folder / "out", options)


def compare(ckpt: Path, image: Path, outpath: Path, options: BenchOptions) -> None:
    import torch

    from datasets.raw.options import DicomOptions, IntensityOptions
    from engine.cost import measure_in_turns
    from engine.options import PredictionOptions
    from engine.prediction.carry_out import predict_cases
    from engine.prediction.options import OutputOptions
    from engine.prediction.outputs import Reports
    from engine.prediction.record import made_by
    from engine.saved_segmenter import open_segmenter
    from utils.files import read_json

    prediction = PredictionOptions(ckpt, batch_size=options.batch_size, device=options.device)
    files, reading = OutputOptions(image, outpath, overwrite=True), IntensityOptions(any_intensity=True)
    segmenter, _ = open_segmenter(prediction)
    made = made_by(segmenter, prediction, files, reading, DicomOptions())

    def from_file_to_file() -> None:
        predict_cases(segmenter, made, prediction, files, reading, DicomOptions())

    forward = make_forward(segmenter, image, options.batch_size)
    processor: dict[str, list[float]] = {}
    steps = {
        name: with_processor_time(step, processor.setdefault(name, []))
        for name, step in (("forward", forward), ("NIfTI to NIfTI", from_file_to_file))
    }
    with contextlib.redirect_stdout(io.StringIO()):
        costs = measure_in_turns(steps, options.repeats, segmenter.device)
    (entry,) = read_json(Reports.of(files).run)["cases"].values()
    count = entry["shape"][0]
    for name, cost in costs.items():
        print(
            f"{name:15} {1000 * cost.median / count:8.2f} ms a slice   {count / cost.median:7.1f} slices/s   "
            f"{1000 * median(processor[name][1:]) / count:8.2f} ms of processor time"
        )
    share = costs["forward"].median / costs["NIfTI to NIfTI"].median
    threads = f"{torch.get_num_threads()} threads" if segmenter.device.type == "cpu" else str(segmenter.device)
    setting = f"{segmenter.model}, {count} slices, batches of {options.batch_size}, {threads}"
    print(f"{share:.1%} of the bare throughput ({setting})")


def with_processor_time(step: Callable[[], None], seconds: list[float]) -> Callable[[], None]:
    """`step`, which then adds what all threads of this process took."""

    def timed() -> None:
        started = time.process_time()
        step()
        seconds.append(time.process_time() - started)

    return timed


def make_forward(segmenter: Segmenter, image: Path, batch_size: int) -> Callable[[], None]:
    """The network alone, on as many slices in its frame as the image has."""
    import nibabel as nib
    import torch

    from datasets.raw.nifti import Orientation

    header = nib.load(image)
    count, height, width = Orientation.of(header.affine).to_zyx(header.shape[:3])
    framed = segmenter.frame.image(torch.rand(batch_size, height, width) * 2 - 1).unsqueeze(1).to(segmenter.device)

    def forward() -> None:
        with torch.no_grad():
            for start in range(0, count, batch_size):
                segmenter.network(framed[: count - start])

    return forward


def draw_image(folder: Path, options: BenchOptions) -> Path:
    """A phantom, stored as most scanners' CT is: x, y, z."""
    from phantoms.files import make_phantoms
    from phantoms.recipe import Recipe

    make_phantoms(folder, Recipe("lits", 0, options.size, (options.slices, options.slices)), 0, 1, 1, None)
    return next(folder.rglob("volume-*.nii*"))


def save_untrained(path: Path, model: str) -> Path:
    """A checkpoint for liver CT with random weights."""
    import torch

    from datasets.frame import Frame
    from datasets.labels import organ_and_tumor
    from engine.segmenter import Segmenter
    from networks import build
    from utils.checkpoint import save_checkpoint

    torch.manual_seed(0)
    segmenter = Segmenter(build(model, 2), model, "lits", organ_and_tumor()["organ"], Frame(), (-40.0, 160.0))
    weights = segmenter.network.state_dict()
    save_checkpoint(path, {**segmenter.description(), "weights": weights, "config": {}, "cases": {}})
    return path


def write_longer(image: Path, path: Path, slices: int) -> Path:
    """The image repeated along its last axis until it has that many slices."""
    import nibabel as nib
    import numpy as np

    source = nib.load(image)
    voxels = np.asanyarray(source.dataobj)
    times = -(-slices // voxels.shape[2])
    repeated = np.concatenate([voxels] * times, axis=2)[:, :, :slices]
    nib.save(nib.Nifti1Image(repeated, source.affine, source.header), path)
    return path


def peak_memory(ckpt: Path, image: Path, outpath: Path, options: BenchOptions) -> float:
    """GB that predict.py holds at most, as the system counts it."""
    words = ["--ckpt", ckpt, "--inpath", image, "--outpath", outpath, "--any_intensity"]
    words += ["--batch_size", options.batch_size, "--device", options.device]
    words += ["--probabilities"] if options.probabilities else []
    predict = [str(_root.ROOT / "scripts" / "predict.py"), *map(str, words)]
    # A process of its own runs it and reports: a child is counted with what its parent held when it started.
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(done.returncode)"
    )
    done = subprocess.run([sys.executable, "-c", code, *predict], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"predict.py failed: {done.stderr}")
    kilobytes = int(done.stderr.split()[-1])
    return kilobytes * (1 if sys.platform == "darwin" else 1024) / 1e9


if __name__ == "__main__":
    run(main)
