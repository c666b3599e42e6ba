# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Of each brand: median price of the week, mean of its medians over 30 days, change over 1 week to 1 year."""

from __future__ import annotations

# An Airflow DAG is made by step().
from listings.pipeline import KEYS, step

dag = step(
    "brand_metrics", after="parent_model_metrics", doc=__doc__, by=KEYS[:1], sql="metrics.sql", below="parent_model_metrics"
)
