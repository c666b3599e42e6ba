#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_status_report
short_description: Show what all hosts of a play have answered to airflow_status
version_added: 0.1.0
description:
  - Prints one table for all hosts of the play, or one line of JSON, and ends with V(all well) or the number of problems.
  - Run it once per play, with C(run_once), after M(windfarm.airflow.airflow_status).
options:
  register:
    description: Name of the variable that the task with M(windfarm.airflow.airflow_status) has registered.
    type: str
    default: __airflow_status
  format:
    description:
      - V(text) is for people.
      - V(json) is the return values C(well), C(time), C(problems) and C(hosts) as one document, alone on one line of the output.
        The line is the only one that begins with a brace.
    type: str
    choices: [text, json]
    default: text
  file:
    description:
      - File on the controller that gets the JSON document, whatever O(format) is. Whoever reads it finds the old or the new one,
        never half.
      - It is written in check mode too.
    type: path
  strict:
    description: Fail if there is a problem, so that C(ansible-playbook) ends with a return code other than 0.
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
hosts:
  description: Each host's return value C(status) of M(windfarm.airflow.airflow_status), by inventory name.
  returned: success
  type: dict
"""
