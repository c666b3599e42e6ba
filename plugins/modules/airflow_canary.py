#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_canary
short_description: Tries a worker's host with a task of Airflow's, before its worker takes any
version_added: 0.1.0
description:
  - V(started) starts a second worker on the worker's host, with the user, credentials, sandbox and limits of its own one, which
    takes tasks from a queue of the host's own and nothing else.
  - V(sent), on a host with a scheduler, brings a DAG with one task for that queue to the metadata database, triggers it, waits
    for it, and removes DAG, run, pool and queue again. What the task returns has been through scheduler, broker, worker, HAProxy,
    webserver and both databases.
  - V(stopped) ends the second worker. With O(problem) it fails, and adds what the host knows of it.
  - A trial that was interrupted is cleared away by the next one; its worker ends by itself.
options:
  state:
    description: What is wanted.
    type: str
    choices: [started, sent, stopped]
    required: true
  host:
    description: Inventory name of the worker's host.
    type: str
    required: true
  config:
    description: Folder with the settings of the worker, for O(state=started).
    type: path
    default: /etc/airflow/worker@default
  timeout:
    description: Seconds until the task must have ended, for O(state=started) and O(state=sent).
    type: int
    default: 180
  problem:
    description: What RV(problem) was, for O(state=stopped).
    type: str
    default: ""
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Does nothing in check mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Try a worker's host
  block:
    - name: Start a worker that takes nothing but the trial's task
      windfarm.airflow.airflow_canary:
        state: started
        host: "{{ inventory_hostname }}"
    - name: Send the task
      windfarm.airflow.airflow_canary:
        state: sent
        host: "{{ inventory_hostname }}"
      delegate_to: "{{ groups['airflow_scheduler'] | first }}"
      register: canary
  always:
    - name: End the trial
      windfarm.airflow.airflow_canary:
        state: stopped
        host: "{{ inventory_hostname }}"
        problem: "{{ canary.problem | default('') }}"
"""

RETURN = r"""
problem:
  description: What became of the task, empty for success.
  returned: with O(state=sent)
  type: str
  sample: it has failed
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import canary, host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import ScriptError
from ansible_collections.windfarm.airflow.plugins.module_utils.services import ServicesError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "sent", "stopped"], "required": True},
            "host": {"type": "str", "required": True},
            "config": {"type": "path", "default": "/etc/airflow/worker@default"},
            "timeout": {"type": "int", "default": 180},
            "problem": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    state, host, timeout = (module.params[name] for name in ("state", "host", "timeout"))
    problem, what = "", f"host {host} — its worker is not started"
    if module.check_mode:
        module.exit_json(changed=False, problem=problem)
    # One at a time of the same host; a scheduler's host has a part in those of several.
    if state == "sent":
        host_lock.hold(module, path=canary.lock_of(host))
    else:
        host_lock.hold(module)
    try:
        if state == "started":
            canary.start(host, module.params["config"], timeout)
        elif state == "sent":
            problem = canary.send(host, timeout)
        else:
            told = module.params["problem"]
            known = canary.stop(host, bool(told))
            if told:
                module.fail_json(msg=f"{what}, since the task that it was tried with did not succeed: {told}; {known}")
    except (canary.CanaryError, ScriptError, ServicesError) as error:
        module.fail_json(msg=f"{what}, since it cannot be tried with a task: {error}")
    module.exit_json(changed=False, problem=problem)


if __name__ == "__main__":
    main()
