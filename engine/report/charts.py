"""Charts as plain SVG, which follows the page's colours in light and dark: where everything stands, in pixels.

The macro `chart` in engine/templates/charts.html.j2 draws them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.ticker import MaxNLocator

from utils.errors import UserError

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 46


@dataclass(frozen=True)
class Point:
    """x, y: in the units of the axes; note: what a reader is told; case: the one it is of, "" for none."""

    x: float
    y: float
    note: str = ""
    case: str = ""


@dataclass(frozen=True)
class Series:
    """number: of its colour and shape, the same for a network in every chart."""

    name: str
    number: int
    points: Sequence[Point]
    line: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line through the chart, with its meaning; main: a solid one."""

    y: float
    text: str
    main: bool = False


@dataclass(frozen=True)
class Axis:
    """limits: None for those of the values; log: positive values by powers of ten."""

    title: str
    limits: tuple[float, float] | None = None
    log: bool = False


@dataclass(frozen=True)
class Scale:
    """From values to pixels; ticks: (pixel, text)."""

    low: float
    high: float
    first: float
    last: float
    log: bool
    ticks: list[tuple[float, str]] = field(default_factory=list)

    def __call__(self, value: float) -> float:
        if self.log:
            value = math.log10(value)
        return round(self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first), 1)


@dataclass(frozen=True)
class Chart:
    """description: in a sentence, for those who do not see it."""

    title: str
    description: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    levels: Sequence[Level] = ()

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM

    @property
    def to_x(self) -> Scale:
        values = [point.x for series in self.series for point in series.points]
        return make_scale(self.x, values, self.left, self.right)

    @property
    def to_y(self) -> Scale:
        values = [point.y for series in self.series for point in series.points]
        return make_scale(self.y, [*values, *(level.y for level in self.levels)], self.bottom, self.top)


def make_scale(axis: Axis, values: Sequence[float], first: float, last: float) -> Scale:
    """From `first` to `last` in pixels, with some air around the values where the axis has no limits of its own."""
    if axis.log:
        return _log_scale(values, first, last)
    low, high = axis.limits or (min(values), max(values))
    if axis.limits is None:
        air = 0.06 * (high - low) or max(1.0, abs(high) * 0.1)
        low, high = (0.0 if 0 <= low < 0.3 * high else low - air), high + air
    ticks = [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if low - 1e-9 <= tick <= high + 1e-9]
    scale = Scale(low, high, first, last, log=False)
    scale.ticks.extend((scale(tick), f"{tick:.6g}".replace("-", "\N{MINUS SIGN}")) for tick in ticks)
    return scale


def _log_scale(values: Sequence[float], first: float, last: float) -> Scale:
    low, high = (math.log10(limit) for limit in (min(values), max(values)))
    low, high = low - 0.08 * max(high - low, 1), high + 0.08 * max(high - low, 1)
    scale = Scale(low, high, first, last, log=True)
    decades = range(math.floor(low), math.ceil(high) + 1)
    factors = (1,) if high - low > 2.5 else (1, 2, 5) if high - low > 0.7 else (1, 2, 3, 4, 5, 6, 8)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    scale.ticks.extend((scale(tick), f"{tick:g}") for tick in ticks if low <= math.log10(tick) <= high)
    return scale


def signed(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:+.3g}" if abs(value) < 1000 else f"{value:+.0f}"


def bland_altman(
    network: str, number: int, region: str, points: Sequence[tuple[str, float, float]], unit: str
) -> Chart | None:
    """Difference against mean of predicted and true volume, with bias and 95 % limits of agreement; None of no case.

    points: case, predicted, true. J. M. Bland, D. G. Altman: Statistical methods for assessing agreement between two
    methods of clinical measurement, Lancet 1986.
    """
    if not points:
        return None
    differences = np.array([predicted - true for _, predicted, true in points])
    bias = float(differences.mean())
    levels = [Level(0.0, ""), Level(bias, f"bias {signed(bias)}", main=True)]
    text = f"bias {signed(bias)} {unit}"
    if len(points) > 2:
        spread = 1.96 * float(differences.std(ddof=1))
        levels += [Level(bias + spread, signed(bias + spread)), Level(bias - spread, signed(bias - spread))]
        text += f", 95 % limits of agreement {signed(bias - spread)} to {signed(bias + spread)} {unit}"
    marks = [
        Point((predicted + true) / 2, predicted - true, f"{case}: {true:.4g} → {predicted:.4g} {unit}", case)
        for case, predicted, true in points
    ]
    return Chart(
        f"agreement of volumes: {network}, {region}",
        f"Bland-Altman plot of the {region}'s volume by {network} over {len(points)} cases: {text}.",
        Axis(f"mean of predicted and true volume, {unit}"),
        Axis(f"predicted minus true, {unit}"),
        [Series(network, number, marks)],
        levels,
    )


def dice_by_size(
    region: str, networks: Sequence[tuple[str, Sequence[tuple[str, float, float]]]], unit: str
) -> Chart | None:
    """Dice of each case against the region's true size, on a logarithmic axis; None of no case.

    networks: name, and (case, size, Dice) where the size is above 0.
    """
    series = [
        Series(name, number, [Point(x, y, f"{case}, {name}: {x:.4g} {unit}, Dice {y:.3f}", case) for case, x, y in of])
        for number, (name, of) in enumerate(networks)
    ]
    if not any(each.points for each in series):
        return None
    return Chart(
        f"Dice by size: {region}",
        f"Dice against the true size of the {region}, a point for each case and network.",
        Axis(f"true size, {unit}", log=True),
        Axis("Dice", (0, 1)),
        series,
    )


def training_curves(networks: Sequence[tuple[str, Sequence[dict[str, object]]]]) -> list[Chart]:
    """Segmentation loss and validation Dice by step, of those networks whose training left a history."""
    losses, scores = [], []
    for number, (name, history) in enumerate(networks):
        try:
            steps = [(float(entry["step"]), entry["train"], float(entry["score"])) for entry in history]  # type: ignore
            loss = [Point(step, float(train["focal"] + train["dice"])) for step, train, _ in steps]  # type: ignore
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{name}: its history.json is not one that training writes; move it away") from None
        loss = [point for point in loss if math.isfinite(point.y)]
        score = [Point(step, value) for step, _, value in steps if math.isfinite(value)]
        losses += [Series(name, number, loss, line=True)] if loss else []
        scores += [Series(name, number, score, line=True)] if score else []
    charts = []
    if losses:
        charts.append(Chart("training", "Segmentation loss by step.", Axis("step"), Axis("segmentation loss"), losses))
    if scores:
        text = "Mean Dice of the validation cases by step."
        charts.append(Chart("validation", text, Axis("step"), Axis("mean per-case Dice", (0, 1)), scores))
    return charts
