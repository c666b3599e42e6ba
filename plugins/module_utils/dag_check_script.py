# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What module airflow_dag_check runs with a release's Python, as the dag processor's user. It answers on file descriptor 3."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any


def parse() -> dict[str, Any]:
    """Errors by file, of every bundle whose files are on this host, and how many DAGs there are."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag

    errors: dict[str, str] = {}
    dags = 0
    for bundle in DagBundlesManager().get_all_dag_bundles():
        if not os.path.isdir(bundle.path):
            continue
        bag = BundleDagBag(dag_folder=str(bundle.path), bundle_path=bundle.path, bundle_name=bundle.name)
        dags += len(bag.dags)
        errors.update({str(path): (str(text).strip().splitlines() or [""])[-1] for path, text in bag.import_errors.items()})
    return {"errors": errors, "dags": dags}


def lint() -> list[str]:
    """Airflow's own `config lint`, whose exit status is always 0."""
    from airflow.cli import cli_parser

    arguments = cli_parser.get_parser().parse_args(["config", "lint"])
    with contextlib.redirect_stdout(io.StringIO()) as output:
        arguments.func(arguments)
    lines = [line.strip() for line in output.getvalue().splitlines()]
    # What merely has another default is set by the role, or left to it on purpose.
    return [line for line in lines if line.startswith("- ") and "default value" not in line.lower()]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    try:
        result = parse()
        if asked["lint"]:
            result["lint"] = lint()
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(3, "w") as answers:
        json.dump(result, answers)
