#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_info
short_description: Tell a cluster's version, health, migrations and what it holds
version_added: 0.1.0
description:
  - Asks the metadata database by SQL, from a host with a scheduler or a webserver. Changes nothing, and starts no Airflow.
  - Does not fail where PostgreSQL gives no answer; that is what RV(health) then says.
options:
  release:
    description: Folder of the release that is compared with. By default the one of the host's C(airflow) command.
    type: path
  wait:
    description: Seconds to wait for PostgreSQL.
    type: int
    default: 0
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Look at the cluster
  windfarm.airflow.airflow_info:
  register: airflow
  delegate_to: "{{ groups['airflow_scheduler'] | first }}"

- name: Go on only where it works
  ansible.builtin.assert:
    that: airflow.health.scheduler.status == 'healthy'
"""

RETURN = r"""
version:
  description: Airflow's version in the release.
  returned: success
  type: str
  sample: 3.3.2
release:
  description: Folder of the release.
  returned: success
  type: str
  sample: /opt/airflow/releases/3.3.2-1f0c2b9d4e
health:
  description:
    - For C(metadatabase), C(scheduler), C(triggerer) and C(dag_processor) the C(status), V(healthy) or V(unhealthy), null for one
      that has never been there, and the C(latest_heartbeat).
    - It is the cluster's and not a host's. One live scheduler is enough.
  returned: success
  type: dict
  sample:
    metadatabase: {status: healthy, detail: ""}
    scheduler: {status: healthy, latest_heartbeat: "2026-11-22T01:59:39.123456+00:00"}
    triggerer: {status: healthy, latest_heartbeat: "2026-11-22T01:59:38.123456+00:00"}
    dag_processor: {status: healthy, latest_heartbeat: "2026-11-22T01:59:37.123456+00:00"}
migrations:
  description:
    - How the database's schema stands to the release's. C(state) is V(current), V(pending), V(ahead) for a newer schema than the
      release knows, V(empty) or V(unknown).
    - C(revisions) are those of the database, by table; C(pending) are the tables that are behind.
  returned: success
  type: dict
  sample:
    state: current
    pending: []
    revisions: {alembic_version: [d2f4e1b3c5a7], alembic_version_fab: [02ca36b0235b]}
database:
  description: Its C(name), and the version of PostgreSQL.
  returned: when it answers
  type: dict
  sample: {name: airflow, postgresql: "15.14"}
counts:
  description: How many there are, of what the database has tables for.
  returned: when it answers
  type: dict
  sample:
    roles: 5
    users: 1
    pools: 1
    variables: 0
    connections: 0
    dags: 1
    dags_paused: 0
    import_errors: 0
    dag_runs_running: 0
    dag_runs_queued: 0
    tasks_running: 0
    tasks_queued: 0
"""

import configparser
import os
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import info_script
from ansible_collections.windfarm.airflow.plugins.module_utils.database import USER, Database, DatabaseError, ahead, behind
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import ScriptError, run_script

# The options that say after how many seconds without a heartbeat Airflow itself calls one unhealthy.
THRESHOLDS = {
    "scheduler": ("scheduler", "scheduler_health_check_threshold"),
    "triggerer": ("triggerer", "triggerer_health_check_threshold"),
    "dag_processor": ("dag_processor", "health_check_threshold"),
}
UNKNOWN = {"status": None, "latest_heartbeat": None}


def thresholds(environment: Mapping[str, str]) -> dict[str, int]:
    """As the host's configuration has them; 30 s each by Airflow's default."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(environment.get("AIRFLOW_CONFIG", ""), encoding="utf-8")
    return {
        name: int(environment.get(f"AIRFLOW__{section}__{key}".upper()) or str(config.get(section, key, fallback="30")))
        for name, (section, key) in THRESHOLDS.items()
    }


def state_of(revisions: Mapping[str, list[str]], migrations: Mapping[str, Any]) -> dict[str, Any]:
    newer, pending = ahead(revisions, migrations), behind(revisions, migrations)
    state = "empty" if not revisions else "ahead" if newer else "pending" if pending else "current"
    return {"state": state, "pending": [] if newer else pending, "revisions": revisions}


def main() -> None:
    module = AnsibleModule(
        argument_spec={"release": {"type": "path"}, "wait": {"type": "int", "default": 0}}, supports_check_mode=True
    )
    database = Database(module.params["release"])
    result: dict[str, Any] = {
        "changed": False,
        "release": database.release,
        "health": {"metadatabase": {"status": "unhealthy", "detail": ""}, **{name: UNKNOWN for name in THRESHOLDS}},
        "migrations": {"state": "unknown", "pending": [], "revisions": {}},
    }
    try:
        migrations = database.migrations()
        result["version"] = os.path.basename(database.release).rpartition("-")[0]
        if "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in database.environment:
            raise OSError("this host has no access to the metadata database; ask one with a scheduler or a webserver")
    except (DatabaseError, OSError) as error:
        module.fail_json(msg=str(error))
    try:
        result["migrations"] = state_of(database.wait(None, module.params["wait"])["revisions"], migrations)
        asked = {"thresholds": thresholds(database.environment)}
        answer = run_script(database.release, USER, database.environment, info_script, asked)
        result["health"] = {"metadatabase": {"status": "healthy", "detail": ""}, **answer.pop("health")}
        result.update(answer)
    except (DatabaseError, ScriptError) as error:
        result["health"]["metadatabase"]["detail"] = str(error)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
