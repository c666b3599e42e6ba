#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_host_info
short_description: Read what a host is and what is on it, for airflow_preflight
version_added: 1.0.0
description:
  - One call reads system, memory, disks, clock, ports, and servers that run or have data. Changes nothing.
  - Whether that fits the cluster is M(windfarm.airflow.airflow_preflight)'s to say.
options:
  paths:
    description: Folders whose file systems are measured. One that is not there yet is measured where it will be.
    type: list
    elements: str
    default: []
  ports:
    description: TCP ports. The answer names who listens on them.
    type: list
    elements: int
    default: []
  names:
    description: Names of other hosts, which the host tries to resolve.
    type: list
    elements: str
    default: []
  python:
    description: Interpreter whose version is wanted. Empty for none.
    type: str
    default: ""
  dags_folder:
    description: Folder of the DAG files, whose revision is wanted. Empty for none.
    type: str
    default: ""
extends_documentation_fragment: windfarm.airflow.reads
attributes:
  action:
    description: The action adds when it asked and when it had the answer, which tells the host's clock.
    support: full
notes:
  - Only root sees all processes and the owners of ports.
author:
  - windfarm.airflow contributors (@windfarm)
"""

EXAMPLES = r"""
- name: Read what kind of host it is
  windfarm.airflow.airflow_host_info:
    paths: [/opt/airflow/releases]
    ports: [8080]
    python: python3
  become: true
  register: __airflow_preflight_facts
"""

RETURN = r"""
host:
  description:
    - C(distribution), C(distribution_major_version), C(architecture), C(service_mgr), C(python_version), C(cgroup),
      C(hostname), C(machine_id), C(boot_id) and C(root), whether it was asked as root.
    - C(interpreter), the version of O(python); C(memory_mb), C(swap_mb), C(processors), C(open_files).
    - C(disks), by path; C(ports), a list of who listens; C(names), the addresses of each.
    - C(servers), running PostgreSQL, Redis and Airflow; C(clusters), C(redis) and C(units), what of these is on the disk.
    - C(dags), the revision of the DAG files; C(time), the host's clock.
    - C(asked) and C(answered), the controller's clock before and after.
  returned: always
  type: dict
ansible_facts:
  description:
    - C(ansible_distribution), C(ansible_distribution_major_version), C(ansible_architecture), C(ansible_service_mgr) and
      C(ansible_python_version), as M(ansible.builtin.setup) has them.
    - C(ansible_local), of the local facts those of this collection.
  returned: always
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_info


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "names": {"type": "list", "elements": "str", "default": []},
            "python": {"type": "str", "default": ""},
            "dags_folder": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    asked = module.params
    host = {
        "time": time.time(),
        **host_info.system(),
        **host_info.memory(),
        "interpreter": host_info.interpreter(asked["python"]),
        "disks": {path: host_info.disk(path) for path in asked["paths"]},
        "names": {name: host_info.resolved(name) for name in asked["names"]},
        "ports": host_info.ports(asked["ports"]),
        "servers": host_info.servers(),
        "clusters": host_info.postgresql_clusters(),
        "redis": host_info.redis_data(),
        "units": host_info.airflow_units(),
        "dags": host_info.dags_revision(asked["dags_folder"]),
    }
    # In the shape of Ansible's own facts, for everybody who asks for these.
    known = {f"ansible_{name}": host[name] for name in host_info.KNOWN}
    module.exit_json(changed=False, host=host, ansible_facts={**known, "ansible_local": host_info.local_facts()})


if __name__ == "__main__":
    main()
