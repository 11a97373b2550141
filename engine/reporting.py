"""Reports: tables for the terminal, Markdown and HTML, figures, and self-contained pages.

A table is a DataFrame of text, as it is shown.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from engine.contours import Picture
from engine.cost import format_size
from utils.errors import UserError
from utils.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"
COLUMNS = {
    "Dice": ("dice", ".3f"),
    "Dice by argmax": ("argmax_dice", ".3f"),
    "VOE": ("voe", ".3f"),
    "RVD": ("rvd", "+.3f"),
    "HD95 mm": ("hd95_mm", ".1f"),
}


def render(template: str, **content: Any) -> str:
    """The text that a template in engine/templates makes of this content, escaped where it is HTML."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    environment.globals |= {"asset": asset, "digest": digest}
    return environment.get_template(template).render(content)


def asset(name: str) -> Markup:
    """A style or script in engine/templates, as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def digest(name: str) -> str:
    """How a content security policy names an asset: nothing else can style the page or run in it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(asset(name).encode()).digest()).decode()}"


def format_table(table: pd.DataFrame) -> str:
    """The table as aligned lines, first column left, the others right."""
    lines = [list(table.columns), *table.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))])
        for first, *cells in lines
    ]
    return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])


def markdown_table(table: pd.DataFrame) -> str:
    """First column left, the others right; unlike `DataFrame.to_markdown` without padding, for shorter differences."""
    head, *rows = map(markdown_line, (table.columns, *table.to_numpy()))
    return "\n".join([head, "|---" + "|--:" * (len(table.columns) - 1) + "|", *rows])


def markdown_line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(markdown_text(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def markdown_text(text: str) -> str:
    """Text on one line in which nothing begins an HTML tag, which Markdown would take over as it is."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.splitlines()))


def format_number(value: float | None, form: str) -> str:
    return "n/a" if value is None or not math.isfinite(value) else format(value, form)


def format_mean_std(mean: float | None, std: float | None, form: str) -> str:
    """Mean ± standard deviation, where there is one; its sign is never shown."""
    text = format_number(mean, form)
    return text if std is None or math.isnan(std) else f"{text} ± {std:{form.removeprefix('+')}}"


def figure_png(figure: Figure) -> bytes:
    """The figure as a PNG file; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def picture_png(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    plt.imsave(buffer, np.ascontiguousarray(picture), format="png")
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure; UserError unless the path ends in a kind of picture that there is."""
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in kinds:
        raise UserError(f"--outpath {path}: must end in one of {', '.join(f'.{kind}' for kind in kinds)}")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)


@dataclass
class EvaluatedNetwork:
    """name: in tables; result: what scripts/evaluate.py wrote; history: what its training wrote; cases: the table next
    to the result.
    """

    name: str
    result: dict[str, Any]
    history: list[dict[str, Any]]
    cases: list[dict[str, Any]] = field(default_factory=list)


def results_table(networks: Sequence[EvaluatedNetwork], region: str) -> pd.DataFrame:
    """A line for each network: mean ± standard deviation over cases, cost and speed."""
    cases = max(network.result["regions"][region]["dice"]["count"] for network in networks)
    lines = []
    for network in networks:
        scores = network.result["regions"][region]
        size, gmacs = format_size(network.result["parameters"], network.result["gmacs"])
        lines.append(
            {
                f"network ({region}, {cases} cases)": network.name,
                **{title: _score(scores[metric], form, cases) for title, (metric, form) in COLUMNS.items()},
                "parameters": size,
                "GMACs": gmacs,
                "slices/s": f"{network.result['slices_per_second']:.0f}",
            }
        )
    return pd.DataFrame(lines)


def seeds_table(networks: Mapping[str, Sequence[EvaluatedNetwork]], region: str) -> pd.DataFrame:
    """Mean per-case Dice of each seed, and its mean ± standard deviation over seeds."""
    lines = []
    for name, seeds in networks.items():
        results = [network.result for network in seeds]
        dice = {result["config"]["seed"]: result["regions"][region]["dice"]["mean"] for result in results}
        values = pd.Series(dice)
        lines.append(
            {
                f"Dice ({region})": name,
                **{f"seed {seed}": f"{value:.3f}" for seed, value in dice.items()},
                "mean ± std over seeds": format_mean_std(values.mean(), values.std(), ".3f"),
            }
        )
    return pd.DataFrame(lines)


def _score(summary: Mapping[str, Any], form: str, cases: int) -> str:
    """With the count where the metric is defined for fewer cases than the table's, and for any."""
    text = format_mean_std(summary["mean"], summary["std"], form)
    return text if summary["count"] in (0, cases) else f"{text} (n={summary['count']})"


def pictures_figure(pictures: Mapping[str, Picture]) -> Figure:
    """A row of pictures, each below its caption."""
    size = (2.4 * len(pictures), 2.7)
    figure, axes = plt.subplots(1, len(pictures), figsize=size, layout="constrained", squeeze=False)
    for panel, (caption, picture) in zip(axes[0], pictures.items(), strict=True):
        panel.imshow(picture)
        panel.set_title(caption, fontsize=11)
        panel.axis("off")
    return figure
