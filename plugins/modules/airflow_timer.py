#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_timer
short_description: Run a systemd timer, or take it away with its service
version_added: 0.1.0
description:
  - Enables and starts the timer NAME, whose files C(/etc/systemd/system/NAME.timer) and C(NAME.service) are there already,
    or removes the timer and both files.
  - What to do is derived from systemd, never from what this run happened to write, so that a run after an interrupted one ends in
    the same state. A service that is running is not stopped, unless it O(leaves) files.
options:
  name:
    description: Name of timer and service, without suffix.
    type: str
    required: true
  enabled:
    description: Whether this host has the timer.
    type: bool
    required: true
  leaves:
    description:
      - Files of the service that go with the timer, such as what keeps others from starting. A service that is running is
        stopped first where there are some, so that it does not write them again; it must bear that.
    type: list
    elements: path
    default: []
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Can run in check mode and predict the changes.
    support: full
  diff_mode:
    description: Shows what is done, or would be done.
    support: full
"""

EXAMPLES = r"""
- name: Have old rows deleted from one host
  windfarm.airflow.airflow_timer:
    name: airflow-db-clean
    enabled: "{{ inventory_hostname == groups['airflow_scheduler'] | first }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  returned: always
  type: list
  elements: str
  sample: ["enable airflow-db-clean.timer", "start airflow-db-clean.timer"]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import Host, ServerError

UNITS = "/etc/systemd/system"


def present(host: Host, name: str) -> None:
    timer, service = f"{name}.timer", f"{name}.service"
    if not host.check:
        for path in (f"{UNITS}/{timer}", f"{UNITS}/{service}"):
            if not os.path.exists(path):
                raise ServerError(f"{path} does not exist on this host; write it first")
    known = [host.unit(unit) for unit in (timer, service)]
    if any(one["NeedDaemonReload"] == "yes" or one["UnitFileState"] == "" for one in known):
        host.systemctl("daemon-reload")
    # In check mode on a host that has no files yet, systemd knows neither.
    if known[0]["UnitFileState"] != "enabled":
        host.systemctl("enable", timer)
    if known[0]["ActiveState"] != "active":
        host.systemctl("start", timer)


def absent(host: Host, name: str, leaves: list[str]) -> None:
    timer, service = f"{name}.timer", f"{name}.service"
    paths = [path for path in (f"{UNITS}/{timer}", f"{UNITS}/{service}") if os.path.exists(path)]
    # The timer's file goes last: by it the next run sees that there is something left to remove.
    if paths and os.path.exists(f"{UNITS}/{timer}"):
        host.systemctl("stop", timer)
        host.systemctl("disable", timer)
    for path in reversed(paths):
        host.note(f"remove {path}")
        if not host.check:
            os.unlink(path)
    if paths:
        host.systemctl("daemon-reload")
    found = [path for path in leaves if os.path.exists(path)]
    if found and host.unit(service)["ActiveState"] in ("active", "activating", "deactivating"):
        host.systemctl("stop", service)
    for path in found:
        host.note(f"remove {path}")
        if not host.check:
            os.unlink(path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "enabled": {"type": "bool", "required": True},
            "leaves": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    host_lock.hold(module)
    host = Host(module)
    try:
        if module.params["enabled"]:
            present(host, module.params["name"])
        else:
            absent(host, module.params["name"], module.params["leaves"])
    except (ServerError, OSError) as error:
        module.fail_json(msg=str(error), changed=bool(host.actions), actions=host.actions)
    diff = {"before": "", "after": "".join(f"{action}\n" for action in host.actions)}
    module.exit_json(changed=bool(host.actions), actions=host.actions, diff=diff)


if __name__ == "__main__":
    main()
