"""A benchmark's tables: who is best, whether the gain is real, and what it costs."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.benchmark.runs import LONGER, UNDISTILLED, Benchmark, Run, is_finished
from engine.benchmark.statistics import RESAMPLES, Comparison, Scores, compare, holm, least_p, mean_over_seeds
from engine.benchmark.train_and_score import by_case, lacks_region
from engine.evaluation.evaluate import CaseScores, write_csv
from engine.reporting import figure_png, format_table, html_image, html_table, markdown_table, page
from utils.errors import UserError
from utils.files import atomic_write, read_json

Table = list[list[str]]


@dataclass
class Line:
    """The finished runs of one row: results by seed, and scores [seeds, cases]."""

    name: str
    results: dict[int, dict[str, Any]]

    def scores(self, metric: str, seeds: Sequence[int] | None = None) -> Scores:
        """[seeds, cases], NaN where undefined or not available."""
        return np.array(
            [list(by_case(self.results[seed]["rows"], metric).values()) for seed in seeds or self.results], float
        )

    def seed_means(self, metric: str) -> Scores:
        """[seeds]: the mean over cases."""
        return np.array([mean_of(row) for row in self.scores(metric)])


def mean_of(values: Scores) -> float:
    """The mean of what is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def read_lines(benchmark: Benchmark, runs: Sequence[Run]) -> dict[str, list[Line]]:
    """Student -> its lines in the order of the plan; UserError if no run is finished."""
    lines: dict[str, dict[str, Line]] = {}
    for run in runs:
        line = lines.setdefault(run.student, {}).setdefault(run.row.name, Line(run.row.name, {}))
        if is_finished(benchmark, run, anywhere=True):
            line.results[run.seed] = read_json(run.folder / "result.json")
    found = {student: [line for line in rows.values() if line.results] for student, rows in lines.items()}
    if not any(found.values()):
        raise UserError(f"{benchmark.outpath}: no run is finished yet, so there is nothing to tell")
    return {student: rows for student, rows in found.items() if rows}


def write_report(
    benchmark: Benchmark,
    runs: Sequence[Run],
    costs: Mapping[str, Any],
    scored_teacher: Mapping[str, Any],
    against: str = UNDISTILLED,
) -> None:
    """Write results.csv, cases.csv, results.md and index.html from the finished runs, and print the tables.

    against: the row that the others' gains are over.
    """
    out = benchmark.outpath
    lines, teacher = read_lines(benchmark, runs), scored_teacher["rows"]
    write_csv(out / "results.csv", run_rows(lines))
    write_csv(out / "cases.csv", case_rows(lines, teacher, costs["teacher"]))
    cases = len(by_case(teacher))
    title = f"Distilling {costs['teacher']} for {benchmark.identity['dataset']} {benchmark.identity['task']}"
    sections: list[tuple[str, list[str | Table]]] = [
        (
            student,
            [
                verdict(rows, against),
                score_table(rows, teacher, costs["teacher"], against),
                cost_table(rows, costs["steps"].get(student, {})),
            ],
        )
        for student, rows in lines.items()
    ]
    columns = {name for _, parts in sections for part in parts if not isinstance(part, str) for name in part[0]}
    explained = notes(lines, costs, columns, against)
    sections.append(("Networks", [network_table(lines, teacher, costs), *explained]))
    notice = f"Scores of {cases} test cases, which trained and chose no student."
    if benchmark.validation_only:
        notice = f"Scores of {cases} VALIDATION cases, which picked each checkpoint: to choose recipes, not to report."
    elif seen := scored_teacher["seen_in_training"]:
        notice += f" {len(seen)} of them trained or chose the TEACHER: its row and the gap closed are too good."
    if partial := scored_teacher["incomplete"]:
        volumes = "it is no whole volume" if len(partial) == 1 else "they are no whole volumes"
        notice += f" Of {len(partial)} of them the archive lacks slices, so {volumes}."
    text = [f"# {title}", notice]
    body = [f"<h1>{html.escape(title)}</h1><p class=notice>{html.escape(notice)}</p>"]
    body.append(html_image(figure_png(cost_figure(lines, teacher, costs)), "Dice against training time"))
    for heading, parts in sections:
        print(f"\n{heading}")
        text.append(f"## {heading}")
        body.append(f"<h2>{html.escape(heading)}</h2>")
        for part in parts:
            text.append(part if isinstance(part, str) else markdown_table(part))
            body.append(f"<p>{html.escape(part)}</p>" if isinstance(part, str) else html_table(part))
            if part not in explained:
                print(f"\n{part if isinstance(part, str) else format_table(part)}")
    for name, content in (("results.md", "\n\n".join(text) + "\n"), ("index.html", page(title, "\n".join(body)))):
        with atomic_write(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    print(f"\n{notice}\nThe columns are explained in {out / 'results.md'} and {out / 'index.html'}")


def notes(
    lines: Mapping[str, list[Line]], costs: Mapping[str, Any], columns: Collection[str], against: str = UNDISTILLED
) -> list[str]:
    """What the columns mean, those that are there."""
    multiples = {student: costs["longer"][student] for student, rows in lines.items() if named(rows, LONGER)}
    longer = ", ".join(f"{student} {multiple:g}" for student, multiple in multiples.items())
    dearer = ", ".join(
        f"{student} {name} {ratio:.2f}"
        for student, multiple in multiples.items()
        for name, ratio in step_ratios(costs, student).items()
        if name != UNDISTILLED and named(lines[student], name) and ratio > multiple
    )
    # Networks may have been measured by different launches.
    processors = {
        f"{cost['threads']} thread(s), {cost['cpu']}"
        for cost in (costs["networks"][name] for name in (costs["teacher"], *lines))
    }
    return [
        "Dice: mean over cases of whole volumes (and over the task's regions), where the reference has the region, "
        f"then mean ± standard deviation over seeds. gain: over '{against}', paired by case and seed, with the "
        f"percentile interval of {RESAMPLES} bootstrap samples of cases and seeds (one seed: of cases alone). p: "
        "Wilcoxon's signed rank test over cases, each with its mean over seeds, with Holm's correction over the rows "
        f"of the table, '{LONGER}' among them. p holds for these trained networks, the interval for other seeds too: "
        f"a gain needs both. gap closed: the gain as a share of the teacher's lead over '{against}'. "
        + ("HD95: where defined, with the share of predictions that have one. " if "HD95 mm" in columns else "")
        + (
            "false alarms: predictions that find something where the reference has nothing. "
            if "false alarms" in columns
            else ""
        )
        + "Slice protocol: as published, slices picked by the ground truth.",
        f"'{LONGER}' trains for so many times the steps: {longer or 'left out'}; unless it was given, that is the "
        "time of the dearest distilled step among the methods first measured. "
        + (f"Dearer than that, so that their gains may be of time alone: {dearer}. " if dearer else "")
        + "ratio: a step's time in undistilled "
        "steps, medians of steps that took turns; step ms: the same in the undistilled step's ms; memory: the most "
        "that a step holds beyond weights and optimisers (on a CPU: in live tensors). preparation: before the first "
        "step, in undistilled steps. minutes a run: both, without validation and scoring, beside whatever else ran. "
        f"CPU slices/s: {' or '.join(sorted(processors))}.",
    ]


def step_ratios(costs: Mapping[str, Any], student: str) -> dict[str, float]:
    """Row -> the time of its step in undistilled steps, where it was measured."""
    return {name: timed["ratio"] for name, timed in costs["steps"].get(student, {}).items()}


def named(rows: Sequence[Line], name: str) -> Line | None:
    return next((line for line in rows if line.name == name), None)


def paired(line: Line, base: Line) -> Comparison | None:
    """Over the seeds that both have, if there are any."""
    seeds = sorted(line.results.keys() & base.results.keys())
    return compare(line.scores("dice", seeds), base.scores("dice", seeds)) if seeds else None


def comparisons(rows: Sequence[Line], against: str = UNDISTILLED) -> dict[str, Comparison]:
    """Row -> its comparison with the row `against`; p after Holm."""
    base = named(rows, against)
    found = {
        line.name: compared
        for line in rows
        if base is not None and line is not base and (compared := paired(line, base))
    }
    corrected = holm([each.p for each in found.values()])
    return {name: replace(each, p=p) for (name, each), p in zip(found.items(), corrected, strict=True)}


def verdict(rows: Sequence[Line], against: str = UNDISTILLED) -> str:
    """Which row to use, in a sentence."""
    compared = comparisons(rows, against)
    methods = [line for line in rows if line.name in compared and line.name not in (UNDISTILLED, LONGER)]
    base = "the undistilled student" if against == UNDISTILLED else against
    if not methods:
        return f"No method is finished yet that could be compared with {base}."
    best = best_line(methods)
    each = compared[best.name]
    shown = "not told apart from chance"
    if each.p < 0.05 and (each.low > 0 or each.high < 0):
        shown = "a gain" if each.gain > 0 else "a loss"
    told = (
        f"Highest Dice of the methods: {best.name}, {signed(each.gain)} over {base} ({interval_text(each)}, "
        f"p {p_text(each.p)} after Holm): {shown}."
    )
    if (least := least_p(each.cases, len(compared))) >= 0.05:
        told += f" With {each.cases} cases no p in this table can be below {p_text(least)}."
    longer = named(rows, LONGER)
    if longer is not None and against != LONGER and (beside := paired(best, longer)):
        told += f" Over the student trained alone for longer: {signed(beside.gain)} ({interval_text(beside)})."
    return told


def interval_text(each: Comparison) -> str:
    return f"95 % interval {signed(each.low)} to {signed(each.high)}"


def signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no minus before a zero


def best_line(rows: Sequence[Line]) -> Line:
    """The one with the highest mean Dice."""
    return max(rows, key=lambda line: np.nan_to_num(mean_of(line.seed_means("dice")), nan=-1.0))


def score_table(rows: Sequence[Line], teacher: Sequence[CaseScores], model: str, against: str = UNDISTILLED) -> Table:
    """Header, the teacher, and a line for each row; false alarms only where a case lacks a region."""
    header = ["method", "Dice", "gain", "95 % interval", "p", "gap closed", "HD95 mm", "slice-protocol Dice", "seeds"]
    of_teacher = Line(f"teacher, {model}", {0: {"rows": teacher}})
    compared = comparisons(rows, against)
    base = named(rows, against)
    gap = mean_of(mean_over_seeds(of_teacher.scores("dice") - base.scores("dice"))) if base else math.nan
    table = [header]
    for line in (of_teacher, *rows):
        gains = [""] * 4
        if line.name in compared:
            each = compared[line.name]
            closed = f"{round(100 * each.gain / gap)} %" if gap > 0 else "n/a"
            gains = [signed(each.gain), f"{signed(each.low)} to {signed(each.high)}", p_text(each.p), closed]
        count = "" if line is of_teacher else str(len(line.results))
        table.append(
            [line.name, spread(line.seed_means("dice")), *gains, distance_text(line.scores("hd95_mm")),
             spread(line.seed_means("slice_dice")), count]
        )  # fmt: skip
    if any(map(lacks_region, teacher)):
        for written, told in zip(table, ["false alarms", *map(false_alarms, (of_teacher, *rows))], strict=True):
            written.append(told)
    return known(table)


def known(table: Table) -> Table:
    """The table without the columns that hold nothing but "n/a" below their names."""
    kept = [any(cell not in ("", "n/a") for cell in column[1:]) for column in zip(*table, strict=True)]
    return [[cell for cell, keep in zip(line, kept, strict=True) if keep] for line in table]


def false_alarms(line: Line) -> str:
    """How many predictions find something where the reference has nothing, of how many."""
    empty = [row for result in line.results.values() for row in result["rows"] if lacks_region(row)]
    return f"{sum(row['dice'] is not None for row in empty)} of {len(empty)}"


def spread(values: Scores) -> str:
    """Mean ± standard deviation over seeds."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return "n/a"
    return f"{defined.mean():.3f}" + (f" ± {defined.std(ddof=1):.3f}" if len(defined) > 1 else "")


def p_text(p: float) -> str:
    return "n/a" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def distance_text(scores: Scores) -> str:
    """The mean over seeds of the mean over cases; the share of defined ones where that is not all."""
    defined = int((~np.isnan(scores)).sum())
    if not defined:
        return "n/a"
    text = f"{mean_of(np.array([mean_of(of_seed) for of_seed in scores])):.1f}"
    return text if defined == scores.size else f"{text} ({defined}/{scores.size})"


def cost_table(rows: Sequence[Line], steps: Mapping[str, Mapping[str, float]]) -> Table:
    """What training costs, measured: it differs from one launch to the next."""
    table: Table = [["training cost", "step ms", "ratio", "memory MiB", "preparation", "steps", "minutes a run"]]
    unit = steps.get(UNDISTILLED, {}).get("ms", math.nan)
    for line in rows:
        timed = steps.get(UNDISTILLED if line.name == LONGER else line.name)
        results = list(line.results.values())
        seconds = [each["seconds"] + each["preparation_s"] for each in results if each["seconds"] is not None]
        preparation = 1000 * float(np.median([each["preparation_s"] for each in results])) / unit
        table.append(
            [
                line.name,
                *([f"{timed['ratio'] * unit:.0f}", f"{timed['ratio']:.2f}", f"{timed['memory'] / 2**20:.0f}"]
                  if timed else ["n/a"] * 3),
                f"{preparation:.0f}" if math.isfinite(preparation) else "n/a",
                str(results[0]["steps"]),
                f"{np.median(seconds) / 60:.1f}" if seconds else "n/a",
            ]
        )  # fmt: skip
    return known(table)


def network_table(lines: Mapping[str, list[Line]], teacher: Sequence[CaseScores], costs: Mapping[str, Any]) -> Table:
    """Teacher and students: size, speed, Dice undistilled and of the best row."""
    of_teacher = mean_of(np.array(list(by_case(teacher).values())))
    networks = [(costs["teacher"], f"{costs['teacher']} (teacher)", f"{of_teacher:.3f}", "", "")]
    for student, rows in lines.items():
        dice = {line.name: spread(line.seed_means("dice")) for line in rows}
        best = best_line(rows).name
        networks.append((student, student, dice.get(UNDISTILLED, "n/a"), best, dice[best]))
    table = [["network", "parameters", "GMACs", "CPU slices/s", "Dice", "best row", "its Dice"]]
    for network, name, *told in networks:
        cost = costs["networks"][network]
        size = [f"{cost['parameters'] / 1e6:.2f} M", f"{cost['gmacs']:.2f} at {cost['gmacs_at']}²"]
        table.append([name, *size, f"{cost['slices_per_second']:.1f}", *told])
    return table


def run_rows(lines: Mapping[str, list[Line]]) -> list[dict[str, Any]]:
    """A line of results.csv for each run."""
    return [
        {
            "student": student,
            "method": line.name,
            "seed": seed,
            "cases": len(by_case(result["rows"])),
            **{metric: mean_of(line.scores(metric, [seed])[0]) for metric in ("dice", "hd95_mm", "slice_dice")},
            **{key: result[key] for key in ("best_validation_dice", "steps", "step_ms", "seconds", "preparation_s")},
        }
        for student, rows in lines.items()
        for line in rows
        for seed, result in line.results.items()
    ]


def case_rows(lines: Mapping[str, list[Line]], teacher: Sequence[CaseScores], model: str) -> list[dict[str, Any]]:
    """A line of cases.csv for each run, case and region; empty is undefined or not available."""
    runs: list[tuple[dict[str, Any], Sequence[CaseScores]]]
    runs = [({"student": model, "method": "teacher", "seed": None}, teacher)]
    runs += [
        ({"student": student, "method": line.name, "seed": seed}, result["rows"])
        for student, rows in lines.items()
        for line in rows
        for seed, result in line.results.items()
    ]
    return [{**of, **{k: v for k, v in row.items() if k != "seconds"}} for of, rows in runs for row in rows]


def cost_figure(lines: Mapping[str, list[Line]], teacher: Sequence[CaseScores], costs: Mapping[str, Any]) -> Figure:
    """A panel for each student: Dice, mean and standard deviation over seeds, against the time of training."""
    figure, panels = plt.subplots(len(lines), 1, figsize=(9, 4.2 * len(lines)), layout="constrained", squeeze=False)
    of_teacher = mean_of(np.array(list(by_case(teacher).values())))
    for axes, (student, rows) in zip(panels[:, 0], lines.items(), strict=True):
        axes.axhline(of_teacher, color="0.5", linestyle="--", linewidth=1)
        axes.text(0.01, of_teacher, f"teacher, {costs['teacher']}", transform=axes.get_yaxis_transform(),
                  va="bottom", fontsize=8, color="0.4")  # fmt: skip
        ratios = step_ratios(costs, student)
        ratios[LONGER] = costs["longer"].get(student, math.nan)
        points = []
        for line in rows:
            means = line.seed_means("dice")
            x, y = ratios.get(line.name, math.nan), mean_of(means)
            if math.isfinite(x) and math.isfinite(y):
                error = float(np.nanstd(means, ddof=1)) if len(means) > 1 else 0.0
                colour = "0.3" if line.name in (UNDISTILLED, LONGER) else "tab:blue"
                axes.errorbar(x, y, error, fmt="o", color=colour, markersize=5, capsize=2, linewidth=1)
                points.append((x, y, line.name))
        label_points(axes, points)
        axes.set(xlabel="time of training, in undistilled runs", ylabel="mean per-case Dice", title=student)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return figure


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]], gap: float = 0.065) -> None:
    """Names in a column right of the panel, apart from each other, each with a line to its point."""
    low, high = axes.get_ylim()
    places: list[float] = []
    for _, y, _ in sorted(points, key=lambda point: point[1]):
        place = (y - low) / (high - low)
        places.append(max(place, places[-1] + gap) if places else place)
    over = max(0.0, places[-1] - 1) if places else 0.0
    for place, (x, y, name) in zip(places, sorted(points, key=lambda point: point[1]), strict=True):
        axes.annotate(
            name, (x, y), (1.03, place - over), textcoords="axes fraction", va="center", fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.7"},
        )  # fmt: skip
