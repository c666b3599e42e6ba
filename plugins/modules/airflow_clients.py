#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_clients
short_description: Refuses to shut out who is connected to PostgreSQL or Redis
version_added: 0.1.0
description:
  - Looks, on a server of the cluster, who is connected to the given ports and was admitted by this collection, but is neither a
    client of theirs any more nor a host that is known, and fails if there is somebody. That is a worker whose host was just taken
    out of the inventory.
  - Changes nothing.
options:
  ports:
    description: Ports of this host with the addresses, networks and names that may connect, as role firewall has them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: A word that says what listens there.
        type: str
        required: true
      port:
        description: TCP port.
        type: int
        required: true
      clients:
        description: Who may connect.
        type: list
        elements: str
        default: []
  known:
    description: Addresses of hosts that the inventory still has, which are asked themselves what they run.
    type: list
    elements: str
    default: []
  allowed:
    description: Addresses that may be shut out all the same, as a list or with commas between them.
    type: raw
    default: ""
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Does the same in check mode; it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Refuse to shut out workers that run
  windfarm.airflow.airflow_clients:
    ports: "{{ (hostvars | windfarm.airflow.cluster(groups)).ports[inventory_hostname] }}"
"""

RETURN = r"""
shut_out:
  description: Addresses that are connected and would be shut out, with the ports' names.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import clients
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import lookup
from ansible_collections.windfarm.airflow.plugins.module_utils.worker_hosts import names


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "clients": {"type": "list", "elements": "str", "default": []},
                },
            },
            "known": {"type": "list", "elements": "str", "default": []},
            "allowed": {"type": "raw", "default": ""},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    ports = [
        {**port, "clients": [*port["clients"], *parameters["known"]]}
        for port in parameters["ports"]
        if port["name"] in ("postgresql", "redis")
    ]
    database = next((port["port"] for port in ports if port["name"] == "postgresql"), 0)
    try:
        found = clients.read(ports, database, lookup)
    except OSError as error:
        module.fail_json(msg=str(error))
    refused = [address for address in found if address not in names(parameters["allowed"])]
    if refused:
        told = "; ".join(f"{address} is connected to {' and '.join(found[address])}" for address in refused)
        module.fail_json(
            shut_out=found,
            msg=f"host {', '.join(refused)} — has left the inventory, but runs, and its tasks would be cut off ({told}) — put "
            "it back and run playbooks/remove_worker.yml -e worker=NAME; if it runs nothing that matters, add "
            f"-e airflow_shut_out={','.join(refused)}",
        )
    module.exit_json(changed=False, shut_out=found)


if __name__ == "__main__":
    main()
