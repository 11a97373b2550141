"""The stages of a teacher and a student, the links that HLFD ties between them, and the attention that it compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import ConnectionPatch
from numpy.typing import NDArray

from datasets.window import window_image
from distillation.distances import attention_distance, attention_map, mean_activity
from distillation.methods.hlfd import VARIANTS, Link, compared_size, gather
from engine.explain.choose import ShownSlice
from engine.explain.figures import COLOURS
from engine.segmenter import Segmenter
from networks.contract import STAGES, Features

LINKS = VARIANTS["hlfd"]
LINK_COLOURS = {"imd": "tab:blue", "pmd": "tab:orange"}


@dataclass
class Side:
    """A network's stages of one slice. Without a decoder, its e4..e1 stand for d5..d2."""

    name: str
    features: Features
    has_decoder: bool


def stages_of(name: str, segmenter: Segmenter, shown: ShownSlice) -> Side:
    """The stages of a network, in float32 on the CPU, for a slice as its frame shows it."""
    device = next(segmenter.network.parameters()).device
    values = torch.from_numpy(window_image(shown.image[None], *shown.window)).to(device)
    with torch.no_grad():
        features = segmenter.network.features(segmenter.frame.image(values).unsqueeze(1))
    e, d = (tuple(stage.float().cpu() for stage in part) for part in (features.encoder, features.decoder))
    return Side(name, Features(e, d, features.logits.float().cpu()), segmenter.network.channels.has_decoder)


def links_figure(teacher: Side, student: Side) -> Figure:
    """Above: how active both networks are at every stage, with HLFD's links; below: the attention that IMD compares."""
    figure = plt.figure(figsize=(15, 8.2), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(4.4, 3.8))
    draw_pyramids(figure.add_subfigure(grid[0]), teacher, student)
    draw_compared(figure.add_subfigure(grid[1]), teacher, student)
    return figure


def draw_pyramids(figure: SubFigure, teacher: Side, student: Side) -> None:
    """A row of stages for each network, coarse and fine as they are, and an arrow for every stage of a link."""
    axes = figure.subplots(2, len(STAGES))
    for row, side in zip(axes, (teacher, student), strict=True):
        for panel, stage in zip(row, STAGES, strict=True):
            maps = side.features.stage(stage)
            draw_activity(panel, mean_activity(maps, maps.shape[2:]).sqrt(), maps.shape[2:])
            panel.set_xlabel(stage_caption(side, stage), fontsize=9)
        row[0].set_ylabel(side.name)
    for panel in axes[0]:
        panel.xaxis.set_label_position("top")
    places = dict(zip(STAGES, axes.T, strict=True))
    for link in LINKS:
        draw_link(figure, places, link)
    figure.suptitle("stages, brighter where more active; arrows: what HLFD ties, IMD blue, PMD orange", fontsize=11)


def stage_caption(side: Side, stage: str) -> str:
    if stage.startswith("d") and not side.has_decoder:
        return f"{stage} (is e{int(stage[1]) - 1})"
    return stage


def draw_link(figure: SubFigure, places: Mapping[str, Sequence[Axes]], link: Link) -> None:
    """From each of the teacher's stages, in the upper row, to each of the student's, in the lower one."""
    for source in link.teacher.split("+"):
        for goal in link.student.split("+"):
            arrow = ConnectionPatch(
                (0.5, 0),
                (0.5, 1),
                "axes fraction",
                "axes fraction",
                axesA=places[source][0],
                axesB=places[goal][1],
                arrowstyle="-|>",
                color=LINK_COLOURS[link.part],
                linewidth=1.4,
            )
            arrow.set_in_layout(False)
            figure.add_artist(arrow)


def draw_compared(figure: SubFigure, teacher: Side, student: Side) -> None:
    """Of every IMD link, both attention maps at the size at which they are compared, and their distance."""
    links = [link for link in LINKS if link.part == "imd"]
    axes = figure.subplots(2, len(links))
    for (above, below), link in zip(axes.T, links, strict=True):
        t, s = gather(teacher.features, link.teacher), gather(student.features, link.student)
        size = compared_size(link, s, t)
        distance = float(attention_distance(s, t, size))
        for panel, maps in ((above, t), (below, s)):
            draw_activity(panel, attention_map(maps, size), size)
        above.set_title(f"{teacher.name}: {link.teacher}", fontsize=9)
        below.set_title(f"{student.name}: {link.student}, distance {distance:.2f} of 2", fontsize=9)
    title = "the attention maps of IMD (mean of x⁴ over the channels, L2 norm 1), as HLFD compares them"
    figure.suptitle(title, fontsize=11)


def draw_activity(panel: Axes, values: torch.Tensor, size: Sequence[int]) -> None:
    """values: [1, H * W], drawn from 0 to the highest."""
    picture: NDArray[np.float32] = values.reshape(*size).numpy()
    panel.imshow(picture, cmap=COLOURS, vmin=0, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
