#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_status
short_description: Read what a host of the cluster looks like now
version_added: 0.1.0
description:
  - Reads units, versions and certificates of a host, says what of it is a problem, and changes nothing.
  - A host that cannot be reached, or on which the module cannot run, does not fail the task. That is told in RV(status), as a
    problem of the host, so that a play goes on with it.
  - M(windfarm.airflow.airflow_status_report) shows what all hosts have answered.
options:
  services:
    description: Airflow services that the host should run. By default what its inventory groups ask for.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the component.
        type: str
        required: true
      service:
        description: Name of the unit without suffix and colour.
        type: str
        required: true
      instance:
        description: Name of the instance; not empty means two colours.
        type: str
        default: ""
  servers:
    description: Servers that the host should run. By default what its inventory groups ask for.
    type: list
    elements: str
    choices: [postgresql, redis]
  dags_folder:
    description: Link to the shipped DAG files, whose revision is told; empty for none.
    type: path
    default: ""
  tls_directory:
    description: Folder whose certificates are looked at.
    type: path
    default: /etc/airflow/tls
  warn_days:
    description: A certificate that expires within this many days is a problem.
    type: int
    default: 30
author:
  - windfarm.airflow contributors (@windfarm)
extends_documentation_fragment: windfarm.airflow.reads
attributes:
  action:
    description: Adds on the controller what the host's groups ask for, and what to say of a host that does not answer.
    support: full
"""

EXAMPLES = r"""
- name: Read the status
  windfarm.airflow.airflow_status:
  register: airflow_status

- name: Remove a load balancer's entry only where all is well
  ansible.builtin.assert:
    that: airflow_status.status.problems is falsy
"""

RETURN = r"""
status:
  description: The host as it is now. Times are UTC, in ISO 8601.
  returned: always
  type: dict
  contains:
    reachable:
      description: Whether there was a connection. If not, only C(groups) and C(problems) tell anything.
      type: bool
    groups:
      description: The host's groups that this collection knows.
      type: list
      elements: str
    problems:
      description: What should not be so, a line each, with the cure.
      type: list
      elements: str
      sample: ["redis-server.service is inactive (dead) since 2026-11-22T01:59:39Z; see journalctl -u redis-server.service"]
    notes:
      description: What is worth knowing but no problem, such as a worker that finishes its tasks.
      type: list
      elements: str
    host:
      description: Versions of Debian and Python, time of the boot, installed server packages, and whether the host is drained.
      type: dict
      sample:
        architecture: x86_64
        booted: "2026-11-22T01:53:40Z"
        debian: "13.7"
        drained: false
        packages: {redis-server: "5:8.0.2-3+deb13u3"}
        python: 3.13.5
    units:
      description: Services and targets.
      type: list
      elements: dict
      contains:
        name:
          description: The unit.
          type: str
        component:
          description: What it belongs to, such as V(scheduler) or V(redis); empty for what no group asks for.
          type: str
        instance:
          description: For a worker's two colours, the unit's name without the colour.
          type: str
        state:
          description: systemd's C(ActiveState), or V(not-found). V(deactivating) on a worker is one that finishes its tasks.
          type: str
        substate:
          description: systemd's C(SubState).
          type: str
        result:
          description: systemd's C(Result).
          type: str
        since:
          description: When it came into that state.
          type: str
        uptime:
          description: Seconds since its main process was started; null where it does not run, and for targets.
          type: int
        health:
          description:
            - V(well), or V(ill) where one of RV(status.problems) or the health timer speaks of it.
            - V(draining) for a worker that finishes its tasks, V(idle) for what need not run, V(left) for what no group asks for.
          type: str
        enabled:
          description: systemd's C(UnitFileState).
          type: str
        restarts:
          description: How often systemd has restarted it since it was started.
          type: int
        memory:
          description: Bytes that it uses; null where it does not run.
          type: int
        release:
          description: Folder name of the release that the process runs, version first.
          type: str
        current:
          description: Whether it was started with what is on disk; null where that is not known, as for servers.
          type: bool
        tasks:
          description: Ids of the task instances that run in a worker's colour.
          type: list
          elements: str
        queues:
          description: Queues that a worker's colour takes.
          type: list
          elements: str
        slots:
          description: How many tasks a worker's colour runs at once, at most; null for what is no worker.
          type: int
    health:
      description: What the health timer of the host has found; empty where none has run since the boot.
      type: dict
      contains:
        age:
          description: Seconds since it looked.
          type: int
        components:
          description: C(healthy), C(strikes), C(restarts) and C(why) by name of the component.
          type: dict
        withdrawn:
          description: Why the host's workers have taken themselves out of the queues; empty when they have not.
          type: str
        disk:
          description: What it has found of the disks.
          type: dict
        clock:
          description: What it has found of the clock.
          type: dict
    dags:
      description: C(revision) of the DAG files that this host reads, and when they were C(shipped); empty where it reads none.
      type: dict
      sample: {revision: 3f2a90bb1c44de07, shipped: "2026-11-22T01:59:39Z"}
    queues:
      description:
        - On a host with a scheduler, what the metadata database and the broker know, as M(windfarm.airflow.airflow_queues)
          returns it in C(queues), C(taken), C(running) and C(broker_problem). Elsewhere empty.
      type: dict
    entry:
      description:
        - On an entry host, the C(address) that moves, if there is one, whether the host has it (C(held)), how many hosts share
          it (C(shared)), and the state of each webserver by its name (C(servers)). Elsewhere empty.
      type: dict
      sample: {address: 10.0.0.100, held: true, shared: 2, servers: {control1: UP}}
    certificates:
      description: Each certificate in the files.
      type: list
      elements: dict
      contains:
        path:
          description: The file.
          type: str
        subject:
          description: Whom it names.
          type: str
        names:
          description: Addresses and DNS names that it is valid for.
          type: list
          elements: str
        not_after:
          description: When it expires.
          type: str
        days_left:
          description: Whole days until then.
          type: int
    backup:
      description: The last good backup of the databases on this host; empty where none are made.
      type: dict
      contains:
        id:
          description: Its folder's name; empty while there is none.
          type: str
        time:
          description: The moment that it shows.
          type: str
        bytes:
          description: Size of its dumps.
          type: int
        seconds:
          description: How long making and verifying it took.
          type: float
        fernet:
          description: Fingerprint of the Fernet key that it needs.
          type: str
        count:
          description: How many good backups there are.
          type: int
        directory:
          description: Where they are.
          type: str
        copied_to:
          description: Where each is copied to; empty for nowhere.
          type: str
        schedule:
          description: When they are made; empty for by hand only.
          type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import status


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "services": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "service": {"type": "str", "required": True},
                    "instance": {"type": "str", "default": ""},
                },
            },
            "servers": {"type": "list", "elements": "str", "choices": ["postgresql", "redis"]},
            "dags_folder": {"type": "path", "default": ""},
            "tls_directory": {"type": "path", "default": "/etc/airflow/tls"},
            "warn_days": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    found = status.read(
        parameters["services"] or [],
        parameters["servers"] or [],
        parameters["tls_directory"],
        parameters["warn_days"],
        parameters["dags_folder"],
    )
    module.exit_json(changed=False, status=found)


if __name__ == "__main__":
    main()
