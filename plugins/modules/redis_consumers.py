#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_consumers
short_description: Find out whose Celery workers wait for messages of a Redis broker
version_added: 0.1.0
description:
  - Watches the clients of this host's Redis server until each of the given hosts has one that waits for a message (C(BRPOP)),
    or as many as O(instances) says, or time is up. Changes nothing and takes no message.
  - A worker that is busy with as many tasks as it may take does not wait. One that has lost its broker and not noticed
    does not either, though it answers C(celery inspect ping).
options:
  admin_user:
    description: Name of the administrator's account.
    type: str
    default: admin
  password:
    description: Its password.
    type: str
    required: true
  hosts:
    description: Addresses or names of each host, by the name that it is told with.
    type: dict
    required: true
  instances:
    description: How many workers each host has, by the same names; 1 where none is given.
    type: dict
    default: {}
  timeout:
    description: How long to watch, in seconds.
    type: int
    default: 60
author:
  - windfarm.airflow contributors (@windfarm)
extends_documentation_fragment: windfarm.airflow.reads
"""

EXAMPLES = r"""
- name: See who waits for messages
  windfarm.airflow.redis_consumers:
    password: "{{ airflow_broker_admin_password }}"
    hosts: {worker1: 10.0.0.21, worker2: 10.0.0.22}
"""

RETURN = r"""
waiting:
  description: Hosts all of whose workers were seen waiting for a message.
  returned: success
  type: list
  elements: str
uptime:
  description: Seconds since the server's start.
  returned: success
  type: int
seen:
  description: How many workers of each host were seen waiting.
  returned: success
  type: dict
  sample: {worker1: 1, worker2: 2}
silent:
  description: The other hosts.
  returned: success
  type: list
  elements: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import redis_server as rd
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import (
    Host,
    ServerError,
    as_ip,
    lookup,
    own_addresses_of,
)

UNIT = "redis-server"


def connect(host: Host, user: str, password: str) -> rd.Connection:
    refused = "does not run"
    for address, port in rd.listening(host.unit(UNIT).get("MainPID", "0")):
        for tls in (True, False):
            try:
                connection = rd.Connection(address, port, tls=tls)
                connection.call("AUTH", user, password)
                return connection
            except rd.RedisError as error:
                refused = f"refuses the account {user}: {error}"
            except OSError:
                continue
    raise ServerError(f"{UNIT} {refused}; run redis.yml")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "admin_user": {"type": "str", "default": "admin"},
            "password": {"type": "str", "required": True, "no_log": True},
            "hosts": {"type": "dict", "required": True},
            "instances": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    host, params = Host(module), module.params
    # Connections that have been seen waiting and are still there: a worker has one of that kind.
    waiting: dict[str, str] = {}
    deadline = time.monotonic() + params["timeout"]
    try:
        addresses = {}
        for name, given in params["hosts"].items():
            known = [as_ip(given) or ""] if as_ip(given) else lookup(given)
            # This host itself comes from any of its addresses.
            own = any(one in ("127.0.0.1", "::1") for one in known)
            addresses[name] = {*known, *(own_addresses_of(given, host.run) if own else [])}
        connection = connect(host, params["admin_user"], params["password"])
        wanted = {name: int(params["instances"].get(name, 1)) for name in addresses}
        while True:
            clients = rd.clients(str(connection.call("CLIENT", "LIST")))
            waiting = {number: one.address for number, one in clients.items() if one.waits or number in waiting}
            seen = {name: sum(one in known for one in waiting.values()) for name, known in addresses.items()}
            found = [name for name, count in seen.items() if count >= wanted[name]]
            if len(found) == len(addresses):
                break
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        uptime = int(connection.info("server")["uptime_in_seconds"])
    except (ServerError, OSError) as error:
        module.fail_json(msg=str(error))
    silent = sorted(set(params["hosts"]) - set(found))
    module.exit_json(changed=False, waiting=sorted(found), seen=seen, silent=silent, uptime=uptime)


if __name__ == "__main__":
    main()
