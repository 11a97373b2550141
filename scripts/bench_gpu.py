"""Checks that training on a GPU is right, then measures how fast it is; `make gpu` runs it.

    python scripts/bench_gpu.py                          # a CUDA device; without one, tiny sizes on the CPU
    python scripts/bench_gpu.py --parts amp cache        # some of it; --device cpu --short: as without a GPU

Each part is written to OUTPATH/<part>.json when it is done, and the table of all of them to OUTPATH/gpu.md; the same
command continues after the last part that is there, and runs those again that failed. The slices are noise. The exit
status is 1 if a check failed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import _root  # noqa: F401

from utils.errors import UserError, run
from utils.options import Parser, option

COUNT, SHORT_COUNT = 512, 8
"""Slices; enough for batches of 64 to differ."""


@dataclass(frozen=True)
class GpuOptions:
    """what is checked and measured, and where"""

    parts: tuple[str, ...] = option((), "only these (default: all)", metavar="PART")
    short: bool = option(False, "tiny sizes, whose times say nothing (default: without a GPU)")
    device: str = option("auto", "auto, cpu, cuda or cuda:1")
    outpath: Path = option(Path("runs/gpu"), "folder of the results")


def main() -> None:
    (options,) = Parser(__doc__).read(GpuOptions)

    from engine.device import choose_device
    from engine.gpu_check.carry_out import PARTS, REPORT, carry_out
    from engine.gpu_check.setting import Setting
    from phantoms.noise import write_noise

    if unknown := [name for name in options.parts if name not in PARTS]:
        raise UserError(f"--parts {unknown[0]}: choose from {', '.join(PARTS)}")
    device = choose_device(options.device)
    short = options.short or device.type != "cuda"
    with tempfile.TemporaryDirectory() as folder:
        slices = write_noise(Path(folder, "slices"), 32 if short else 384, SHORT_COUNT if short else COUNT, 2)
        setting = Setting(device, short, slices, Path(folder, "runs"))
        rows = carry_out(setting, options.outpath, options.parts or tuple(PARTS))
    failed = [row.name for row in rows if row.outcome == "failed"]
    print(f"{len(rows)} rows, {len(failed)} failed: {options.outpath / REPORT}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run(main)
