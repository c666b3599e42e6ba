#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_drain
short_description: Keeps the workers of a host from new tasks, or lets them work again
version_added: 0.1.0
description:
  - Drained is a file on the host, C(/etc/airflow/drained). While it is there no worker starts, not at boot, nor by C(site.yml).
  - V(drained) writes it, lets every worker finish its tasks (C(systemctl --no-block stop), SIGTERM to the main process only),
    shows what still runs, and waits for it. It waits on the controller; whatever becomes of that, the host stays drained.
  - V(working) removes the file and starts a colour of each worker, which is proven healthy.
options:
  state:
    description: What the host is to be.
    type: str
    choices: [drained, working]
    default: drained
  timeout:
    description: Seconds to wait for running tasks.
    type: int
    default: 3600
  on_timeout:
    description:
      - What is done when tasks still run after O(timeout). V(fail) puts the host back to work, as it was before, and fails.
      - V(kill) ends them. The scheduler notices by their missed heartbeats, and gives each another try if it has one left.
    type: str
    choices: [fail, kill]
    default: fail
  services:
    description: Services of the host's workers, as for M(windfarm.airflow.airflow_services).
    type: list
    elements: dict
    default: []
  health_timeout:
    description: Seconds until a started worker must be healthy.
    type: int
    default: 180
  restart:
    description: With V(wait), a worker that finishes its tasks is started again after them, none beside it.
    type: str
    choices: [overlap, wait]
    default: overlap
  phase:
    description: Used between the action and the module.
    type: str
    choices: [look, drain, kill, undo]
    default: look
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Can run in check mode and predict changes; it does not wait.
    support: full
  diff_mode:
    description: Lists what is done.
    support: full
  action:
    description: Has an action plugin of the same name on the control node, which waits.
    support: full
"""

EXAMPLES = r"""
- name: Take no new tasks, wait for those that run
  windfarm.airflow.airflow_drain:
    timeout: 1800
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be, in this order.
  returned: always
  type: list
  elements: str
  sample: ["write /etc/airflow/drained", "let airflow-worker@default-a.service finish its tasks and stop"]
tasks:
  description: What still runs on the host, by DAG, task, run and try.
  returned: always
  type: list
  elements: str
  sample: ["etl.load (run scheduled__2026-11-22T00:00:00+00:00, try 1)"]
units:
  description: State of each unit of a worker.
  returned: always
  type: dict
drained:
  description: Whether the host is drained.
  returned: always
  type: bool
waited:
  description: Seconds that running tasks were waited for.
  returned: with O(state=drained)
  type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import drain, host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.services import ServicesError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["drained", "working"], "default": "drained"},
            "timeout": {"type": "int", "default": 3600},
            "on_timeout": {"type": "str", "choices": ["fail", "kill"], "default": "fail"},
            "services": {"type": "list", "elements": "dict", "default": []},
            "health_timeout": {"type": "int", "default": 180},
            "restart": {"type": "str", "choices": ["overlap", "wait"], "default": "overlap"},
            "phase": {"type": "str", "choices": ["look", "drain", "kill", "undo"], "default": "look"},
        },
        supports_check_mode=True,
    )
    phase, check = module.params["phase"], module.check_mode
    actions: list[str] = []
    try:
        if phase != "look":
            host_lock.hold(module)
        if phase == "drain":
            actions = drain.drain(check)
        elif phase == "kill":
            actions = drain.kill(check)
        elif phase == "undo":
            actions = drain.undo(module.params["restart"], check)
        seen = drain.look()
    except (ServicesError, OSError) as error:
        module.fail_json(msg=str(error))
    diff = {"before": "", "after": "".join(f"{action}\n" for action in actions)}
    module.exit_json(changed=bool(actions), actions=actions, diff=diff, busy=drain.busy(seen), **seen)


if __name__ == "__main__":
    main()
