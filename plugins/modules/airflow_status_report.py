#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_status_report
short_description: Show what all hosts of a play have answered to airflow_status
version_added: 0.1.0
description:
  - Prints one screen for all hosts of the play, or one line of JSON, and ends with V(all well) or the number of problems.
    Hosts are in the order of the inventory.
  - Says of the cluster what no host can see alone, such as a queue that a DAG uses and no worker takes, as warnings.
  - Run it once per play, with C(run_once), after M(windfarm.airflow.airflow_status).
options:
  register:
    description: Name of the variable that the task with M(windfarm.airflow.airflow_status) has registered.
    type: str
    default: __airflow_status
  format:
    description:
      - V(text) is for people.
      - V(json) is the return values C(well), C(time), C(problems), C(warned), C(cluster) and C(hosts) as one document, alone on
        one line of the output. The line is the only one that begins with a brace.
    type: str
    choices: [text, json]
    default: text
  file:
    description:
      - File on the controller that gets the JSON document, whatever O(format) is. Whoever reads it finds the old or the new one,
        never half.
      - It is written in check mode too.
    type: path
  html:
    description:
      - File on the controller that gets the same as a page for a browser, with a picture of the cluster, written as O(file) is.
        It loads nothing and runs nothing.
    type: path
  strict:
    description:
      - Fail if there is a problem, so that C(ansible-playbook) ends with a return code other than 0. Warnings are none.
    type: bool
    default: false
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  action:
    description: Runs on the controller, without a connection.
    support: full
"""

EXAMPLES = r"""
- name: Read the status
  windfarm.airflow.airflow_status:
  register: __airflow_status

- name: Show it
  windfarm.airflow.airflow_status_report:
    file: /var/lib/monitoring/airflow.json
    html: /var/www/html/airflow.html
  run_once: true
"""

RETURN = r"""
well:
  description: Whether there is no problem.
  returned: success
  type: bool
time:
  description: When the report was made, UTC.
  returned: success
  type: str
  sample: "2026-11-22T02:10:00Z"
problems:
  description: The problems of all hosts.
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: Inventory name.
      type: str
    problem:
      description: What is wrong, and the cure.
      type: str
warned:
  description: What may keep tasks waiting, or make hosts run something else than others.
  returned: success
  type: list
  elements: dict
  contains:
    about:
      description: What it is about.
      type: str
      sample: queue gpu
    warning:
      description: What is so, and the cure.
      type: str
cluster:
  description: What all hosts together say.
  returned: success
  type: dict
  contains:
    health:
      description: V(well), V(ill), V(draining) or V(off) (drained) by host.
      type: dict
    components:
      description:
        - By host, a list of what it runs or should run. Each has C(component), C(label), C(unit), C(health), C(state),
          C(version), C(release), C(uptime) in seconds, C(tasks), C(slots), C(queues), C(memory) in bytes, C(restarts).
      type: dict
    queues:
      description:
        - By queue, what M(windfarm.airflow.airflow_queues) returns in C(queues), and C(workers) that take it now, those that
          should and do not (C(away)), those that were not asked (C(outside)), C(slots) of them all and how many are C(used).
      type: dict
    slots:
      description: C(all) slots of the workers that take tasks, how many are C(used), and tasks on C(draining) workers.
      type: dict
    tasks:
      description: Tasks that run, each with C(id), C(name), C(run), C(host), C(unit), C(seconds) and C(draining).
      type: list
      elements: dict
    releases:
      description: Hosts by release; workers that finish their tasks are left out.
      type: dict
    dags:
      description: C(hosts) by revision of the DAG files, and when it was C(shipped).
      type: dict
    backup:
      description: The last backup, its C(host) and C(age) in seconds; empty where none are made.
      type: dict
    certificate:
      description: The first certificate to expire, its C(host), and the C(count) of all.
      type: dict
hosts:
  description: Each host's return value C(status) of M(windfarm.airflow.airflow_status), by inventory name.
  returned: success
  type: dict
"""
