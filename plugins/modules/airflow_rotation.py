#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_rotation
short_description: What a rotation of secrets needs on a host
version_added: 0.1.0
description:
  - Waits for workers that still run with the old secret, re-encrypts what is stored, and proves that an old secret is refused.
  - Secrets reach it, and the process that works with them, on standard input. They are in no output and on no command line.
options:
  state:
    description:
      - V(drained) waits until no worker's colour finishes tasks any more.
      - V(reencrypted) re-encrypts what Airflow has stored with the first of O(keys), in the metadata database, and notes its
        fingerprint in the database's comment. What is read meanwhile is read with either key.
      - V(refused) tries the old secret, from this host, and fails where it is still accepted or the new one is not.
    type: str
    choices: [drained, reencrypted, refused]
    required: true
  timeout:
    description: Seconds that V(drained) waits.
    type: int
    default: 3600
  keys:
    description: Fernet keys, the one to encrypt with first.
    type: list
    elements: str
    default: []
  fingerprints:
    description: Their fingerprints, from the filter P(windfarm.airflow.fingerprints#filter).
    type: list
    elements: str
    default: []
  question:
    description: What V(refused) tries; the playbook C(rotate_secrets.yml) has it.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Does nothing in check mode.
    support: full
  diff_mode:
    description: Shows nothing.
    support: none
author:
  - windfarm.airflow contributors (@windfarm)
"""

EXAMPLES = r"""
- name: Wait until no task runs with the old password any more
  windfarm.airflow.airflow_rotation:
    state: drained
    timeout: 3600
"""

RETURN = r"""
lines:
  description: What was proven, in words.
  returned: with state=refused
  type: list
  elements: str
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import rotation_script
from ansible_collections.windfarm.airflow.plugins.module_utils.database import (
    USER,
    Database,
    DatabaseError,
    fernet_comment,
)
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import ScriptError, run_script
from ansible_collections.windfarm.airflow.plugins.module_utils.services import own_units, running_tasks, show


def draining() -> dict[str, list[str]]:
    """Units that finish their tasks, with those tasks."""
    found = show(own_units())
    return {
        unit: running_tasks(properties.get("ControlGroup", ""))
        for unit, properties in found.items()
        if properties.get("ActiveState") == "deactivating" and unit.startswith("airflow-worker@")
    }


def wait_drained(timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while busy := draining():
        if time.monotonic() > deadline:
            tasks = [task for found in busy.values() for task in found]
            raise DatabaseError(
                f"{', '.join(busy)} still finishes {len(tasks)} tasks that began with the old secret"
                f"{': ' if tasks else ''}{', '.join(tasks)}. Old and new are accepted meanwhile and nothing is interrupted; "
                "run the same command again when they have ended, or let it wait longer with airflow_drain_timeout"
            )
        time.sleep(1)


def ask(question: dict[str, Any]) -> dict[str, Any]:
    database = Database(None)
    try:
        answer = run_script(database.release, USER, database.environment, rotation_script, question)
    except ScriptError as error:
        raise DatabaseError(f"{question['do']} failed: {error}") from None
    if "refused" in answer:
        raise DatabaseError(answer["refused"])
    return answer


def secrets_in(parameters: dict[str, Any]) -> set[str]:
    question = parameters["question"]
    halves = [question.get(half) or {} for half in ("old", "new")]
    found = [value for half in halves for name, value in half.items() if name not in ("user", "kid", "keys")]
    found += [*(key for half in halves for key in half.get("keys", [])), question.get("password"), *parameters["keys"]]
    return {str(value) for value in found if value}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["drained", "reencrypted", "refused"], "required": True},
            "timeout": {"type": "int", "default": 3600},
            "keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "fingerprints": {"type": "list", "elements": "str", "default": []},
            "question": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    # From here on the secrets alone; names of accounts and hosts are none.
    module.no_log_values = secrets_in(parameters)
    if module.check_mode:
        module.exit_json(changed=False, lines=[])
    changed, lines = False, []
    try:
        if parameters["state"] == "drained":
            wait_drained(parameters["timeout"])
        elif parameters["state"] == "reencrypted":
            changed = bool(ask({"do": "reencrypt", "keys": parameters["keys"]})["changed"])
            database = Database(None)
            comment = fernet_comment(database.wait(None, 60), parameters["fingerprints"], reencrypted=True)
            if comment:
                database.apply(False, None, comment)
                changed = True
        else:
            lines = ask({**parameters["question"], "do": "prove"})["lines"]
    except (DatabaseError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, lines=lines)


if __name__ == "__main__":
    main()
