"""Time SliceMaker against the published script on the same cases, and compare the slices that they write.

    python scripts/bench_slicemaker.py --inpath RAW --dataset kits [--workers 2] [--repeats 3]
    python scripts/bench_slicemaker.py --inpath RAW --ways target zlib isal reading nibabel

published: one thread per case, volumes as float64, every slice compressed; target: SliceMaker with its defaults;
all: SliceMaker with --slices all. zlib, isal: nothing but inflating the same files; reading: what is written for
`target`, read as SliceMaker does, but not written; nibabel: the same slices of its arrays, inflated by isal. These are
in as many processes, whose start is not timed. Peak memory is that of one worker process, or of the one process with
the threads. RAW is read once before the first run, so that every way finds it in the file cache; imports are not timed.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import MISSING, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import _root  # noqa: F401
from _memory import peak_memory, started_by

from utils.errors import UserError, run
from utils.numbers import PositiveInt
from utils.options import Parser, option

if TYPE_CHECKING:
    from datasets.labels import LabelMap
    from datasets.raw.layout import Case

SIZE = 512
VARIANTS = ("published", "target", "all")
INFLATING = ("zlib", "isal")
READING = ("reading", "nibabel")
BLOCK = 1 << 20


def run_published(inpath: Path, outpath: Path, dataset: str, task: str, workers: int) -> float:
    """Seconds of the published script: every slice of every case, ct float64 and mask int8, compressed."""
    import nibabel as nib
    import numpy as np
    from scipy.ndimage import zoom

    from datasets.raw import open_layout

    layout = open_layout(dataset, inpath)
    label_map = layout.label_map(task)

    def resize(plane: np.ndarray, order: int) -> np.ndarray:
        if plane.shape == (SIZE, SIZE):
            return plane
        return zoom(plane, [SIZE / length for length in plane.shape], order=order)

    def cut(case: Case) -> list[str]:
        image = nib.load(case.image).get_fdata()
        label = nib.load(case.label).get_fdata()
        names = []
        for index in range(image.shape[0]):
            ct, mask = resize(image[index], 1), resize(label[index], 0).astype(np.int8)
            name = f"{case.name}_{index}.npz"
            np.savez_compressed(outpath / name, ct=ct, mask=mask)
            if label_map.target(mask.astype(np.uint8)).any():
                names.append(name)
        return names

    start = time.perf_counter()
    cases = [case for case in layout.find(inpath) if case.label is not None]
    with ThreadPoolExecutor(workers) as pool:
        names = [name for part in pool.map(cut, cases) for name in part]
    np.save(outpath / f"{dataset}_{task}_slices.npy", np.array(names, dtype=np.str_))
    return time.perf_counter() - start


def run_slicemaker(inpath: Path, outpath: Path, dataset: str, task: str, workers: int, slices: str) -> float:
    """Seconds of SliceMaker with all cases as training cases, including the start of its worker processes."""
    from datasets.raw import open_layout
    from datasets.slicing.options import SliceMakerOptions
    from datasets.slicing.slicemaker import make_slices

    layout = open_layout(dataset, inpath)
    options = SliceMakerOptions(slices=slices, negatives=0, val_fraction=0, workers=workers)
    start = time.perf_counter()
    make_slices(inpath, outpath, layout, layout.label_map(task), options)
    return time.perf_counter() - start


def run_part(inpath: Path, outpath: Path, dataset: str, task: str, workers: int, way: str) -> float:
    """Seconds of processes that inflate all files, or read the target slices of all cases, and write nothing."""
    from datasets.raw import open_layout

    layout = open_layout(dataset, inpath)
    cases = [case for case in layout.find(inpath) if case.label is not None]
    parts: list[Callable[[], object]]
    if way in INFLATING:
        parts = [partial(_inflate, path, way) for case in cases for path in (*case.sources, case.label)]
    else:
        read = _read if way == "reading" else _read_by_nibabel
        parts = [partial(read, case, layout.label_map(task)) for case in cases]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare) as pool:
        list(pool.map(time.sleep, [1.0] * workers))
        start = time.perf_counter()
        for done in [pool.submit(part) for part in parts]:
            done.result()
        return time.perf_counter() - start


def _prepare() -> None:
    """Import what the parts need."""

    import datasets.raw.volume  # noqa: F401


def _inflate(path: Path, library: str) -> None:
    """By no more than the library: below it SliceMaker can't come."""
    import gzip

    from isal import igzip

    with (gzip if library == "zlib" else igzip).open(path, "rb") as file:
        while file.read(BLOCK):
            pass


def _read(case: Case, label_map: LabelMap) -> None:
    from datasets.raw.turning import pick_slices
    from datasets.raw.volume import read_volume

    volume = read_volume(case, (0, 1, 2), as_stored=True)
    for _ in pick_slices(volume.image, [i for i, mask in enumerate(volume.label) if label_map.has_target(mask)]):
        pass


def _read_by_nibabel(case: Case, label_map: LabelMap) -> None:
    import nibabel as nib
    import numpy as np
    from isal import igzip

    volumes = []
    for path in (case.image, case.label):
        with igzip.open(path, "rb") as file:
            volumes.append(np.asanyarray(nib.Nifti1Image.from_stream(file).dataobj))
    image, label = volumes  # A KiTS file is in the order z, y, x.
    for ct, mask in zip(image, label, strict=True):
        if label_map.has_target(np.ascontiguousarray(mask)):
            np.ascontiguousarray(ct)


def measure(variant: str, *arguments: object) -> tuple[float, float]:
    """Seconds and peak MiB of one run; to be called in a new process, which no earlier run has affected."""
    function: Callable[..., float] = run_part if variant in INFLATING + READING else run_slicemaker
    if variant == "published":
        function = run_published
    extra = () if variant == "published" else (variant,)
    peaks: dict[str, float] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=_watch_memory, args=(peaks, ended), daemon=True)
    watcher.start()
    try:
        seconds = function(*arguments, *extra)
    finally:
        ended.set()
        watcher.join()
    return seconds, max(peaks.values(), default=peak_memory("self"))


def _watch_memory(peaks: dict[str, float], ended: threading.Event) -> None:
    """Record the peak memory of each child process in MiB."""
    while not ended.wait(0.02):
        for process in started_by("self"):
            peaks[process] = max(peaks.get(process, 0.0), peak_memory(process))


def compare(reference: Path, folder: Path, every: bool) -> tuple[int, int]:
    """The number of slices, and of those that the published script resized, which cannot be compared.

    UserError at the first slice that is missing or differs in pixels or mask.
    """
    import numpy as np

    names = {path.name for path in folder.glob("*.npz")}
    listed = set(np.load(next(reference.glob("*_slices.npy")), allow_pickle=False).tolist())
    expected = {path.name for path in reference.glob("*.npz")} if every else listed
    if names != expected:
        raise UserError(f"{folder}: slices differ: {', '.join(sorted(names ^ expected)[:3])}")
    resized = 0
    for name in sorted(names):
        with (
            np.load(reference / name, allow_pickle=False) as expected_slice,
            np.load(folder / name, allow_pickle=False) as slice_file,
        ):
            if expected_slice["ct"].shape != slice_file["ct"].shape:
                resized += 1
            elif not all(np.array_equal(expected_slice[key], slice_file[key]) for key in ("ct", "mask")):
                raise UserError(f"{folder / name}: differs from the published script's")
    return len(names), resized


@dataclass(frozen=True)
class BenchOptions:
    """cutting"""

    inpath: Path = option(MISSING, "folder of the raw cases")
    dataset: Literal["kits"] = option("kits", "stored slice by slice: kits")
    task: str = option("tumor", "organ, tumor or all")
    workers: PositiveInt = option(2, "threads or processes")
    repeats: PositiveInt = option(3, "runs of each way")
    ways: tuple[Literal["published", "target", "all", "zlib", "isal", "reading", "nibabel"], ...] = option(
        (*VARIANTS, *INFLATING, *READING), "which; the contents are compared where the published one is among them"
    )


def main() -> None:
    (options,) = Parser(__doc__).read(BenchOptions)
    for path in options.inpath.rglob("*.nii*"):
        path.read_bytes()
    results: dict[str, list[tuple[float, float]]] = {way: [] for way in options.ways}
    cutting = [way for way in VARIANTS if way in options.ways]  # The published way first, wherever it was named.
    with tempfile.TemporaryDirectory() as temporary:
        for _ in range(options.repeats):
            for variant in results:
                folder = Path(temporary) / variant
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    arguments = (options.inpath, folder, options.dataset, options.task, options.workers)
                    results[variant].append(pool.submit(measure, variant, *arguments).result())
        show(results)
        if "published" in cutting:
            reference = Path(temporary) / "published"
            for name in cutting[1:]:
                total, resized = compare(reference, Path(temporary) / name, name != "target")
                print(f"{name}: of {total} slices {total - resized} could be compared, and agree in pixels and masks")


def show(results: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """A line for each way: seconds, as multiples of zlib and isal where these were timed, and memory."""
    medians = {way: statistics.median(seconds for seconds, _ in runs) for way, runs in results.items()}
    beside = [library for library in INFLATING if library in medians]
    print(f"{'way':<10} {'seconds':>8} {'MiB':>6}" + "".join(f" {'x ' + library:>8}" for library in beside))
    for way, runs in results.items():
        ratios = "".join(f" {medians[way] / medians[library]:>8.2f}" for library in beside)
        print(f"{way:<10} {medians[way]:>8.2f} {max(peak for _, peak in runs):>6.0f}{ratios}", flush=True)


if __name__ == "__main__":
    run(main)
