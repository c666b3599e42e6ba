#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_task_logs
short_description: Brings the task logs of a host that leaves to the webservers
version_added: 0.1.0
description:
  - V(measured) tells how much there is on a worker's host, and how much room on a webserver's.
  - V(fetched) brings the logs of a worker's host to the control node, for the time of the playbook.
  - V(kept) puts the fetched logs of all O(hosts) into the folder of this host's webserver, which then shows them as if they were
    still on the worker's. Logs that are there already are left as they are.
  - Of a task that was deferred and went on in another worker, Airflow shows the last host's part of the log only. Such parts are
    kept under another name, C(part-of-HOST-…), since they would hide the last one.
options:
  state:
    description: What is wanted.
    type: str
    choices: [measured, fetched, kept]
    required: true
  hosts:
    description: Inventory names of the hosts whose logs are kept, for O(state=kept).
    type: list
    elements: str
    default: []
  others:
    description: Addresses of the hosts that stay, as Airflow knows them, for O(state=kept).
    type: list
    elements: str
    default: []
  host:
    description: Used between the action and the module.
    type: str
    default: ""
  path:
    description: Used between the action and the module.
    type: path
  start:
    description: Used between the action and the module.
    type: int
    default: 0
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Measures, brings nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  action:
    description: Has an action plugin of the same name on the control node.
    support: full
"""

EXAMPLES = r"""
- name: Keep the logs of a host that leaves
  windfarm.airflow.airflow_task_logs:
    state: kept
    hosts: [worker3]
    others: [10.0.0.21, 10.0.0.22]
"""

RETURN = r"""
files:
  description: How many logs there are on a worker's host.
  returned: with O(state=measured) and O(state=fetched)
  type: int
bytes:
  description: How much they take there.
  returned: with O(state=measured)
  type: int
free:
  description: Bytes that are free for a webserver's logs; null where there is no webserver.
  returned: with O(state=measured)
  type: int
added:
  description: How many logs were put into the webserver's folder.
  returned: with O(state=kept)
  type: int
present:
  description: How many were there already.
  returned: with O(state=kept)
  type: int
hidden:
  description: How many are parts of logs that ended on another host.
  returned: with O(state=kept)
  type: int
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock, task_logs
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import ScriptError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["measured", "fetched", "kept"], "required": True},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "others": {"type": "list", "elements": "str", "default": []},
            "host": {"type": "str", "default": ""},
            "path": {"type": "path"},
            "start": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    try:
        if parameters["state"] == "measured":
            files, size = task_logs.measure(task_logs.WORKER)
            free = task_logs.free(task_logs.WEBSERVER) if os.path.isdir(task_logs.WEBSERVER) else None
            module.exit_json(changed=False, files=files, bytes=size, free=free)
        elif parameters["state"] == "fetched":
            owner = os.stat(os.path.dirname(parameters["path"])).st_uid
            count = task_logs.pack(task_logs.WORKER, parameters["start"], parameters["path"], owner)
            module.exit_json(changed=False, files=count)
        else:
            host_lock.hold(module)
            done = task_logs.unpack(parameters["path"], parameters["host"], parameters["others"])
            module.exit_json(changed=bool(done["added"]), **done)
    except ScriptError as error:
        module.fail_json(msg=f"the database cannot be asked on which host tasks ended: {str(error).splitlines()[0]}")
    except (task_logs.LogsError, OSError, KeyError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
