"""Time cutting slices: the published way against this one, on the same cases, with the results compared.

    python scripts/bench_slicemaker.py --inpath RAW --dataset kits [--workers 2] [--repeats 3]

published: one thread a case, volumes as float64, every slice compressed; target: SliceMaker as it is; all:
SliceMaker with --slices all. Peak memory is that of one worker process, or of the one process with the threads.
RAW is read once before the first run, so that no way profits from the one before it; imports are not timed.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import _root  # noqa: F401

from engine.options import Parser, whole
from utils.errors import UserError, run

SIZE = 512
WAYS = ("published", "target", "all")


def published(inpath: Path, outpath: Path, dataset: str, task: str, workers: int) -> float:
    """Seconds of the published way: every slice of every case, ct float64 and mask int8, compressed."""
    import nibabel as nib
    import numpy as np
    from scipy.ndimage import zoom

    from datasets.raw import open_layout

    layout = open_layout(dataset, inpath)
    goal = layout.label_map(task)

    def resized(plane: np.ndarray, order: int) -> np.ndarray:
        if plane.shape == (SIZE, SIZE):
            return plane
        return zoom(plane, [SIZE / length for length in plane.shape], order=order)

    def cut(case: object) -> list[str]:
        image = nib.load(case.image).get_fdata()
        label = nib.load(case.label).get_fdata()
        names = []
        for index in range(image.shape[0]):
            ct, mask = resized(image[index], 1), resized(label[index], 0).astype(np.int8)
            name = f"{case.name}_{index}.npz"
            np.savez_compressed(outpath / name, ct=ct, mask=mask)
            if goal.target(mask.astype(np.uint8)).any():
                names.append(name)
        return names

    start = time.perf_counter()
    cases = [case for case in layout.find(inpath) if case.label is not None]
    with ThreadPoolExecutor(workers) as pool:
        names = [name for part in pool.map(cut, cases) for name in part]
    np.save(outpath / f"{dataset}_{task}_slices.npy", np.array(names, dtype=np.str_))
    return time.perf_counter() - start


def ours(inpath: Path, outpath: Path, dataset: str, task: str, workers: int, slices: str) -> float:
    """Seconds of SliceMaker on all cases as training cases, its worker processes' start included."""
    from datasets.raw import open_layout
    from datasets.slicing.slicemaker import make_slices

    layout = open_layout(dataset, inpath)
    start = time.perf_counter()
    make_slices(
        inpath,
        outpath,
        layout,
        layout.label_map(task),
        slices=slices,
        negatives=0,
        val_fraction=0,
        workers=workers,
    )
    return time.perf_counter() - start


def measured(way: str, *arguments: object) -> tuple[float, float]:
    """Seconds and peak MiB of one run; called in a fresh process, so that nothing is left of the last one."""
    function: Callable[..., float] = published if way == "published" else ours
    extra = () if way == "published" else (way,)
    peaks: dict[str, float] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(peaks, ended), daemon=True)
    watcher.start()
    try:
        seconds = function(*arguments, *extra)
    finally:
        ended.set()
        watcher.join()
    return seconds, max(peaks.values(), default=_peak("self"))


def _watch(peaks: dict[str, float], ended: threading.Event) -> None:
    """Until it starts its own program, a child process shows this one's command line and memory: not counted."""
    this = Path("/proc/self/cmdline").read_bytes()
    while not ended.wait(0.02):
        for process in _descendants("self"):
            program = Path(f"/proc/{process}/cmdline")
            if program.exists() and program.read_bytes() != this:
                peaks[process] = max(peaks.get(process, 0.0), _peak(process))


def _descendants(process: str) -> list[str]:
    found = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            direct = children.read_text().split()
        except OSError:
            continue
        found += [each for child in direct for each in (child, *_descendants(child))]
    return found


def _peak(process: str) -> float:
    """The largest resident memory so far, in MiB; 0 where the system does not tell, or the process is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def compare(reference: Path, folder: Path, every: bool) -> tuple[int, int]:
    """How many slices there are, and how many the published way resized, so that they cannot be compared.

    UserError at the first that is missing or differs in pixels or mask.
    """
    import numpy as np

    names = {path.name for path in folder.glob("*.npz")}
    listed = set(np.load(next(reference.glob("*_slices.npy"))).tolist())
    expected = {path.name for path in reference.glob("*.npz")} if every else listed
    if names != expected:
        raise UserError(f"{folder}: slices differ: {', '.join(sorted(names ^ expected)[:3])}")
    resized = 0
    for name in sorted(names):
        with np.load(reference / name) as theirs, np.load(folder / name) as mine:
            if theirs["ct"].shape != mine["ct"].shape:
                resized += 1
            elif not all(np.array_equal(theirs[key], mine[key]) for key in ("ct", "mask")):
                raise UserError(f"{folder / name}: differs from the published way's")
    return len(names), resized


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--inpath", type=Path, required=True, help="folder of the raw cases")
    parser.add_argument("--dataset", choices=["kits"], default="kits", help="stored slice by slice: kits")
    parser.add_argument("--task", default="tumor", help="default: tumor")
    parser.add_argument("--workers", type=whole(1), default=2, help="threads or processes (default: 2)")
    parser.add_argument("--repeats", type=whole(1), default=3, help="runs of each way (default: 3)")
    options = parser.parse_args()

    for path in options.inpath.rglob("*.nii*"):
        path.read_bytes()
    results: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as temporary:
        for _ in range(options.repeats):
            for way in WAYS:
                folder = Path(temporary) / way
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    arguments = (options.inpath, folder, options.dataset, options.task, options.workers)
                    results[way].append(pool.submit(measured, way, *arguments).result())
        reference = Path(temporary) / "published"
        counts = {way: compare(reference, Path(temporary) / way, way != "target") for way in WAYS}
    base = statistics.median(seconds for seconds, _ in results["published"])
    print(f"{'way':<10} {'seconds':>8} {'ratio':>6} {'slices':>7} {'peak MiB':>9}   (median of {options.repeats})")
    for way, runs in results.items():
        seconds = statistics.median(seconds for seconds, _ in runs)
        peak = max(peak for _, peak in runs)
        print(f"{way:<10} {seconds:>8.2f} {base / seconds:>6.1f} {counts[way][0]:>7} {peak:>9.0f}")
    total, resized = counts["all"]
    print(f"contents agree: the same slice numbers; the same pixels and masks in {total - resized} of {total} slices")
    if resized:
        print(f"{resized} slices, resized by the published way, were not compared")


if __name__ == "__main__":
    run(main)
