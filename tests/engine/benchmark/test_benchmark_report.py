"""The benchmark's tables and verdict from scores made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine.benchmark.figure import cost_figure
from engine.benchmark.report import notes
from engine.benchmark.results import RowResults, comparisons
from engine.benchmark.rows import LONGER, UNDISTILLED, read_row
from engine.benchmark.runs import Fold, Run
from engine.benchmark.sentences import describe_attention, describe_cases, verdict
from engine.benchmark.tables import cost_table, network_table, score_table, training_time
from engine.options import DataOptions, TrainingOptions
from engine.reporting import figure_png

SEEDS = (0, 1)


def scores(dice: float, hd95: float | None = None, cases: int = 8, first: int = 0) -> list[dict[str, Any]]:
    """Cases whose Dice differ from one to the next and have this mean."""
    steps = [0.01 * (case - (cases - 1) / 2) for case in range(cases)]
    voxels = {"reference_voxels": 9, "predicted_voxels": 9}
    return [
        {
            **{"case": f"{first + case}", **voxels, "dice": dice + step, "argmax_dice": dice - 0.1, "ece": 0.02},
            **{"hd95_mm": hd95, "slice_dice": dice},
        }
        for case, step in enumerate(steps)
    ]


def result(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": entries, "also": {}, "gradient_share": {"start": 6.0, "end": 2.5}}


def row(name: str, dice: float, **options: Any) -> RowResults:
    """A row whose two seeds lie 0.02 apart."""
    results = {(0, seed): result(scores(dice + 0.02 * (seed - 0.5), **options)) for seed in SEEDS}
    return RowResults("enet", name, results)


def teacher(dice: float = 0.7, **options: Any) -> RowResults:
    return RowResults("raunet", "teacher", {(0, 0): result(scores(dice, **options))})


def judge(rows: list[RowResults], of_teacher: RowResults | None = None, against: str = UNDISTILLED) -> str:
    return verdict(rows, of_teacher or teacher(), comparisons({"enet": rows}, against), against)


def tabulate(rows: list[RowResults], of_teacher: RowResults, against: str = UNDISTILLED) -> pd.DataFrame:
    return score_table(rows, of_teacher, comparisons({"enet": rows}, against), against)


def by_method(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("method")


def test_the_verdict_names_the_best_method_and_what_longer_training_gives() -> None:
    text = judge([row(UNDISTILLED, 0.5), row(LONGER, 0.65), row("at", 0.55), row("kd", 0.6)])
    assert text.startswith(
        "The teacher is 0.050 above the longest undistilled student. Highest Dice of the methods: kd, +0.100 over the "
        "undistilled student"
    )
    assert "p 0.023 after Holm): a gain." in text  # 3 comparisons, 2 of 2^8 signs each
    assert "Over the student trained alone for longer: -0.050 (95 % interval -0.050 to -0.050)." in text
    over_at = judge([row(UNDISTILLED, 0.5), row("at", 0.55), row("kd", 0.6)], against="at")
    assert "Highest Dice of the methods: kd, +0.050 over at" in over_at


def test_the_verdict_says_where_there_is_nothing_to_distil() -> None:
    rows = [row(UNDISTILLED, 0.5), row(LONGER, 0.65), row("kd", 0.6)]
    assert judge(rows, teacher(0.67)).startswith(
        "The teacher is 0.020 above the longest undistilled student: there is nothing to distil (0.03 would do). "
    )
    assert judge(rows, teacher(0.64)).startswith("The teacher is 0.010 below the longest")
    assert "nothing to distil" not in judge([rows[0], rows[2]], teacher(0.67))


def test_p_is_corrected_over_the_rows_of_all_students() -> None:
    def students(*names: str) -> dict[str, list[RowResults]]:
        return {
            name: [replace(each, student=name) for each in (row(UNDISTILLED, 0.5), row("kd", 0.6))] for name in names
        }

    assert comparisons(students("enet"))["enet", "kd"].p == pytest.approx(2 / 2**8)
    assert comparisons(students("enet", "unet"))["enet", "kd"].p == pytest.approx(4 / 2**8)


def test_cases_of_all_folds_count_and_other_data_once() -> None:
    def in_folds(name: str, *dice: float) -> RowResults:
        results = {}
        for fold, of_fold in enumerate(dice):
            for seed in SEEDS:
                away = scores(of_fold / 2 + 0.01 * seed, cases=6)
                results[fold, seed] = {**result(scores(of_fold, cases=3, first=3 * fold)), "also": {"away": away}}
        return RowResults("enet", name, results)

    rows = [in_folds(UNDISTILLED, 0.5, 0.7), in_folds("kd", 0.6, 0.9)]
    at_home = comparisons({"enet": rows})["enet", "kd"]
    assert (at_home.gain, at_home.cases) == (pytest.approx(0.15), 6)
    assert list(rows[1].seed_means("dice")) == pytest.approx([0.75, 0.75])
    away = comparisons({"enet": [each.on("away") for each in rows]})["enet", "kd"]
    assert (away.gain, away.cases) == (pytest.approx(0.075), 6)
    assert list(rows[1].on("away").seed_means("dice")) == pytest.approx([0.375, 0.385])
    assert not rows[1].on("elsewhere").results


def test_the_verdict_names_losses_and_too_few_cases() -> None:
    assert ": a loss." in judge([row(UNDISTILLED, 0.5), row("kd", 0.4)])
    text = judge([row(UNDISTILLED, 0.5, cases=4), row("kd", 0.6, cases=4)])
    assert "not distinguishable from chance. With 4 cases no p in this table can be below 0.125." in text
    assert "No method is finished" in judge([row(UNDISTILLED, 0.5), row(LONGER, 0.6)])


def test_the_table_compares_with_the_undistilled_student() -> None:
    kd = row("kd", 0.6, hd95=9.5)
    kd.results[0, 0]["rows"][3]["hd95_mm"] = None
    table = by_method(tabulate([row(UNDISTILLED, 0.5), kd], teacher(hd95=4.0)))
    assert list(table.index) == ["teacher, raunet", UNDISTILLED, "kd"]
    assert list(table["Dice"]) == ["0.700", "0.500 ± 0.014", "0.600 ± 0.014"]
    assert list(table["gain"]) == ["", "", "+0.100"] and list(table["runs"]) == ["", "2", "2"]
    assert (table.loc["kd", "gap closed"], table.loc["kd", "p"]) == ("50 %", "0.008")
    assert list(table["HD95 mm"]) == ["4.0", "n/a", "9.5 (15/16)"]
    assert list(table["Dice by argmax"]) == ["0.600", "0.400 ± 0.014", "0.500 ± 0.014"]
    assert list(table["gradient"]) == ["", "6 → 2.5", "6 → 2.5"] and list(table["volume"]) == ["1.00"] * 3


def test_columns_that_hold_nothing_are_left_out() -> None:
    assert not {"HD95 mm", "false alarms"} & set(tabulate([row(UNDISTILLED, 0.5)], teacher()))


def test_false_alarms_in_tumour_free_cases_are_counted_and_move_no_gain() -> None:
    def with_free_cases(row: RowResults, alarms: int) -> RowResults:
        for result in row.results.values():
            result["rows"] += [
                {
                    **{"case": f"free {i}", "reference_voxels": 0, "predicted_voxels": 5 if i < alarms else 0},
                    **{"dice": 0.0 if i < alarms else None, "argmax_dice": None, "ece": 0.01},
                    **{"hd95_mm": None, "slice_dice": None},
                }
                for i in range(3)
            ]
        return row

    rows = [with_free_cases(row(UNDISTILLED, 0.5), 0), with_free_cases(row("kd", 0.6), 2)]
    table = by_method(tabulate(rows, with_free_cases(teacher(), 0)))
    assert list(table.loc["kd", ["Dice", "gain", "false alarms"]]) == ["0.600 ± 0.014", "+0.100", "4 of 6"]
    assert table.loc[UNDISTILLED, "false alarms"] == "0 of 6"


def test_the_cost_of_training_is_in_undistilled_steps() -> None:
    steps = {
        UNDISTILLED: {"ms": 50.0, "ratio": 1.0, "memory": 2.0**20},
        "kd": {"ms": 80.0, "ratio": 1.5, "memory": 3 * 2.0**20},
    }
    rows = [row(UNDISTILLED, 0.5), row(LONGER, 0.6), row("kd", 0.5), row("at", 0.5)]
    for results in (row.results for row in rows):
        for (_, seed), result in results.items():
            result |= {"seconds": None if seed else 60.0, "preparation_s": 5.0 * seed, "steps": 200}
    table = cost_table(rows, steps).set_index("training cost")
    assert list(table.loc[LONGER]) == ["50", "1.00", "1", "50", "200", "1.0"]
    assert list(table.loc["kd"]) == ["75", "1.50", "3", "50", "200", "1.0"]
    assert list(table.loc["at"]) == ["n/a", "n/a", "n/a", "50", "200", "1.0"]


def test_the_notes_explain_what_is_there_and_name_what_is_slower_than_longer_training() -> None:
    cost = {"threads": 2, "cpu": "cores"}
    costs = {
        "teacher": "raunet",
        "networks": {"raunet": cost, "enet": cost},
        "lengths": {"enet": {LONGER: 2.0}},
        "steps": {"enet": {UNDISTILLED: {"ratio": 1.0}, "at": {"ratio": 1.9}, "kd": {"ratio": 2.25}}},
    }
    rows = [row(UNDISTILLED, 0.5), row(LONGER, 0.6), row("at", 0.5), row("kd", 0.6)]
    about_scores, about_costs = notes({"enet": rows}, costs, tabulate(rows, teacher()), UNDISTILLED)
    assert "HD95" not in about_scores and "false alarms" not in about_scores
    assert "times the steps: enet 2;" in about_costs and "may be of time alone: enet kd 2.25. " in about_costs
    assert about_costs.endswith("CPU slices/s: 2 thread(s), cores.") and "\n" not in about_scores + about_costs
    with_distances = tabulate(rows, teacher(hd95=3.0))
    assert "HD95" in notes({"enet": rows}, costs, with_distances, UNDISTILLED)[0]
    assert "time alone" not in notes({"enet": [rows[0], rows[3]]}, costs, with_distances, UNDISTILLED)[1]


def test_the_notice_says_what_limits_the_scores(tmp_path: Path) -> None:
    fold = Fold(None, None, tmp_path, DataOptions(), TrainingOptions(), {}, {})
    scored = {"seen_in_training": ["1"], "incomplete": ["1", "2"], "rows": scores(0.5, cases=5)}
    text = describe_cases([fold], [scored])
    assert text.startswith("Scores of 5 test cases,") and "1 of them trained or chose the TEACHER" in text
    assert "2 of them lack slices, so they are not whole." in text
    validation = replace(fold, validation_only=True)
    assert "5 VALIDATION cases," in describe_cases([validation], [{**scored, "incomplete": []}])
    folds = [replace(fold, number=number) for number in range(2)]
    assert describe_cases(folds, [scored, scored]).startswith("Scores of 10 test cases of folds 0, 1, which")


@pytest.mark.parametrize(
    ("method", "side", "said"), [("hlfd", 384, "12 x 12 pixels."), ("at", 128, "4 x 4 pixels, the paper's 12 x 12:")]
)
def test_rows_of_hlfd_say_how_many_pixels_they_compare(method: str, side: int, said: str, tmp_path: Path) -> None:
    fold = Fold(None, None, tmp_path, DataOptions(), TrainingOptions(), {}, {"model": "raunet", "classes": 2})
    costs = {"networks": {"raunet": {"gmacs_at": side}}}
    (sentence,) = describe_attention(fold, [Run(fold, "enet", read_row(method), 0)], costs)
    assert said in sentence
    assert not describe_attention(fold, [Run(fold, "enet", read_row("kd"), 0)], costs)


@pytest.mark.parametrize("dice", [0.6, 0.4])
def test_the_best_row_is_that_of_the_highest_dice(dice: float) -> None:
    cost = {"parameters": 1_500_000, "gmacs": 2.5, "gmacs_at": 384, "slices_per_second": 12.34}
    costs = {"teacher": "raunet", "networks": {"raunet": cost, "enet": cost}}
    undefined = row("at", 0.9)
    for result in undefined.results.values():
        result["rows"] = [{**entry, "dice": None} for entry in result["rows"]]
    table = network_table({"enet": [row(UNDISTILLED, 0.5), row("kd", dice), undefined]}, teacher(), costs)
    best = ("kd", f"{dice:.3f} ± 0.014") if dice > 0.5 else (UNDISTILLED, "0.500 ± 0.014")
    size = ["1.50 M", "2.50 at 384²", "12.3"]
    assert table.to_numpy().tolist() == [
        ["raunet (teacher)", *size, "0.700", "", ""],
        ["enet", *size, "0.500 ± 0.014", *best],
    ]


def test_the_figure_names_every_row_whose_cost_was_measured() -> None:
    costs = {"lengths": {"enet": {LONGER: 2.0}}, "steps": {"enet": {UNDISTILLED: {"ratio": 1.0}, "kd": {"ratio": 1.5}}}}
    rows = [row(UNDISTILLED, 0.5), row(LONGER, 0.5), row("kd", 0.6), row("at", 0.6)]
    times = {row.name: training_time(row, costs) for row in rows}
    assert {name: time for name, time in times.items() if name != "at"} == {UNDISTILLED: 1, LONGER: 2, "kd": 1.5}
    runs = pd.DataFrame(
        {"student": "enet", "method": row.name, "dice": dice, "training_time": times[row.name]}
        for row in rows
        for dice in row.seed_means("dice")
    )
    figure = cost_figure(runs, "raunet", 0.7)
    (panel,) = figure.axes
    assert {text.get_text() for text in panel.texts} == {"teacher, raunet", UNDISTILLED, LONGER, "kd"}
    assert figure_png(figure).startswith(b"\x89PNG")
