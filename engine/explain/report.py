"""What scripts/explain.py leaves: pictures, tables, a summary and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from engine.evaluation.evaluate import write_csv
from engine.explain.attention import METHODS, Attention
from engine.explain.choose import ShownSlice
from engine.explain.figures import attention_figure, view_of
from engine.explain.links import links_figure, stages_of
from engine.explain.mass import CaseAttention, compare_networks, summarise_attention
from engine.explain.options import ExplainOptions
from engine.names import hide_names
from engine.provenance import shown_command
from engine.reporting import figure_png, format_number, format_table, render
from engine.segmenter import Segmenter
from utils.files import write_bytes, write_json, write_text
from utils.fingerprint import file_digest
from utils.progress import print_note, progress

Attentions = Mapping[tuple[str, str], Attention]


def write_report(
    segmenters: Mapping[str, Segmenter],
    attention: Attentions,
    target: int,
    options: ExplainOptions,
    lines: Sequence[CaseAttention],
    shown: Sequence[ShownSlice],
    names_shown: Mapping[str, str],
) -> None:
    """Write and print it. shown: the slices to draw; target: the class index.

    names_shown: case -> what it is called here, as `shown_names` gives it; `lines` and `shown` call it so already.
    """
    out, command = options.outpath, hide_names(shown_command(), names_shown)
    summaries = summarise_attention(lines)
    names = list(segmenters)
    pair = names[-2:] if len(names) > 1 else None
    differences = compare_networks(lines, pair[1], pair[0]) if pair else []
    pictures = draw_slices(segmenters, attention, target, shown)
    tables = [summary_table(summaries)]
    if pair:
        tables.append(difference_table(differences, *pair))
    class_name = next(iter(segmenters.values())).label_map.classes[target - 1]
    for name, (_, png) in pictures.items():
        write_bytes(out / name, png)
    write_csv(out / "attention.csv", [asdict(line) for line in lines])
    content = {
        "target": class_name,
        "networks": {name: segmenter.model for name, segmenter in segmenters.items()},
        "attention": summaries,
        "compared": pair and {"network": pair[1], "baseline": pair[0], "differences": differences},
        "slices": [{"case": each.name.case, "index": each.name.number, "reasons": each.reasons} for each in shown],
        "seed": options.seed,
        "digests": {name: file_digest(path) for name, path in zip(names, options.ckpt, strict=True)},
        "command": command,
    }
    write_json(out / "attention.json", content)
    page = render(
        "explain.html.j2",
        title=f"Where {' and '.join(names)} look for the {class_name}",
        notice=notice(lines, names[0]),
        tables=tables,
        pictures=pictures.values(),
        command=command,
    )
    write_text(out / "index.html", page)
    print("\n\n".join(map(format_table, tables)))
    print(f"\nwritten: {out / 'index.html'}, attention.json, attention.csv and {len(pictures)} pictures")


def notice(lines: Sequence[CaseAttention], network: str) -> str:
    """How the numbers came about, and what they do not say."""
    cases = {line.case: line.slices for line in lines if line.network == network}
    empty = sum(line.empty for line in lines)
    return (
        f"{sum(cases.values())} slices of {len(cases)} cases: all that hold the target. The attention inside is the "
        "sum of a map over the target's pixels, by its sum over all; that of a map without any preference is the "
        f"target's share of the area. {empty} maps are all zero: they are left out, and counted. A map shows where "
        "channels are active that raise the class's logit. It does not show that the network needs that place, nor "
        "that it is right."
    )


def summary_table(summaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A line for each method, layer and network."""
    return pd.DataFrame(
        [
            {
                "map": f"{METHODS[each['method']]}, {each['layer']}",
                "network": each["network"],
                "attention inside": format_number(each["mass"], ".3f"),
                "95 % interval": format_interval(each, ".3f"),
                "share of the area": format_number(each["chance"], ".3f"),
                "times chance": format_number(each["times_chance"], ".1f"),
                "cases": str(each["cases"]),
                "all zero": f"{each['empty']} of {each['slices']}",
            }
            for each in summaries
        ]
    )


def difference_table(differences: Sequence[Mapping[str, Any]], baseline: str, network: str) -> pd.DataFrame:
    """How much more attention the last network has inside than the one before it."""
    return pd.DataFrame(
        [
            {
                "map": f"{METHODS[each['method']]}, {each['layer']}",
                f"{network} less {baseline}": format_number(each["gain"], "+.3f"),
                "95 % interval": format_interval(each, "+.3f"),
                "p": "< 0.001" if each["p"] is not None and each["p"] < 0.001 else format_number(each["p"], ".3f"),
                "cases": str(each["cases"]),
            }
            for each in differences
        ]
    )


def format_interval(numbers: Mapping[str, Any], form: str) -> str:
    return "n/a" if numbers["low"] is None else f"{numbers['low']:{form}} to {numbers['high']:{form}}"


def draw_slices(
    segmenters: Mapping[str, Segmenter], attention: Attentions, target: int, shown: Sequence[ShownSlice]
) -> dict[str, tuple[str, bytes]]:
    """File name -> caption and PNG: the attention of every slice and, of the first, HLFD's links of the pair."""
    pictures = {}
    for each in progress(shown, "drawing", unit="slice"):
        caption = f"case {each.name.case}, slice {each.name.number}: {', '.join(each.reasons)}"
        for method, title in METHODS.items():
            views = [
                view_of(name, segmenter, attention[name, method], target, each)
                for name, segmenter in segmenters.items()
                if (name, method) in attention
            ]
            if views:
                file = f"{each.name.case.replace(' ', '_')}_{each.name.number}_{method}.png"
                pictures[file] = f"{caption}; {title}", figure_png(attention_figure(each, views))
    pair = list(segmenters.items())
    if len(pair) > 1 and shown:
        (teacher, of_teacher), (student, of_student) = pair[0], pair[-1]
        if of_teacher.frame == of_student.frame:
            name = shown[0].name
            sides = (stages_of(label, segmenter, shown[0]) for label, segmenter in (pair[0], pair[-1]))
            caption = f"case {name.case}, slice {name.number}: the stages of {teacher} and {student}, and HLFD's links"
            pictures["links.png"] = caption, figure_png(links_figure(*sides))
        else:
            print_note(f"{teacher} and {student} see other pixels of a slice, so HLFD's links are not drawn")
    return pictures
