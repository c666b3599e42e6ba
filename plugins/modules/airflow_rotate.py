#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_rotate
short_description: Bring the file of secrets from one state of a rotation to the next
version_added: 0.1.0
description:
  - A rotation replaces a secret in a few states of the file of secrets. In each of them all hosts can work with each other, also
    while some still have the state before. A state is written before anything uses it, in one step with C(airflow_rotation),
    which says what is rotated and how far it is. So a run of C(site.yml) is right at any moment, and an interrupted rotation
    is continued.
  - Values are replaced in place. Everything else of the file stays to the letter, a file that is encrypted stays so, and so does
    a value that is encrypted by itself.
  - C(playbooks/rotate_secrets.yml) brings the hosts to each state. Values appear in no output, diff or log.
options:
  secret:
    description: What is rotated.
    type: str
    choices: [fernet, jwt, database, results, redis, tls, api, admin]
    required: true
  state:
    description:
      - V(planned) refuses what cannot be rotated, and returns the steps that are left.
      - V(entered) writes the state O(step), unless the file has it.
      - V(settled) is told that all hosts have the state, and notes when the next may follow.
      - V(finished) removes what only the rotation needed.
    type: str
    choices: [planned, entered, settled, finished]
    required: true
  step:
    description: Number of the state.
    type: int
    default: 0
  wait:
    description:
      - Whether to wait until tokens of the old key have run out. Otherwise the run ends, and the same command finishes it later.
    type: bool
    default: false
  reached:
    description: Name of the variable in which each host has the number of the state that it was brought to.
    type: str
    default: __airflow_rotation_reached
  proof:
    description: Lines to show at the end.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says what it would do, and writes nothing.
    support: full
  diff_mode:
    description: Shows nothing.
    support: none
  action:
    description: Runs on the controller, without a connection.
    support: full
author:
  - windfarm.airflow contributors (@windfarm)
"""

EXAMPLES = r"""
- name: Write the first state
  windfarm.airflow.airflow_rotate:
    secret: redis
    state: entered
    step: 1
"""

RETURN = r"""
file:
  description: The file of secrets.
  returned: with state=planned and state=entered
  type: str
steps:
  description: The steps that are left by their number, each with its title, what comes before it and what it converges.
  returned: with state=planned
  type: dict
converge:
  description: What is to be brought to the state that was written; empty where there is nothing to do.
  returned: with state=entered
  type: list
  elements: str
waits:
  description: Whether the rotation has to wait for tokens to run out.
  returned: with state=planned and state=entered
  type: bool
"""
