# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the example pipeline's files: a market of 32 references, week by week, with the faults that such files have.

The same seed gives the same files. Of each hundred lines a dozen are faulty: prices that are none, currencies without a rate,
dates of another week, repeated lines, decimal points in the wrong place, brands and references with other letters and spaces.
"""

from __future__ import annotations

import argparse
import datetime
import random
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "dags" / "listings" / "data"
FIRST_WEEK = (2024, 36)
BRANDS = {"Aster": 900.0, "Borealis": 2400.0, "Calder": 5200.0, "Dune": 11000.0}
LINES = {"Field": 0.7, "Harbour": 1.3}
# What one unit costs in dollars when the market begins.
CURRENCIES = {"USD": 1.0, "EUR": 1.09, "CHF": 1.13, "GBP": 1.27, "JPY": 0.0068}
HEADER = "listing,listed,brand,parent_model,model,reference,price,currency"


class Market:
    """Prices that walk at random. Only random() is used, whose numbers are the same in every version of Python."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random  # noqa: S311
        self._listing = 0
        self.rates = dict(CURRENCIES)
        self.references = {
            (brand, f"{brand} {line}", f"{line} {size}", f"{brand[0]}{line[0]}{size}-{edition}"): base
            * factor
            * size
            / 36
            * edition**0.1
            for brand, base in BRANDS.items()
            for line, factor in LINES.items()
            for size in (36, 40)
            for edition in (1, 2)
        }

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random()

    def walk(self) -> None:
        """One week passes."""
        for currency in self.rates:
            if currency != "USD":
                self.rates[currency] *= self._between(0.99, 1.0101)
        for key in self.references:
            self.references[key] *= self._between(0.975, 1.028)

    def lines(self, monday: datetime.date) -> Iterator[str]:
        for key, value in self.references.items():
            # Some weeks know nothing of a reference, and the busiest ten of its listings.
            for _number in range(int(self._between(-0.4, 11))):
                yield from self._line(monday, key, value * self._between(0.82, 1.22))

    def _line(self, monday: datetime.date, key: tuple[str, ...], dollars: float) -> Iterator[str]:
        self._listing += 1
        currency = list(self.rates)[int(self._between(0, len(self.rates)))]
        price = f"{dollars / self.rates[currency]:.2f}"
        listed = monday + datetime.timedelta(days=int(self._between(0, 7)))
        brand, parent_model, model, reference = key
        fault = self._between(0, 100)
        if fault < 1.5:
            price = ["", "n/a", "on request", "-1", "0"][int(self._between(0, 5))]
        elif fault < 2.5:
            currency = "XXX"
        elif fault < 3.5:
            listed += datetime.timedelta(days=7)
        elif fault < 5:
            price = f"{float(price) * 100:.2f}"
        elif fault < 6:
            price = f"{float(price) / 100:.2f}"
        elif fault < 8:
            price = f"{float(price):,.2f}".replace(",", "'")
        elif fault < 10:
            brand, reference = f" {brand.upper()} ", reference.lower()
        line = f"L{self._listing:07d},{listed},{brand},{parent_model},{model},{reference},{price},{currency}"
        yield line
        if fault > 98:
            # The seller has changed the price: the later line is the one that holds.
            yield line.replace(price, f"{float(price) * 0.97:.2f}")


def write(folder: Path, weeks: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.csv"):
        old.unlink()
    market = Market(seed)
    rates = ["week,currency,dollars"]
    monday = datetime.date.fromisocalendar(*FIRST_WEEK, 1)
    for _week in range(weeks):
        year, week, _day = monday.isocalendar()
        name = f"{year}-W{week:02d}"
        rates += [f"{name},{currency},{rate:.6f}" for currency, rate in market.rates.items()]
        (folder / f"{name}.csv").write_text("\n".join([HEADER, *market.lines(monday)]) + "\n")
        market.walk()
        monday += datetime.timedelta(days=7)
    (folder / "rates.csv").write_text("\n".join(rates) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: dags/listings/data")
    parser.add_argument("--weeks", type=int, default=62, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=11, help="default: %(default)s")
    options = parser.parse_args()
    write(options.folder, options.weeks, options.seed)


if __name__ == "__main__":
    main()
