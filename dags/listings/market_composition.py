# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each brand's share of the week's listings and of what they are worth."""

from __future__ import annotations

# An Airflow DAG is made by step().
from listings.pipeline import KEYS, step

dag = step("market_composition", after="brand_metrics", doc=__doc__, by=KEYS[:1], sql="market_composition.sql")
