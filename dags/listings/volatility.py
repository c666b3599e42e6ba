# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Standard deviation of each reference's weekly changes over 13 weeks."""

from __future__ import annotations

# An Airflow DAG is made by step().
from listings.pipeline import KEYS, step

dag = step("volatility", after="market_composition", doc=__doc__, by=KEYS, sql="volatility.sql")
