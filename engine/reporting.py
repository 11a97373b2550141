"""Reports: a results table for the terminal and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from engine.contours import Picture

COLUMNS = (
    ("Dice", "dice", "{:.3f}"),
    ("VOE", "voe", "{:.3f}"),
    ("RVD", "rvd", "{:+.3f}"),
    ("HD95 mm", "hd95_mm", "{:.1f}"),
)


# A title, and pictures with their captions.
PictureRow = tuple[str, list[tuple[str, Picture]]]


@dataclass
class Run:
    """One trained network: its name in tables, evaluate.py's summary, and the training history."""

    name: str
    result: dict[str, Any]
    history: list[dict[str, Any]]


def results_table(runs: Sequence[Run], region: str) -> list[list[str]]:
    """Header and one row for each run: mean ± standard deviation over cases, cost and speed."""
    cases = max(run.result["regions"][region]["dice"]["count"] for run in runs)
    header = [f"network ({region}, {cases} cases)", *(title for title, _, _ in COLUMNS)]
    table = [[*header, "parameters", "GMACs", "slices/s"]]
    for run in runs:
        scores = run.result["regions"][region]
        cells = [_score(scores[metric], form, cases) for _, metric, form in COLUMNS]
        cost = [
            f"{run.result['parameters'] / 1e6:.2f} M",
            f"{run.result['gmacs']:.2f}",
            f"{run.result['slices_per_second']:.0f}",
        ]
        table.append([run.name, *cells, *cost])
    return table


def seeds_table(runs: Mapping[str, Sequence[Run]], region: str) -> list[list[str]]:
    """Mean per-case Dice of each seed, and its mean ± standard deviation over seeds."""
    seeds = [run.result["config"]["seed"] for run in next(iter(runs.values()))]
    table = [[f"Dice ({region})", *(f"seed {seed}" for seed in seeds), "mean ± std over seeds"]]
    for name, of_seeds in runs.items():
        dice = [run.result["regions"][region]["dice"]["mean"] for run in of_seeds]
        table.append([name, *(f"{d:.3f}" for d in dice), f"{np.mean(dice):.3f} ± {np.std(dice, ddof=1):.3f}"])
    return table


def _score(value: Mapping[str, Any], form: str, cases: int) -> str:
    """Mean ± spread; the count stands with it where the metric is defined for fewer cases than the table's."""
    if value["mean"] is None:
        return "n/a"
    text = form.format(value["mean"])
    if value["std"] is not None:
        text += " ± " + form.replace("+", "").format(value["std"])
    return text if value["count"] == cases else f"{text} (n={value['count']})"


def format_table(table: Sequence[Sequence[str]]) -> str:
    """The table as aligned lines, first column left, the others right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(table: Sequence[Sequence[str]]) -> str:
    """First column left, the others right."""
    head, *rows = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in table]
    return "\n".join([head, "|---" + "|--:" * (len(table[0]) - 1) + "|", *rows])


def curves_figure(runs: Sequence[Run]) -> Figure:
    """Training loss and validation Dice by epoch."""
    figure, (loss, dice) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for run in runs:
        epochs = [entry["epoch"] + 1 for entry in run.history]
        segmentation = [entry["train"]["focal"] + entry["train"]["dice"] for entry in run.history]
        (line,) = loss.plot(epochs, segmentation, label=run.name)
        scored = [entry for entry in run.history if "score" in entry]
        dice.plot(
            [entry["epoch"] + 1 for entry in scored],
            [entry["score"] for entry in scored],
            color=line.get_color(),
            label=run.name,
        )
    loss.set(xlabel="epoch", ylabel="segmentation loss", title="training")
    dice.set(xlabel="epoch", ylabel="mean per-case Dice", title="validation", ylim=(0, 1))
    dice.legend(frameon=False)
    for axes in (loss, dice):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return figure


def html_page(
    title: str,
    notice: str,
    tables: Sequence[Sequence[Sequence[str]]],
    curves: Figure,
    pictures: Sequence[PictureRow],
    commands: Sequence[str],
) -> str:
    """One page with nothing outside it."""
    parts = [f"<h1>{html.escape(title)}</h1><p class=notice>{html.escape(notice)}</p>", "<h2>Results</h2>"]
    parts += [html_table(table) for table in tables]
    parts.append("<p>Mean ± standard deviation over the test cases, scored on whole volumes.</p>")
    parts.append(f"<h2>Training</h2>{html_image(figure_png(curves), 'training curves')}")
    parts.append("<h2>Pictures</h2>")
    for row_title, row in pictures:
        cells = "".join(_html_figure(picture, caption) for caption, picture in row)
        parts.append(f"<h3>{html.escape(row_title)}</h3><div class=row>{cells}</div>")
    listing = "\n".join(html.escape(command) for command in commands)
    parts.append(f"<h2>Commands</h2><pre>{listing}</pre>")
    return page(title, "\n".join(parts))


def page(title: str, body: str) -> str:
    """A whole HTML document around the body; nothing is loaded from elsewhere."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style><main>{body}</main></html>"
    )


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 }
main { max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
.notice { background: #fff4d6; border-left: 4px solid #e0a800; padding: .6rem 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td { white-space: nowrap }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; image-rendering: auto }
.row { display: flex; flex-wrap: wrap; gap: .6rem }
figure { margin: 0; flex: 1 1 180px; max-width: 256px } figure img { width: 100% }
figcaption { font-size: 13px; color: #555; text-align: center }
pre { background: #f5f5f5; padding: 1rem; white-space: pre-wrap; font-size: 13px }
"""


def html_table(table: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table[0])
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _html_figure(picture: Picture, caption: str) -> str:
    image = html_image(_picture_png(picture), caption)
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def html_image(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode()
    return f"<img alt='{html.escape(alt, quote=True)}' src='data:image/png;base64,{data}'>"


def figure_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def _picture_png(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    plt.imsave(buffer, np.ascontiguousarray(picture), format="png")
    return buffer.getvalue()
