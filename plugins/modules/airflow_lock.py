#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_lock
short_description: Resolve own Python packages under Airflow's lock
version_added: 1.0.0
description:
  - Resolves C(airflow_requirements) of the hosts in group C(airflow), once, on the controller, with the shipped lock of
    their C(airflow_version) as constraints. Writes complete locks with hashes into C(locks) beside the inventory.
  - A lock that was resolved for the same requirements under the same shipped lock stays as it is. Remove the file to
    resolve anew.
  - Obeys C(airflow_index_url), C(airflow_extra_index_url), C(airflow_proxy), and C(airflow_ca_bundle) where the
    controller has this file.
options:
  pythons:
    description:
      - Python versions to resolve for.
      - By default C(airflow_lock_pythons), else each with a shipped lock.
    type: list
    elements: str
attributes:
  check_mode:
    description: Resolves, but writes nothing.
    support: full
  diff_mode:
    description: Shows the packages that the shipped lock does not have.
    support: full
  action:
    description: Runs on the controller, without a connection.
    support: full
author:
  - windfarm.airflow contributors (@windfarm)
"""

EXAMPLES = r"""
- name: Resolve the requirements
  windfarm.airflow.airflow_lock:
"""

RETURN = r"""
locks:
  description: The complete locks that the hosts install.
  returned: success
  type: list
  elements: str
  sample: [/srv/inventories/production/locks/airflow-3.3.2-py3.11.txt]
"""
