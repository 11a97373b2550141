"""A benchmark's figure: Dice against the time of training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, Bbox

from engine.benchmark.rows import LONGER, UNDISTILLED

Point = tuple[float, float, str]
"""Time of training, Dice and name of a row."""
FONT_SIZE = 8
DISTANCES = (7, 16, 26, 38, 52, 68)
"""From a point to its name, in typographic points, the nearest first."""
ANGLES = np.deg2rad([0, 180, 30, -30, 150, -150, 60, -60, 120, -120])


def cost_figure(runs: pd.DataFrame, teacher: str, teacher_dice: float) -> Figure:
    """A panel for each student, with a point for each row whose time and Dice are both defined.

    runs: the lines of results.csv; Dice is the mean over seeds, with their standard deviation.
    """
    students = dict(list(runs.groupby("student", sort=False)))
    figure, panels = plt.subplots(
        len(students), 1, figsize=(9, 3.4 * len(students)), layout="constrained", squeeze=False
    )
    points = {}
    for axes, (student, rows) in zip(panels[:, 0], students.items(), strict=True):
        axes.axhline(teacher_dice, color="0.5", linestyle="--", linewidth=1)
        where = axes.get_yaxis_transform()
        axes.text(0.01, teacher_dice, f"teacher, {teacher}", transform=where, va="bottom", fontsize=8, color="0.4")
        points[axes] = draw_rows(axes, rows)
        axes.set(xlabel="time of training, in undistilled runs", ylabel="mean per-case Dice", title=student)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.draw_without_rendering()  # only now the layout has decided where the points are
    for axes, of_axes in points.items():
        label_points(axes, of_axes, 72 / figure.dpi)
    return figure


def draw_rows(axes: Axes, runs: pd.DataFrame) -> list[Point]:
    """Draw one student's rows; where they are."""
    rows = runs.groupby("method", sort=False).agg(
        x=("training_time", "mean"), y=("dice", "mean"), spread=("dice", "std")
    )
    rows = rows[np.isfinite(rows["x"]) & np.isfinite(rows["y"])].fillna({"spread": 0.0})
    for row in rows.itertuples():
        colour = "0.3" if row.Index in (UNDISTILLED, LONGER) else "tab:blue"
        axes.errorbar(row.x, row.y, row.spread, fmt="o", color=colour, markersize=5, capsize=2, linewidth=1)
    return [(row.x, row.y, row.Index) for row in rows.itertuples()]


def label_points(axes: Axes, points: Sequence[Point], scale: float) -> None:
    """Each name where it covers neither a point nor another name, as near its point as that allows.

    scale: typographic points to a pixel.
    """
    centres = [scale * axes.transData.transform((x, y)) for x, y, _ in points]
    area = axes.get_window_extent().transformed(Affine2D().scale(scale))
    taken = [Bbox.from_bounds(cx - 4, cy - 4, 8, 8) for cx, cy in centres]
    for (x, y, name), (cx, cy) in zip(points, centres, strict=True):
        width, height = 0.6 * FONT_SIZE * len(name), 1.3 * FONT_SIZE
        for distance, angle in product(DISTANCES, ANGLES):
            dx, dy = distance * np.cos(angle), distance * np.sin(angle)
            left = cx + dx - (width if dx < 0 else 0)
            box = Bbox.from_bounds(left, cy + dy - height / 2, width, height)
            if area.x0 < box.x0 and box.x1 < area.x1 and not box.count_overlaps(taken):
                break
        taken.append(box)
        axes.annotate(
            name,
            (x, y),
            (dx, dy),
            textcoords="offset points",
            ha="right" if dx < 0 else "left",
            va="center",
            fontsize=FONT_SIZE,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.7"} if distance > DISTANCES[0] else None,
        )
