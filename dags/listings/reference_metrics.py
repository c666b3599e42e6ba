# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Of each reference: median price of the week, mean of its medians over 30 days, change over 1 week to 1 year."""

from __future__ import annotations

# An Airflow DAG is made by step().
from listings.pipeline import KEYS, step

dag = step("reference_metrics", after="listings", doc=__doc__, by=KEYS, sql="metrics.sql")
