"""What a report says, and what it must not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.names import hide_names, shown_names
from engine.report.case_tables import case_table, differences_table, find_failures, size_unit
from engine.report.charts import bland_altman, dice_by_size
from engine.report.page import Around, Viewer, results, write_page
from tests.engine.report.pages import network, two_networks

EVIL = "<script>alert('x')</script> & \"y\" <img src=x onerror=z>"


def entry(case: str, dice: float, true: int, predicted: int, region: str = "tumor") -> dict[str, object]:
    scores = {"dice": dice, "argmax_dice": dice, "voe": 0.5, "hd95_mm": math.nan, "voxel_mm3": 1000.0}
    rvd = (predicted - true) / true if true else math.nan
    return {
        "case": case,
        "region": region,
        **scores,
        "rvd": rvd,
        "reference_voxels": true,
        "predicted_voxels": predicted,
    }


def test_failures_come_first_and_the_worst_of_them() -> None:
    entries = [entry("1", 0.9, 10, 11), entry("2", 0.3, 10, 12), entry("3", 0.0, 5, 0), entry("4", 0.0, 0, 7)]
    failures = find_failures([network("a", entries), network("b", entries[:1])], "mL")
    assert [(failure.case, failure.faults) for failure in failures] == [
        ("3", [("a", "missed, 5.0 → 0.0 mL")]),
        ("4", [("a", "false alarm, 7.0 mL")]),
        ("2", [("a", "Dice 0.300, 10.0 → 12.0 mL")]),
        ("1", [("b", "its lowest Dice, 0.900")]),
    ]


def test_networks_stand_side_by_side_with_their_differences() -> None:
    networks = [
        network("a", [entry("1", 0.9, 10, 11), entry("2", 0.5, 10, 10)]),
        network("b", [entry("2", 0.75, 10, 10)]),
    ]
    table = case_table(networks, "tumor", "mL")
    assert table.columns[:5] == ["case", "true size, mL", "a", "b", "b minus a"]
    assert sum(columns for _, columns in table.groups) == len(table.columns) == len(table.rows[0])
    assert [[cell.text for cell in row[:5]] for row in table.rows] == [
        ["2", "10.0", "0.500", "0.750", "+0.250"],
        ["1", "10.0", "0.900", "n/a", "n/a"],
    ]
    differences = differences_table(networks, ["tumor"])
    assert differences is not None and differences.iloc[0].tolist() == ["b", "tumor", "+0.250", "1", "0", "1"]
    assert differences_table(networks[:1], ["tumor"]) is None


def test_scores_of_unseen_cases_stand_apart() -> None:
    one = network("a", [entry("1", 0.9, 10, 11), entry("2", 0.5, 10, 10)], seen=("1",))
    first, last = results([one], ["tumor"], {"1", "2"}, {"1"}).items()
    assert first[0] == "tumor, cases that no network was trained or chosen on" and last[0] == "tumor, all cases"
    assert first[1]["Dice"][0] == "0.500" and last[1]["Dice"][0].startswith("0.700")


def test_sizes_are_voxels_where_their_spacing_is_unknown() -> None:
    known = network("a", [entry("1", 0.9, 10, 11)])
    assert size_unit([known]) == "mL"
    assert size_unit([known, network("b", [{**entry("1", 0.9, 10, 11), "voxel_mm3": None}])]) == "voxels"


def test_agreement_has_bias_and_limits() -> None:
    chart = bland_altman("a", 0, "tumor", [("1", 12, 10), ("2", 24, 20), ("3", 33, 30)], "mL")
    assert chart is not None and [round(level.y, 3) for level in chart.levels] == [0, 3, 4.96, 1.04]
    assert "bias +3 mL, 95 % limits of agreement +1.04 to +4.96 mL" in chart.description
    assert chart.left <= chart.to_x(11) <= chart.right and chart.to_y(4.96) < chart.to_y(3) < chart.to_y(0)
    single = dice_by_size("tumor", [("a", [("1", 5.0, 0.5)])], "mL")
    assert single is not None and single.left < single.to_x(5.0) < single.right and single.to_x.ticks
    assert dice_by_size("tumor", [("a", [])], "mL") is None


@pytest.mark.parametrize("name", ["00012", "case_00012", "volume-3", "patient007", "liver_12", "12_40", "CT_0003"])
def test_numbers_stay(name: str) -> None:
    assert shown_names([name]) == {name: name}


@pytest.mark.parametrize("name", ["Meier_Anna", "meier1", "1962-03-14", "19620314", "MRN4471120", "case_meier", EVIL])
def test_what_may_name_a_patient_is_hidden(name: str) -> None:
    assert shown_names(["3", name, name]) == {"3": "3", name: "case A1"}


def test_no_name_is_taken_for_html_and_none_of_a_patient_is_there(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    networks, viewer = two_networks(["Meier_Anna", "4"], (EVIL, "b"))
    shown = write_page(path, networks, viewer, Around(EVIL, EVIL, commands=[EVIL]))
    page = path.read_text(encoding="utf-8")
    assert shown == {"Meier_Anna": "case A1", "4": "4"} and "Meier" not in page and "case A1" in page
    assert "<img src=x" not in page and "alert('x')" not in page
    assert page.count("<script") == page.count("</script>") == 5
    assert "://" not in page and "default-src &#39;none&#39;" not in page and "default-src 'none'" in page


def test_without_volumes_there_are_tables_and_charts(tmp_path: Path) -> None:
    networks, _ = two_networks(["1", "2", "3"], ("teacher", "student"))
    write_page(tmp_path / "page.html", networks, Viewer(), Around("a title", "a notice"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "case-viewer" not in page and page.count('<svg viewBox="0 0 460') == 8 and "missed, " in page


def test_a_command_hides_the_names_that_a_page_hides() -> None:
    shown = shown_names(["00012", "Doe", "Doe_Jane"])
    command = "python explain.py --cases Doe_Jane Doe 00012 --slices Doe:3 --names Doer"
    assert hide_names(command, shown) == (
        "python explain.py --cases case A2 case A1 00012 --slices case A1:3 --names Doer"
    )
