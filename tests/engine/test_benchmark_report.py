"""The benchmark's tables and verdict from scores made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from engine.benchmark.report import Line, network_table, notes, score_table, verdict
from engine.benchmark.runs import LONGER, UNDISTILLED

SEEDS = (0, 1)


def scored(dice: float, hd95: float | None = None, cases: int = 8) -> list[dict[str, Any]]:
    """Rows of cases whose Dice differ from case to case and have this mean."""
    steps = [0.01 * (case - (cases - 1) / 2) for case in range(cases)]
    return [
        {"case": str(case), "dice": dice + step, "rvd": 0.0, "hd95_mm": hd95, "slice_dice": dice}
        for case, step in enumerate(steps)
    ]


def line(name: str, dice: float, **options: Any) -> Line:
    """A row whose two seeds lie 0.02 apart."""
    return Line(name, {seed: {"rows": scored(dice + 0.02 * (seed - 0.5), **options)} for seed in SEEDS})


def told(*rows: Line) -> str:
    return verdict(rows)


def test_the_verdict_names_the_best_method_and_what_longer_training_gives() -> None:
    text = told(line(UNDISTILLED, 0.5), line(LONGER, 0.65), line("at", 0.55), line("kd", 0.6))
    assert text.startswith("Highest Dice of the methods: kd, +0.100 over the undistilled student")
    assert "p 0.023 after Holm): a gain." in text  # 3 comparisons, 2 of 2^8 signs each
    assert "Over the student trained alone for longer: -0.050 (95 % interval -0.050 to -0.050)." in text
    over_at = verdict([line(UNDISTILLED, 0.5), line("at", 0.55), line("kd", 0.6)], against="at")
    assert over_at.startswith("Highest Dice of the methods: kd, +0.050 over at")


def test_the_verdict_tells_losses_and_too_few_cases() -> None:
    assert ": a loss." in told(line(UNDISTILLED, 0.5), line("kd", 0.4))
    text = told(line(UNDISTILLED, 0.5, cases=4), line("kd", 0.6, cases=4))
    assert "not told apart from chance. With 4 cases no p in this table can be below 0.125." in text
    assert "No method is finished" in told(line(UNDISTILLED, 0.5), line(LONGER, 0.6))


def test_the_table_compares_with_the_undistilled_student() -> None:
    teacher = scored(0.7, hd95=4.0)
    some: Sequence[Line] = (line(UNDISTILLED, 0.5), line("kd", 0.6, hd95=9.5))
    some[1].results[0]["rows"][3]["hd95_mm"] = None
    header, of_teacher, undistilled, kd = score_table(some, teacher, "raunet")
    named = dict(zip(header, kd, strict=True))
    assert of_teacher[:2] == ["teacher, raunet", "0.700"] and undistilled[1:3] == ["0.500 ± 0.014", ""]
    assert named["gain"] == "+0.100" and named["gap closed"] == "50 %" and named["p"] == "0.008"
    assert named["HD95 mm"] == "9.5 (15/16)" and dict(zip(header, undistilled, strict=True))["HD95 mm"] == "n/a"


def test_what_is_found_in_tumour_free_cases_is_told_apart_and_moves_no_gain() -> None:
    def with_free_cases(row: Line, alarms: int) -> Line:
        for result in row.results.values():
            result["rows"] = result["rows"] + [
                {
                    "case": f"free {i}",
                    "dice": 0.0 if i < alarms else None,
                    "rvd": None,
                    "hd95_mm": None,
                    "slice_dice": None,
                }
                for i in range(3)
            ]
        return row

    teacher = with_free_cases(Line("teacher", {0: {"rows": scored(0.7)}}), 0).results[0]["rows"]
    rows = [with_free_cases(line(UNDISTILLED, 0.5), 0), with_free_cases(line("kd", 0.6), 2)]
    header, _, undistilled, kd = score_table(rows, teacher, "raunet")
    named = dict(zip(header, kd, strict=True))
    assert (named["Dice"], named["gain"], named["false alarms"]) == ("0.600 ± 0.014", "+0.100", "4 of 6")
    assert undistilled[-1] == "0 of 6"


def test_the_notes_explain_what_is_there_and_name_what_is_dearer_than_longer_training() -> None:
    cost = {"threads": 2, "cpu": "cores"}
    ratios = {UNDISTILLED: {"ratio": 1.0}, "at": {"ratio": 1.9}, "kd": {"ratio": 2.25}}
    costs = {
        "teacher": "raunet",
        "networks": {"raunet": cost, "enet": cost},
        "longer": {"enet": 2.0},
        "steps": {"enet": ratios},
    }
    rows = [line(UNDISTILLED, 0.5), line(LONGER, 0.6), line("at", 0.5), line("kd", 0.6)]
    columns = score_table(rows, scored(0.7), "raunet")[0]
    scores, training = notes({"enet": rows}, costs, columns)
    assert "HD95" not in scores and "false alarms" not in scores
    assert "times the steps: enet 2;" in training and "may be of time alone: enet kd 2.25. " in training
    with_distances = score_table(rows, scored(0.7, hd95=3.0), "raunet")[0]
    assert "HD95" in notes({"enet": rows}, costs, with_distances)[0]
    assert "time alone" not in notes({"enet": [rows[0], rows[3]]}, costs, columns)[1]


@pytest.mark.parametrize("dice", [0.6, 0.4])
def test_the_best_row_is_that_of_the_highest_dice(dice: float) -> None:
    cost = {"parameters": 1_500_000, "gmacs": 2.5, "gmacs_at": 384, "slices_per_second": 12.34}
    costs = {"teacher": "raunet", "networks": {"raunet": cost, "enet": cost}}
    undefined = line("at", 0.9)
    for result in undefined.results.values():
        result["rows"] = [{**row, "dice": None} for row in result["rows"]]
    lines = {"enet": [line(UNDISTILLED, 0.5), line("kd", dice), undefined]}
    _, of_teacher, student = network_table(lines, scored(0.7), costs)
    assert of_teacher[0] == "raunet (teacher)" and of_teacher[4:] == ["0.700", "", ""]
    assert student[:4] == ["enet", "1.50 M", "2.50 at 384²", "12.3"]
    assert student[5] == ("kd" if dice > 0.5 else UNDISTILLED)
