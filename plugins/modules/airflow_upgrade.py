#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_upgrade
short_description: Compares the inventory's release with the one that a cluster runs
version_added: 0.1.0
description:
  - Reads which release the scheduler of a host runs, and refuses what the playbook must not do with it. Changes nothing.
  - For O(state=upgrade) and O(state=rollback), refuses variables of the release that were given with C(-e) and differ from the
    inventory. The next run without them would undo the upgrade.
options:
  version:
    description: Airflow version that the inventory asks for.
    type: str
    required: true
  state:
    description:
      - V(same) refuses any other version.
      - V(upgrade) refuses an older one, another major version, and a host without scheduler.
      - V(rollback) refuses a newer one, another major version, and a host without scheduler.
    type: str
    choices: [same, upgrade, rollback]
    default: same
  host:
    description: Inventory name of the host that is asked, for messages.
    type: str
    default: ""
  releases_directory:
    description: Folder of the releases.
    type: path
    default: /opt/airflow/releases
author:
  - windfarm.airflow contributors (@windfarm)
extends_documentation_fragment: windfarm.airflow.reads
attributes:
  action:
    description: Looks on the controller at what was given with C(-e).
    support: full
"""

EXAMPLES = r"""
- name: Look at the cluster
  windfarm.airflow.airflow_upgrade:
    version: "{{ airflow_version }}"
    state: upgrade
"""

RETURN = r"""
version:
  description: The version that the scheduler runs; empty where there is none.
  returned: success
  type: str
release:
  description: Name of the release that it runs.
  returned: success
  type: str
previous:
  description: Name of the release that served before that one.
  returned: success
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import upgrade
from ansible_collections.windfarm.airflow.plugins.module_utils.release import previous
from ansible_collections.windfarm.airflow.plugins.module_utils.services import ServicesError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["same", "upgrade", "rollback"], "default": "same"},
            "host": {"type": "str", "default": ""},
            "releases_directory": {"type": "path", "default": "/opt/airflow/releases"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    try:
        path = upgrade.running()
        now = upgrade.version_of(path)
        upgrade.refuse(parameters["state"], now, parameters["version"], parameters["host"] or "this host")
    except (upgrade.UpgradeError, ServicesError, OSError) as error:
        module.fail_json(msg=str(error))
    name = os.path.basename(path)
    before = previous(parameters["releases_directory"], name)
    if parameters["state"] == "rollback" and now == parameters["version"] and before:
        module.warn(f"the cluster runs {now} already, as the inventory says. The release before it was {before}")
    module.exit_json(changed=False, version=now, release=name, previous=before)


if __name__ == "__main__":
    main()
