"""Tables, pages and pictures of reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from jinja2 import UndefinedError

from engine.contours import TRUTH_COLOUR, draw_contours, grey_picture, montage
from engine.reporting import (
    EvaluatedNetwork,
    asset,
    digest,
    format_table,
    markdown_table,
    markdown_text,
    pictures_figure,
    render,
    results_table,
    seeds_table,
)

HISTORY = [{"step": 5, "train": {"focal": 0.1, "dice": 0.4, "loss": 0.5}, "score": 0.3}]


BLACK = grey_picture(np.zeros((8, 8), np.int16), (-1, 1))


def summary(mean: float | None, count: int) -> dict[str, float | int | None]:
    return {"mean": mean, "std": None if mean is None else 0.1, "count": count}


def evaluated(name: str, seed: int = 0, dice: float = 0.8, **scores: Any) -> EvaluatedNetwork:
    region = {"dice": summary(dice, 5), "argmax_dice": summary(0.7, 5), "voe": summary(0.3, 5)}
    region |= {"rvd": summary(-0.1, 5), "hd95_mm": summary(4.0, 3)}
    result = {"regions": {"tumor": region | scores}, "parameters": 11_170_000, "gmacs": 5.1, "slices_per_second": 12.0}
    return EvaluatedNetwork(name, {**result, "config": {"seed": seed}}, HISTORY)


def test_a_table_says_where_a_metric_is_undefined() -> None:
    table = results_table([evaluated("student"), evaluated("teacher", hd95_mm=summary(None, 0))], "tumor")
    assert list(table.columns[:6]) == ["network (tumor, 5 cases)", "Dice", "Dice by argmax", "VOE", "RVD", "HD95 mm"]
    scores = ["0.800 ± 0.100", "0.700 ± 0.100", "0.300 ± 0.100", "-0.100 ± 0.100"]
    assert table.iloc[0].tolist() == ["student", *scores, "4.0 ± 0.1 (n=3)", "11.17 M", "5.10", "12"]
    assert table.iloc[1].tolist() == ["teacher", *scores, "n/a", "11.17 M", "5.10", "12"]


def test_seeds_stand_next_to_their_mean() -> None:
    table = seeds_table({"student": [evaluated("student", 3, 0.7), evaluated("student", 4, 0.8)]}, "tumor")
    assert table.to_dict("list") == {
        "Dice (tumor)": ["student"],
        "seed 3": ["0.700"],
        "seed 4": ["0.800"],
        "mean ± std over seeds": ["0.750 ± 0.071"],
    }


def test_tables_as_text_are_aligned_and_as_markdown_escaped() -> None:
    table = pd.DataFrame({"name": ["a", "b|c"], "value": ["1.000", "n/a"]})
    assert format_table(table).splitlines() == ["name  value", "-----------", "a     1.000", "b|c     n/a"]
    assert markdown_table(table).splitlines() == ["| name | value |", "|---|--:|", "| a | 1.000 |", "| b\\|c | n/a |"]


def test_a_page_stands_alone() -> None:
    content = {"title": "bench", "notice": "a notice", "figure": b"png", "sections": {"a & b": ["c > d"]}}
    page = render("benchmark.html.j2", **content)
    assert "<h2>a &amp; b</h2>" in page and "<p>c &gt; d</p>" in page
    assert page.count('src="data:image/png;base64,') == 1 and "://" not in page and "default-src 'none'" in page
    assert digest("page.css") in page and asset("tables.js") in page
    with pytest.raises(UndefinedError):
        render("benchmark.html.j2", title="bench")


EVIL = "<script>alert('x')</script> & \"y\" <img src=x onerror=z>"


def test_no_name_is_taken_for_html() -> None:
    """Of a case, a network, a method, a folder, in an equation: wherever a page shows one."""
    table = pd.DataFrame({EVIL: [EVIL]})
    page = render("benchmark.html.j2", title=EVIL, notice=EVIL, figure=b"png", sections={EVIL: [EVIL, table]})
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") == 8
    assert page.count("<script") == 1 and "<img src=x" not in page


def test_markdown_takes_over_no_html_and_keeps_its_lines() -> None:
    lines = markdown_table(pd.DataFrame({"case": [EVIL, "a\nb", "p < 0.05"]})).splitlines()
    assert len(lines) == 5 and "| a b |" in lines and "| p < 0.05 |" in lines
    assert "<script" not in "".join(lines) and "<img" not in "".join(lines)
    assert markdown_text(f"on {EVIL}\n# b").startswith("on &lt;script>alert('x')&lt;/script>")
    assert "\n" not in markdown_text("a\n# b")


def test_a_row_of_pictures_is_captioned() -> None:
    figure = pictures_figure({"CT": BLACK, "truth": BLACK})
    assert [panel.get_title() for panel in figure.axes] == ["CT", "truth"]


def test_contours_are_drawn_inside_the_region_only() -> None:
    label = np.zeros((8, 8), np.uint8)
    label[2:6, 2:6] = 1
    picture = draw_contours(grey_picture(np.zeros((8, 8), np.int16), (-100, 100), 2), label, TRUTH_COLOUR, 2)
    drawn = (picture == TRUTH_COLOUR).all(axis=2)
    assert drawn.sum() == 8 * 8 - 6 * 6 and drawn[4, 4] and not drawn[5, 5]
    assert montage([picture] * 3, columns=2).shape == (32, 32, 3)
