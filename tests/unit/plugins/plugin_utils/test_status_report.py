# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

from ansible_collections.windfarm.airflow.plugins.plugin_utils import status_report

UNIT = {
    "name": "redis-server.service",
    "instance": "",
    "state": "active",
    "substate": "running",
    "since": "2026-11-22T01:59:39Z",
    "restarts": 2,
    "memory": 7 * 2**20,
    "release": "",
    "current": None,
    "tasks": [],
}
COLOUR = {**UNIT, "instance": "airflow-worker@default", "release": "3.3.2-aa", "current": False}


def host(*units: dict[str, Any], problems: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    status = {
        "reachable": True,
        "groups": ["redis"],
        "host": {"debian": "13.7", "python": "3.13.5", "packages": {"redis-server": "8"}},
    }
    return {"status": {**status, "units": list(units), "certificates": [], "problems": list(problems), "notes": [], **more}}


def text(**results: Any) -> list[str]:
    return status_report.text(status_report.collect(results))


def test_all_well() -> None:
    assert text(db1=host(UNIT)) == [
        "",
        "  db1: Debian 13.7, Python 3.13.5, redis-server 8",
        "   groups: redis",
        "   unit          state    since                restarts  memory  release",
        "   redis-server  running  2026-11-22 01:59:39  2         7 MB",
        "",
        "all well",
    ]


def test_problems_are_marked_and_counted() -> None:
    stopped = {**UNIT, "state": "failed", "substate": "failed", "memory": None, "restarts": 0}
    gone = {"reachable": False, "groups": ["airflow_worker"], "problems": ["unreachable: no route"], "notes": []}
    lines = text(db1=host(stopped, problems=("redis-server.service is failed",)), worker1={"status": gone}, worker2=None)
    assert lines[-4:] == [
        "! db1: redis-server.service is failed",
        "! worker1: unreachable: no route",
        "! worker2: has not answered",
        "3 problems",
    ]
    assert "! db1: Debian 13.7, Python 3.13.5, redis-server 8" in lines
    assert "!  redis-server  failed  2026-11-22 01:59:39" in lines
    assert "! worker1: unreachable" in lines


def test_of_two_colours_the_idle_one_is_left_out() -> None:
    lines = text(
        worker1=host(
            {**COLOUR, "name": "airflow-worker@default-a.service", "state": "inactive", "substate": "dead"},
            {**COLOUR, "name": "airflow-worker@default-b.service", "state": "deactivating", "tasks": ["x"]},
        )
    )
    assert "default-a" not in "".join(lines)
    (line,) = (line for line in lines if "default-b" in line)
    assert "deactivating (draining), 1 task " in line
    # It runs with old settings because it finishes, so that is no news.
    assert "stale" not in line


def test_certificates() -> None:
    one = {
        "path": "/etc/airflow/tls/ca.pem",
        "not_after": "2027-01-02T03:04:05Z",
        "days_left": 41,
        "names": [],
        "subject": "CN=CA",
    }
    lines = text(db1=host(certificates=[one]))
    assert "   /etc/airflow/tls/ca.pem  2027-01-02  41 days  CN=CA" in lines
