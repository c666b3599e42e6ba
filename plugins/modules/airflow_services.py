#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_services
short_description: Converges the systemd services of Airflow's components on a host
version_added: 0.1.0
description:
  - Starts what is stopped, restarts what runs with something else than what is on disk, and waits until each service is proven
    healthy, all of the host side by side.
  - Looks at what runs, not at what just changed, so a run after an interrupted one ends in the same state.
  - A service with an instance is never restarted in place. Its idle colour is started and proven first; the other then finishes
    its tasks, for as long as they take, and nothing waits for it.
  - Starts no Airflow process but the services themselves.
options:
  services:
    description: The services that this host runs.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the component.
        type: str
        required: true
      service:
        description: Name of the unit without suffix and colour.
        type: str
        required: true
      config:
        description: Folder of its configuration.
        type: path
        required: true
      instance:
        description: Name of the instance; not empty means two colours.
        type: str
        default: ""
      health:
        description: How it is asked whether it works; kind is http, job or celery.
        type: dict
        required: true
      database:
        description: Whether it uses the metadata database, so that it runs only on the schema of its own release.
        type: bool
        default: false
      unless:
        description: A file that keeps the service from starting while it is there.
        type: str
        default: ""
  hashes:
    description:
      - Return value C(hashes) of M(windfarm.airflow.airflow_files), so that check mode sees what it did not write.
      - Without a service's hash, the unit on disk counts.
    type: dict
    default: {}
  python:
    description: Interpreter of the release, which the probe runs with where a service's environment names none.
    type: path
    default: ""
  state:
    description:
      - V(converged) brings the services of this host up; those that no group asks for any more are returned as RV(leaving).
      - V(removed) removes those, a worker after its tasks have ended. It refuses the last of its kind.
      - V(restarted) restarts what runs with something else than what is on disk, and starts nothing.
      - V(stopped) stops the services, until a run or the next boot starts them.
      - V(held) lets run what runs, but what uses the database and ends is not started again, until it is converged.
    type: str
    choices: [converged, removed, restarted, stopped, held]
    default: converged
  fall_back:
    description:
      - What a service does that does not become healthy. With V(true) it gets back the files that it was last healthy with.
      - Where their release does not know the schema of the database any more, the service is stopped instead.
      - The task fails in both cases.
    type: bool
    default: false
  backup:
    description: Name of the backup that was made before a migration, for that message.
    type: str
    default: ""
  workers:
    description: How O(state=stopped) stops workers. V(drain) waits O(drain_timeout) for their tasks, V(kill) ends them.
    type: str
    choices: [drain, kill]
    default: drain
  health_timeout:
    description: Seconds until a service must be healthy.
    type: int
    default: 180
  drain_timeout:
    description: Seconds to wait for running tasks where that cannot be avoided, that is for a third generation.
    type: int
    default: 3600
  restart:
    description: V(overlap) starts the new colour beside the old one, V(wait) after the old one has finished its tasks.
    type: str
    choices: [overlap, wait]
    default: overlap
  catalog:
    description: All components with their health, for O(state=removed).
    type: dict
    default: {}
  peers:
    description: Addresses of the other hosts of each component, for O(state=removed).
    type: dict
    default: {}
  members:
    description: Names of the hosts of each component, for O(state=removed).
    type: dict
    default: {}
  healthy:
    description: Names of the other hosts that this run has converged, for O(state=removed).
    type: list
    elements: str
    default: []
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Can run in check mode and predict changes.
    support: full
  diff_mode:
    description: Lists what is done to which unit.
    support: full
"""

EXAMPLES = r"""
- name: Run the scheduler
  windfarm.airflow.airflow_services:
    python: /opt/airflow/releases/3.3.2-1f0c2b9d4e/bin/python
    services:
      - name: scheduler
        service: airflow-scheduler
        config: /etc/airflow/scheduler
        health:
          kind: job
          job_type: SchedulerJob
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be, in this order.
  returned: always
  type: list
  elements: str
  sample: ["start airflow-worker@default-b.service", "let airflow-worker@default-a.service finish its tasks and stop"]
notes:
  description: What is as it should be but worth knowing, such as a colour that still finishes its tasks.
  returned: always
  type: list
  elements: str
leaving:
  description: Units on this host that no group asks for any more.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.services import Host, ServicesError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "services": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "service": {"type": "str", "required": True},
                    "config": {"type": "path", "required": True},
                    "instance": {"type": "str", "default": ""},
                    "health": {"type": "dict", "required": True},
                    "database": {"type": "bool", "default": False},
                    "unless": {"type": "str", "default": ""},
                },
            },
            "hashes": {"type": "dict", "default": {}},
            "python": {"type": "path", "default": ""},
            "state": {
                "type": "str",
                "choices": ["converged", "removed", "restarted", "stopped", "held"],
                "default": "converged",
            },
            "fall_back": {"type": "bool", "default": False},
            "backup": {"type": "str", "default": ""},
            "workers": {"type": "str", "choices": ["drain", "kill"], "default": "drain"},
            "health_timeout": {"type": "int", "default": 180},
            "drain_timeout": {"type": "int", "default": 3600},
            "restart": {"type": "str", "choices": ["overlap", "wait"], "default": "overlap"},
            "catalog": {"type": "dict", "default": {}},
            "peers": {"type": "dict", "default": {}},
            "members": {"type": "dict", "default": {}},
            "healthy": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    host_lock.hold(module)
    host = Host(
        services=parameters["services"],
        hashes=parameters["hashes"],
        python=parameters["python"],
        health_timeout=parameters["health_timeout"],
        drain_timeout=parameters["drain_timeout"],
        restart=parameters["restart"],
        check=module.check_mode,
        fall_back=parameters["fall_back"],
        backup=parameters["backup"],
    )
    problem = None
    try:
        if parameters["state"] == "removed":
            proven = [name for name, hosts in parameters["members"].items() if set(hosts) & set(parameters["healthy"])]
            host.remove(parameters["catalog"], parameters["peers"], proven)
        elif parameters["state"] == "stopped":
            host.stop(parameters["workers"])
        else:
            {"converged": host.converge, "restarted": host.restart_stale, "held": host.hold}[parameters["state"]]()
    except (ServicesError, OSError) as error:
        problem = str(error)
    answer = {
        "changed": bool(host.actions),
        "actions": host.actions,
        "notes": host.notes,
        "leaving": host.leaving(),
        "diff": {"before": "", "after": "".join(f"{action}\n" for action in host.actions)},
    }
    if problem:
        module.fail_json(msg=problem, **answer)
    for note in host.notes:
        module.warn(note)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
