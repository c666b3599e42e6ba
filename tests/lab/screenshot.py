# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take a picture of the smoke DAG's grid view with its last successful run."""

from __future__ import annotations

import argparse
import sys
import urllib.parse
from pathlib import Path

from browser import logged_in
from inventory import DEFAULT, ROOT, Inventory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--inventory", default=DEFAULT, help="default: %(default)s")
    parser.add_argument("--dag", default="smoke", help="DAG to show (default: %(default)s)")
    parser.add_argument("path", nargs="?", type=Path, default=ROOT / "docs" / "images" / "grid.png")
    options = parser.parse_args()

    inventory = Inventory(options.inventory)
    user, password = inventory.common("airflow_admin_user", "admin"), inventory.common("airflow_admin_password")
    runs = inventory.airflow().get(f"dags/{options.dag}/dagRuns?state=success&order_by=-start_date&limit=1")["dag_runs"]
    if not runs:
        print(f"screenshot: {options.dag} has no successful run: run tests/lab/smoke.py first", file=sys.stderr)
        return 1
    run_id = runs[0]["dag_run_id"]
    options.path.parent.mkdir(parents=True, exist_ok=True)
    with logged_in(inventory.url, user, password) as page:
        page.goto(f"{inventory.url}/dags/{options.dag}/runs/{urllib.parse.quote(run_id)}")
        page.get_by_text("report").first.wait_for()
        page.wait_for_load_state("networkidle")
        # The rows fade in.
        page.wait_for_timeout(1500)
        page.screenshot(path=options.path)
    print(options.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
