#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_queues
short_description: Count, and empty, what waits in a Celery broker on this host
version_added: 0.1.0
description:
  - Reads the lengths of the queues that Celery has declared in Redis, of all their priorities, and of the messages that workers
    have taken and not yet acknowledged.
  - V(emptied) deletes all of it in one transaction. What Celery needs to find its queues, C(_kombu.binding.*), and the letter
    boxes of its remote control stay.
options:
  state:
    description: Whether anything is deleted.
    type: str
    choices: [read, emptied]
    default: read
  user:
    description: The administrator's account.
    type: str
    default: admin
  password:
    description: Its password.
    type: str
    required: true
  queues:
    description: Queues to look at besides those that Celery has declared.
    type: list
    elements: str
    default: []
  prefix:
    description: Celery's C(global_keyprefix).
    type: str
    default: ""
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Reads, deletes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Forget what waits to be run
  windfarm.airflow.redis_queues:
    state: emptied
    password: "{{ airflow_broker_admin_password }}"
"""

RETURN = r"""
queues:
  description: How many messages waited in each queue before.
  returned: success
  type: dict
  sample: {default: 12}
unacknowledged:
  description: How many messages workers had taken and not acknowledged.
  returned: success
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import redis_server as rd
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import Host, ServerError

UNIT = "redis-server"
# Kombu's: between the parts of a binding, and between a queue's name and a priority.
SEPARATOR = "\x06\x16"
BINDING = "_kombu.binding."
# Kombu's hash and sorted set of what was taken and not acknowledged.
TAKEN = ("unacked", "unacked_index")


def connect(host: Host, user: str, password: str) -> rd.Connection:
    """The unit's own server, so that no other process ever gets to see the password."""
    for address, port in rd.listening(host.unit(UNIT).get("MainPID", "0")):
        for tls in (True, False):
            try:
                connection = rd.Connection(address, port, tls=tls)
            except OSError:
                continue
            try:
                connection.call("AUTH", user, password)
                return connection
            except rd.RedisError as error:
                raise ServerError(
                    f"Redis refuses the account {user} ({str(error).split()[0]}); run playbooks/redis.yml"
                ) from None
            except OSError:
                connection.close()
    raise ServerError(f"{UNIT} does not answer on this host; see journalctl -u {UNIT}")


def scan(connection: rd.Connection, pattern: str) -> list[str]:
    found: set[str] = set()
    cursor = "0"
    while True:
        cursor, keys = connection.call("SCAN", cursor, "MATCH", pattern, "COUNT", "1000")
        found.update(keys)
        if cursor == "0":
            return sorted(found)


def escape(text: str) -> str:
    return "".join(f"\\{one}" if one in "*?[]\\^-" else one for one in text)


def declared(connection: rd.Connection, prefix: str) -> set[str]:
    """Queues that tasks are sent to; those of remote control and of events hold no tasks."""
    found = set()
    for key in scan(connection, f"{escape(prefix)}{BINDING}*"):
        for binding in connection.call("SMEMBERS", key):
            name = binding.split(SEPARATOR)[-1]
            if name and not name.endswith(".pidbox") and not name.startswith("celeryev"):
                found.add(name)
    return found


def keys_of(connection: rd.Connection, queue: str, prefix: str) -> list[str]:
    """The lists of a queue, one for each priority that was used."""
    return [f"{prefix}{queue}", *scan(connection, f"{escape(prefix + queue)}{SEPARATOR}*")]


def work(module: Any) -> dict[str, Any]:
    params = module.params
    prefix = params["prefix"]
    connection = connect(Host(module), params["user"], params["password"])
    lengths: dict[str, int] = {}
    doomed: list[str] = []
    for queue in sorted(declared(connection, prefix) | set(params["queues"])):
        keys = keys_of(connection, queue, prefix)
        kinds = {key: connection.call("TYPE", key) for key in keys}
        strange = [key for key, kind in kinds.items() if kind not in ("list", "none")]
        if strange:
            raise ServerError(f"the key {strange[0]!r} of Redis has the name of a queue and is none; empty the broker by hand")
        lengths[queue] = sum(int(connection.call("LLEN", key)) for key in keys)
        doomed += [key for key, kind in kinds.items() if kind == "list"]
    taken = int(connection.call("HLEN", prefix + TAKEN[0]))
    doomed += [prefix + key for key in TAKEN if connection.call("EXISTS", prefix + key)]
    empty = params["state"] == "emptied" and bool(doomed)
    if empty and not module.check_mode:
        connection.transaction(*(("DEL", key) for key in doomed))
    connection.close()
    return {"changed": empty, "queues": lengths, "unacknowledged": taken}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["read", "emptied"], "default": "read"},
            "user": {"type": "str", "default": "admin"},
            "password": {"type": "str", "required": True, "no_log": True},
            "queues": {"type": "list", "elements": "str", "default": []},
            "prefix": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        result = work(module)
    except (ServerError, rd.RedisError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
