"""One part after the other, each kept in a file as soon as it is done, and the table of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from engine.device import environment
from engine.gpu_check import correctness, timings
from engine.gpu_check.setting import BATCHES, Row, Setting
from utils.errors import UserError
from utils.files import read_json, write_json, write_text
from utils.progress import print_line

PARTS: dict[str, Callable[[Setting], list[Row]]] = {
    "amp": correctness.amp,
    "scaler": correctness.scaler,
    "determinism": correctness.determinism,
    "resume": correctness.resume,
    "cache": correctness.cache,
    "export": correctness.exporting,
    "methods": correctness.methods,
    **{f"speed_{batch}": partial(timings.speed, batch=batch) for batch in BATCHES},
    "hlfd": timings.hlfd,
    "unet": timings.unet,
    "idle": timings.idle,
}
"""What is right comes before what is fast."""
REPORT = "gpu.md"


def carry_out(setting: Setting, outpath: Path, chosen: Collection[str]) -> list[Row]:
    """The rows of the chosen parts; those that are in `outpath`, of the same machine, are not run again.

    A part that ends with an error is a failed row, and the next one begins.
    """
    about = {**environment(setting.device), "short": setting.short}
    rows: list[Row] = []
    for name, part in PARTS.items():
        if name not in chosen:
            continue
        path = outpath / f"{name}.json"
        found = finished(path, about)
        if found is None:
            found, seconds = run_part(name, part, setting)
            write_json(path, {"about": about, "seconds": round(seconds, 1), "rows": [asdict(row) for row in found]})
        for row in found:
            print_line(f"{row.outcome:9}{row.name}: {row.found}")
        rows += found
        write_text(outpath / REPORT, report(about, rows))
    return rows


def finished(path: Path, about: dict[str, Any]) -> list[Row] | None:
    """What an earlier launch found; None where there is none, or it was of something else, or failed."""
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        rows = [Row(**row) for row in content["rows"]]
        same = content["about"] == about
    except (KeyError, TypeError):
        raise UserError(f"{path}: is no result of this program; delete it") from None
    return rows if same and all(row.outcome != "failed" for row in rows) else None


def run_part(name: str, part: Callable[[Setting], list[Row]], setting: Setting) -> tuple[list[Row], float]:
    """Its rows and the seconds that it took."""
    start = time.monotonic()
    try:
        rows = part(setting)
    except Exception as error:  # Whatever it is, the parts after it are worth their time.
        rows = [Row.check(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")]
    return rows, time.monotonic() - start


def report(about: dict[str, Any], rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    where = ", ".join(f"{name} {value}" for name, value in about.items())
    lines = ["# Training on this device", "", where, "", "| | outcome | found |", "|---|---|---|"]
    lines += [f"| {row.name} | {row.outcome} | {row.found.replace('|', '/')} |" for row in rows]
    return "\n".join(lines) + "\n"
