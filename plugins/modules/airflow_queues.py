#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_queues
short_description: Find out which queues DAGs and unfinished tasks use, and whether workers serve them
version_added: 0.1.0
description:
  - Reads the serialised DAGs and the unfinished task instances from the metadata database by SQL, and with O(lengths) the
    lengths of the queues from the broker. Starts nothing of Airflow's and changes nothing.
  - Runs on a host with a scheduler or a webserver, with what its C(airflow) command has.
  - A task of an empty operator, which the scheduler ends by itself, uses no queue. A paused DAG uses its queues.
options:
  workers:
    description:
      - Worker hosts and their instances, each with the C(queues) that it takes, as the filter P(windfarm.airflow.cluster#filter)
        returns them in C(workers). Without it, RV(without_worker) and RV(lost) are empty.
    type: dict
    default: {}
  leaving:
    description: Those of O(workers) that will be removed.
    type: list
    elements: str
    default: []
  lengths:
    description: Also ask the broker how many messages wait.
    type: bool
    default: false
  warn:
    description:
      - Warn of each queue in RV(without_worker). A database that cannot be asked is then a warning too, and nothing is found.
    type: bool
    default: false
  names:
    description: Also tell which tasks run.
    type: bool
    default: false
  release:
    description: Folder of the release that asks. By default the one that the C(airflow) command of this host uses.
    type: path
    default: ""
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Changes nothing in either mode. On a host that is not installed yet it finds nothing, and says so in no error.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: See which queues would have no worker any more
  windfarm.airflow.airflow_queues:
    workers: "{{ (hostvars | windfarm.airflow.cluster(groups)).workers }}"
    leaving: [worker3]
  register: airflow_queues

- name: Refuse
  ansible.builtin.assert:
    that: airflow_queues.lost == {}
    fail_msg: "{{ airflow_queues.lost }}"
"""

RETURN = r"""
queues:
  description: Queues by name, of all DAGs, all unfinished tasks of runs that are not finished, and O(workers).
  returned: success
  type: dict
  contains:
    dags:
      description: How many DAGs use it, by their newest version.
      type: int
    paused:
      description: How many of these are paused.
      type: int
    examples:
      description: The names of some of them, first those that are not paused.
      type: list
      elements: str
    waiting:
      description: Tasks that wait for a worker.
      type: int
    running:
      description: Tasks that run.
      type: int
    later:
      description: Tasks that wait for something else and then need a worker.
      type: int
    length:
      description: Messages in the broker; null without O(lengths), and where the broker does not answer.
      type: int
taken:
  description: Messages that workers have taken and whose tasks have not ended; null like C(length).
  returned: success
  type: int
broker_problem:
  description: Why the broker was not asked with success; empty when it was, or was not to be.
  returned: success
  type: str
running:
  description: With O(names), the task instances that run, by id, at most 2000.
  returned: success
  type: dict
  contains:
    name:
      description: DAG and task, with the index of a mapped one.
      type: str
      sample: etl.load[3]
    run:
      description: Id of the DAG run.
      type: str
    seconds:
      description: For how long it has run.
      type: int
without_worker:
  description: Queues in use that none of O(workers) takes, and by what they are used.
  returned: success
  type: dict
  sample: {gpu: "DAG train, 3 waiting tasks"}
lost:
  description: Queues in use that only those of O(workers) take which are O(leaving).
  returned: success
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import queues
from ansible_collections.windfarm.airflow.plugins.module_utils.database import Database, DatabaseError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "workers": {"type": "dict", "default": {}},
            "leaving": {"type": "list", "elements": "str", "default": []},
            "lengths": {"type": "bool", "default": False},
            "warn": {"type": "bool", "default": False},
            "names": {"type": "bool", "default": False},
            "release": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    workers = parameters["workers"]
    nothing: dict[str, Any] = {"queues": {}, "taken": None, "running": {}, "broker_problem": "", "without_worker": {}, "lost": {}}
    if module.check_mode and not Database(parameters["release"] or None).prepared():
        module.exit_json(changed=False, **nothing)
    try:
        found = queues.read(queues.served(workers), parameters["release"], parameters["lengths"], parameters["names"])
    except (DatabaseError, OSError, KeyError, ValueError) as error:
        if parameters["warn"]:
            module.warn(f"whether workers take all queues that DAGs use could not be seen: {error}")
            module.exit_json(changed=False, **nothing)
        module.fail_json(msg=str(error))
    without = queues.without_worker(found["queues"], workers) if workers else {}
    for name, why in without.items() if parameters["warn"] else []:
        module.warn(queues.warning(name, why))
    module.exit_json(
        changed=False,
        **found,
        without_worker=without,
        lost=queues.lost_with(found["queues"], workers, parameters["leaving"]),
    )


if __name__ == "__main__":
    main()
