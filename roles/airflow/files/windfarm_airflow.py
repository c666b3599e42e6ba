"""Installed into every release of windfarm.airflow, for [core] hostname_callable."""

import os


def hostname() -> str:
    """How the other hosts reach this one (airflow_address), from the environment of the unit."""
    return os.environ["AIRFLOW_ADDRESS"]
