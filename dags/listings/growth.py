# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each reference's growth over a year, its place in the market, and growth for its volatility."""

from __future__ import annotations

# An Airflow DAG is made by step().
from listings.pipeline import KEYS, step

dag = step("growth", after="volatility", doc=__doc__, by=KEYS, sql="growth.sql")
