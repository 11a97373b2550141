"""The attention of networks as tables of text, for a page and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from engine.reporting import format_number

ATTENTION_FILE = "attention.json"


def attention_tables(content: Mapping[str, Any]) -> list[pd.DataFrame]:
    """Of what `ATTENTION_FILE` holds: the attention of each network and, where there are two, their difference."""
    methods, compared = content["methods"], content["compared"]
    tables = [summary_table(content["attention"], methods)]
    if compared:
        tables.append(difference_table(compared["differences"], methods, compared["baseline"], compared["network"]))
    return tables


def summary_table(summaries: Sequence[Mapping[str, Any]], methods: Mapping[str, str]) -> pd.DataFrame:
    """A line for each method, layer and network; methods: their titles."""
    return pd.DataFrame(
        [
            {
                "map": f"{methods[each['method']]}, {each['layer']}",
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


def difference_table(
    differences: Sequence[Mapping[str, Any]], methods: Mapping[str, str], baseline: str, network: str
) -> pd.DataFrame:
    """How much more attention the last network has inside than the one before it."""
    return pd.DataFrame(
        [
            {
                "map": f"{methods[each['method']]}, {each['layer']}",
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
