#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_removal
short_description: Takes a drained worker host out of a cluster
version_added: 0.1.0
description:
  - V(marked) notes on a host which hosts were removed, in the local fact C(windfarm_airflow).
    M(windfarm.airflow.airflow_preflight) then refuses to deploy them again by accident.
  - V(forgotten) takes that back, but for those of O(hosts) that are not O(readmitted).
  - V(clean) takes everything of this collection off the host, that is units, users, settings, releases, logs, DAG files, and
    HAProxy's settings. Debian's packages stay, and so do files that others have put into folders of this collection.
options:
  state:
    description: What is wanted of this host.
    type: str
    choices: [marked, forgotten, clean]
    required: true
  hosts:
    description:
      - Inventory names, with O(state=marked) of the removed hosts, with O(state=forgotten) of those whose note stays, such as all
        that are still in the inventory.
    type: list
    elements: str
    default: []
  readmitted:
    description: Inventory names of hosts that may come back, for O(state=forgotten).
    type: list
    elements: str
    default: []
  releases_directory:
    description: Folder of the releases.
    type: path
    default: /opt/airflow/releases
  dags_folder:
    description: Folder of the DAG files.
    type: path
    default: /srv/airflow/dags
  plugins_folder:
    description: Folder of Airflow's plugins.
    type: path
    default: /srv/airflow/plugins
  admin_group:
    description: Group that may run the C(airflow) command.
    type: str
    default: airflow-admin
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Can run in check mode and predict changes.
    support: full
  diff_mode:
    description: Lists what is done.
    support: full
"""

EXAMPLES = r"""
- name: Take everything of the cluster off a host
  windfarm.airflow.airflow_removal:
    state: clean
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be, in this order.
  returned: always
  type: list
  elements: str
notes:
  description: What stays, and why.
  returned: always
  type: list
  elements: str
removed:
  description: All hosts that this host knows to be removed, and when that was.
  returned: with O(state=marked) and O(state=forgotten)
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock, removal
from ansible_collections.windfarm.airflow.plugins.module_utils.services import ServicesError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["marked", "forgotten", "clean"], "required": True},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "readmitted": {"type": "list", "elements": "str", "default": []},
            "releases_directory": {"type": "path", "default": "/opt/airflow/releases"},
            "dags_folder": {"type": "path", "default": "/srv/airflow/dags"},
            "plugins_folder": {"type": "path", "default": "/srv/airflow/plugins"},
            "admin_group": {"type": "str", "default": "airflow-admin"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    host_lock.hold(module)
    cleaning = removal.Cleaning(
        releases=parameters["releases_directory"],
        dags=parameters["dags_folder"],
        plugins=parameters["plugins_folder"],
        admin_group=parameters["admin_group"],
        check=module.check_mode,
    )
    problem = None
    removed: dict[str, str] = {}
    try:
        if parameters["state"] == "marked":
            when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            cleaning.actions, removed = removal.mark(parameters["hosts"], when, module.check_mode)
        elif parameters["state"] == "forgotten":
            back = [name.strip() for name in parameters["readmitted"]]
            cleaning.actions, removed = removal.forget(
                [host for host in parameters["hosts"] if host not in back], module.check_mode
            )
        else:
            cleaning.clean()
    except (removal.RemovalError, ServicesError, OSError) as error:
        problem = str(error)
    answer = {
        "changed": bool(cleaning.actions),
        "actions": cleaning.actions,
        "notes": cleaning.notes,
        "removed": removed,
        "diff": {"before": "", "after": "".join(f"{action}\n" for action in cleaning.actions)},
    }
    if problem:
        module.fail_json(msg=problem, **answer)
    for note in cleaning.notes:
        module.warn(note)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
