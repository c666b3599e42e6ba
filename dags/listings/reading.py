# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a week's file to clean rows: what can be read, in dollars, each listing once. Needs nothing but Python."""

from __future__ import annotations

import csv
import datetime
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data"
CENT = Decimal("0.01")


def weeks() -> list[str]:
    """The weeks that there are files of, such as 2025-W07, in their order."""
    return sorted(path.stem for path in FOLDER.glob("*-W*.csv"))


def monday(week: str) -> datetime.date:
    year, number = week.split("-W")
    return datetime.date.fromisocalendar(int(year), int(number), 1)


def rates() -> dict[tuple[str, str], Decimal]:
    with (FOLDER / "rates.csv").open(newline="") as file:
        return {(row["week"], row["currency"]): Decimal(row["dollars"]) for row in csv.DictReader(file)}


def read(week: str, dollars: dict[tuple[str, str], Decimal]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows of a week, and how many lines were left out for which reason."""
    begin, rows, told = monday(week), {}, Counter()
    with (FOLDER / f"{week}.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            told["lines"] += 1
            price = amount(line["price"])
            listed = datetime.date.fromisoformat(line["listed"])
            rate = dollars.get((week, line["currency"].strip()))
            if price is None or not begin <= listed < begin + datetime.timedelta(days=7):
                told["unreadable"] += 1
            elif rate is None:
                told["without_rate"] += 1
            else:
                told["repeated"] += line["listing"] in rows
                rows[line["listing"]] = {
                    "listing": line["listing"],
                    "week": begin,
                    "listed": listed,
                    "brand": " ".join(line["brand"].split()).title(),
                    "parent_model": " ".join(line["parent_model"].split()),
                    "model": " ".join(line["model"].split()),
                    "reference": line["reference"].strip().upper(),
                    "price": (price * rate).quantize(CENT, ROUND_HALF_UP),
                }
    return list(rows.values()), told


def amount(text: str) -> Decimal | None:
    try:
        found = Decimal(text.strip().replace("'", ""))
    except InvalidOperation:
        return None
    return found if found.is_finite() and found > 0 else None
