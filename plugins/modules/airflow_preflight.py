#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_preflight
short_description: Find every mistake of an inventory or its hosts before anything is changed
version_added: 1.0.0
description:
  - Collects all problems, prints them as one list with a cure for each, and fails if there are any. Changes nothing.
  - Run it once per play, with C(run_once).
options:
  check:
    description:
      - V(inventory) checks groups, addresses, secrets, locks and settings of the whole inventory, whatever
        C(--limit) says, without a connection.
      - V(hosts) checks the gathered facts of the play's hosts, and whether a host that is needed did not answer.
        The local fact C(windfarm_airflow) of a host, if there is one, tells whether the inventory has the keys that the
        host was given, and which hosts were removed; C(windfarm_airflow_worker) what runs, and whether the host is drained.
      - V(drain) and V(removal) check, in a later play, whether the hosts that O(worker) names may be drained or removed.
    type: str
    choices: [inventory, hosts, drain, removal]
    required: true
  worker:
    description: Exact names of worker hosts, as a list or with commas between them, for O(check=drain) and O(check=removal).
    type: raw
    default: ""
  leaving:
    description: Hosts that are being removed, for O(check=hosts).
    type: list
    elements: str
    default: []
  lost:
    description: Hosts that are gone for good and need not answer.
    type: list
    elements: str
    default: []
  readmitted:
    description: Removed hosts that are meant to come back, as a list or with commas between them, for O(check=hosts).
    type: raw
    default: ""
  facts:
    description: Name of the variable that the task which gathered facts has registered.
    type: str
    default: __airflow_preflight_facts
extends_documentation_fragment: windfarm.airflow.reads
attributes:
  action:
    description: Runs on the controller, without a connection.
    support: full
author:
  - windfarm.airflow contributors (@windfarm)
"""

EXAMPLES = r"""
- name: Find every mistake in the inventory
  windfarm.airflow.airflow_preflight:
    check: inventory
  run_once: true
"""

RETURN = r"""
secrets_file:
  description: The file of secrets that the plays must read by themselves; empty if Ansible does.
  returned: success
  type: str
  sample: ""
"""
