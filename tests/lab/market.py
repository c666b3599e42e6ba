# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the example pipeline's tables must hold, worked out from its files in plain Python and without a line of the pipeline."""

from __future__ import annotations

import datetime
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Union

Value = Union[int, float, None]
Row = dict[str, Value]
# By what a row is of, its week last.
Table = dict[tuple[str, ...], Row]

DAY = datetime.timedelta(days=1)
SPANS = {1: "change_1_week", 4: "change_4_weeks", 13: "change_13_weeks", 26: "change_26_weeks", 52: "change_52_weeks"}
LEVELS = {"reference_metrics": 4, "model_metrics": 3, "parent_model_metrics": 2, "brand_metrics": 1}


def week_of(name: str) -> datetime.date:
    return datetime.datetime.strptime(f"{name}-1", "%G-W%V-%u").date()


def clean(folder: Path) -> tuple[list[dict[str, Any]], Table]:
    """The listings that count, and what became of every line."""
    rates = {tuple(line.split(",")[:2]): Decimal(line.split(",")[2]) for line in lines(folder / "rates.csv")}
    kept: list[dict[str, Any]] = []
    told: Table = {}
    for path in sorted(folder.glob("2*.csv")):
        begin, count = week_of(path.stem), Counter[str]()
        good: dict[str, dict[str, Any]] = {}
        for line in lines(path):
            listing, listed, brand, parent_model, model, reference, price, currency = line.split(",")
            count["lines"] += 1
            number = re.sub("'", "", price)
            inside = begin <= datetime.date.fromisoformat(listed) <= begin + 6 * DAY
            if not re.fullmatch(r"\d+(\.\d+)?", number) or not float(number) or not inside:
                count["unreadable"] += 1
            elif (path.stem, currency) not in rates:
                count["without_rate"] += 1
            else:
                count["repeated"] += listing in good
                dollars = (Decimal(number) * rates[path.stem, currency]).quantize(Decimal("0.01"), ROUND_HALF_UP)
                key = (brand.strip().capitalize(), parent_model, model, reference.upper())
                good[listing] = {"key": key, "week": begin, "price": float(dollars)}
        prices = defaultdict(list)
        for row in good.values():
            prices[row["key"]].append(row["price"])
        for row in good.values():
            among = prices[row["key"]]
            middle = statistics.median(among)
            if len(among) >= 3 and not middle / 3 <= row["price"] <= middle * 3:
                count["outliers"] += 1
            else:
                kept.append(row)
                count["loaded"] += 1
        names = ("lines", "unreadable", "without_rate", "repeated", "outliers", "loaded")
        told[(str(begin),)] = {name: count[name] for name in names}
    return kept, told


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


def metrics(kept: Iterable[dict[str, Any]], depth: int) -> Table:
    prices: dict[tuple[str, ...], dict[datetime.date, list[float]]] = defaultdict(lambda: defaultdict(list))
    below: dict[tuple[tuple[str, ...], datetime.date], set[str]] = defaultdict(set)
    for row in kept:
        key = row["key"][:depth]
        prices[key][row["week"]].append(row["price"])
        if depth < 4:
            below[key, row["week"]].add(row["key"][depth])
    table: Table = {}
    for key, weeks in prices.items():
        medians = {week: statistics.median(found) for week, found in weeks.items()}
        for week, median in medians.items():
            recent = [value for other, value in medians.items() if 0 <= (week - other).days < 30]
            earlier = {name: medians.get(week - span * 7 * DAY) for span, name in SPANS.items()}
            table[(*key, str(week))] = {
                "listings": len(weeks[week]),
                "parts": len(below[key, week]) if depth < 4 else len(weeks[week]),
                "median": median,
                "mean_30_days": statistics.fmean(recent),
                **{name: None if value is None else median / value - 1 for name, value in earlier.items()},
            }
    return table


def market_composition(brands: Table) -> Table:
    table: Table = {}
    for (brand, week), row in brands.items():
        market = [other for (_brand, when), other in brands.items() if when == week]
        listings = sum(number(other["listings"]) for other in market)
        value = sum(number(other["listings"]) * number(other["median"]) for other in market)
        share = number(row["listings"]) * number(row["median"]) / value
        table[brand, week] = {"share_of_listings": number(row["listings"]) / listings, "share_of_value": share}
    return table


def volatility(references: Table) -> Table:
    table: Table = {}
    for key in references:
        end = datetime.date.fromisoformat(key[-1])
        quarter = [references.get((*key[:-1], str(end - weeks * 7 * DAY)), {}).get("change_1_week") for weeks in range(13)]
        changes = [value for value in quarter if value is not None]
        table[key] = {"changes": len(changes), "volatility": statistics.stdev(changes) if len(changes) > 1 else None}
    return table


def growth(references: Table, risks: Table) -> Table:
    table: Table = {}
    for key, row in references.items():
        value, risk = row["change_52_weeks"], risks[key]["volatility"]
        if value is None:
            table[key] = {"growth": None, "place": None, "growth_for_volatility": None}
            continue
        others = [other["change_52_weeks"] for that, other in references.items() if that[-1] == key[-1]]
        better = sum(1 for other in others if other is not None and other > value)
        table[key] = {"growth": value, "place": better + 1, "growth_for_volatility": value / risk if risk else None}
    return table


def number(value: Value) -> float:
    assert value is not None
    return value


def tables(folder: Path) -> dict[str, Table]:
    kept, told = clean(folder)
    found = {name: metrics(kept, depth) for name, depth in LEVELS.items()}
    found["market_composition"] = market_composition(found["brand_metrics"])
    found["volatility"] = volatility(found["reference_metrics"])
    found["growth"] = growth(found["reference_metrics"], found["volatility"])
    return {"ingested": told, **found}
