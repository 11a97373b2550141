"""What scripts/explain.py leaves: pictures, tables, a summary and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from engine.evaluation.evaluate import write_csv
from engine.explain.attention import METHODS, Attention
from engine.explain.choose import ShownSlice
from engine.explain.figures import attention_figure, view_of
from engine.explain.links import links_figure, stages_of
from engine.explain.mass import CaseAttention, compare_networks, summarise_attention
from engine.explain.options import ExplainOptions
from engine.names import hide_names
from engine.provenance import shown_command
from engine.report.attention_tables import ATTENTION_FILE, attention_tables
from engine.reporting import figure_png, format_table, render
from engine.segmenter import Segmenter
from utils.files import write_bytes, write_json, write_text
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
    digests: Mapping[str, str],
) -> None:
    """Write and print it. shown: the slices to draw; target: the class index; digests: of the checkpoints.

    names_shown: case -> what it is called here, as `shown_names` gives it; `lines` and `shown` call it so already.
    """
    out, command = options.outpath, hide_names(shown_command(), names_shown)
    summaries = summarise_attention(lines)
    names = list(segmenters)
    pair = names[-2:] if len(names) > 1 else None
    differences = compare_networks(lines, pair[1], pair[0]) if pair else []
    pictures = draw_slices(segmenters, attention, target, shown)
    class_name = next(iter(segmenters.values())).label_map.classes[target - 1]
    about = notice(lines, names[0])
    for name, (_, png) in pictures.items():
        write_bytes(out / name, png)
    write_csv(out / "attention.csv", [asdict(line) for line in lines])
    content = {
        "target": class_name,
        "networks": {name: segmenter.model for name, segmenter in segmenters.items()},
        "methods": METHODS,
        "attention": summaries,
        "compared": pair and {"network": pair[1], "baseline": pair[0], "differences": differences},
        "slices": [{"case": each.name.case, "index": each.name.number, "reasons": each.reasons} for each in shown],
        "seed": options.seed,
        "pictures": [{"file": file, "caption": caption} for file, (caption, _) in pictures.items()],
        "notice": about,
        "digests": digests,
        "command": command,
    }
    write_json(out / ATTENTION_FILE, content)
    tables = attention_tables(content)
    page = render(
        "explain.html.j2",
        title=f"Where {' and '.join(names)} look for the {class_name}",
        notice=about,
        tables=tables,
        pictures=pictures.values(),
        command=command,
    )
    write_text(out / "index.html", page)
    print("\n\n".join(map(format_table, tables)))
    print(f"\nwritten: {out / 'index.html'}, {ATTENTION_FILE}, attention.csv and {len(pictures)} pictures")


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
