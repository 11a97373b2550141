"""Pictures of attention: CT, truth, prediction and maps of every network on one slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from engine.contours import PREDICTION_COLOUR, TRUTH_COLOUR
from engine.explain.attention import METHODS, Attention, field_of_view
from engine.explain.choose import ShownSlice
from engine.segmenter import Segmenter

TRUTH, PREDICTION = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in (TRUTH_COLOUR, PREDICTION_COLOUR))
COLOURS = "inferno"
PANEL = 2.1
"""Inches a side."""


@dataclass
class NetworkView:
    """What one network makes of a slice, all in the slice's pixels [H, W].

    maps: by column title; seen: where the network sees the slice. dice: None where truth and prediction are empty.
    """

    name: str
    predicted: NDArray[np.bool_]
    dice: float | None
    maps: Mapping[str, NDArray[np.float32]]
    seen: NDArray[np.bool_]


def view_of(name: str, segmenter: Segmenter, attention: Attention, target: int, shown: ShownSlice) -> NetworkView:
    """Prediction and maps of one network on one slice."""
    image = shown.image[None]
    predicted = segmenter.segment(image, shown.window)[0] == target
    both = int(predicted.sum() + shown.target.sum())
    dice = 2 * int((predicted & shown.target).sum()) / both if both else None
    titles = [f"{METHODS[attention.method]}, {layer}" for layer in attention.layers]
    maps = dict(zip(titles, attention(image, shown.window)[0], strict=True))
    seen = field_of_view(segmenter.frame, shown.image.shape) > 0
    return NetworkView(name, predicted, dice, maps, np.asarray(seen))


def attention_figure(shown: ShownSlice, views: Sequence[NetworkView]) -> Figure:
    """A row for each network: truth and prediction, then its maps; the plain CT before the first."""
    columns = list(views[0].maps)
    size = (PANEL * (2 + len(columns)), 0.25 + (PANEL + 0.22) * len(views))
    figure, axes = plt.subplots(len(views), 2 + len(columns), figsize=size, layout="constrained", squeeze=False)
    window = bounding_box(np.logical_or.reduce([view.seen for view in views]))
    for panel in axes.flat:
        panel.axis("off")
    draw_slice(axes[0, 0], shown, window)
    axes[0, 0].set_title("CT", fontsize=9)
    for row, view in zip(axes, views, strict=True):
        dice = "" if view.dice is None else f", Dice {view.dice:.2f}"
        row[1].set_title(f"{view.name}{dice}", fontsize=9)
        draw_slice(row[1], shown, window)
        draw_outline(row[1], view.predicted, PREDICTION)
        draw_outline(row[1], shown.target, TRUTH)
        for panel, title in zip(row[2:], columns, strict=True):
            panel.set_title(title, fontsize=9)
            draw_map(panel, shown, view.maps[title], window)
    handles = [Line2D([], [], color=TRUTH, label="truth"), Line2D([], [], color=PREDICTION, label="prediction")]
    figure.legend(handles=handles, fontsize=8, frameon=False, ncols=2, loc="outside lower left")
    return figure


def draw_slice(panel: Axes, shown: ShownSlice, window: tuple[slice, slice], shade: float = 1.0) -> None:
    """The CT in grey, of which the panel shows a window; shade: below 1 it is darker."""
    low, high = shown.window
    panel.imshow(shown.image, cmap="gray", vmin=low, vmax=low + (high - low) / shade)
    rows, columns = window
    panel.set(xlim=(columns.start - 0.5, columns.stop - 0.5), ylim=(rows.stop - 0.5, rows.start - 0.5))


def draw_map(panel: Axes, shown: ShownSlice, attention: NDArray[np.float32], window: tuple[slice, slice]) -> None:
    """The map over the darkened CT, from 0 to its own highest value; words in the place of one that is all 0."""
    draw_slice(panel, shown, window, shade=0.7)
    highest = float(attention.max())
    if highest > 0:
        relative = attention / highest
        panel.imshow(relative, cmap=COLOURS, vmin=0, vmax=1, alpha=0.75 * relative)
    else:
        panel.text(0.5, 0.5, "no map:\nall zero", transform=panel.transAxes, color="white", ha="center", va="center")
    draw_outline(panel, shown.target, TRUTH)


def draw_outline(panel: Axes, region: NDArray[np.bool_], colour: str) -> None:
    """The outline of a region [H, W], one point wide at every size of the picture."""
    if region.any():
        # Padded, so that the outline closes at the border of the slice too.
        padded = np.pad(region.astype(float), 1)
        rows, columns = (np.arange(-1, length + 1) for length in region.shape)
        panel.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=0.9)


def bounding_box(region: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around a region [H, W]."""
    spans = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return rows, columns
