# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A connection to hosts that are not there: each answers at once that all is as it should be.

For bench_many.py, which measures what the controller does: it renders, and packs each module with its arguments, as for a real
host. What it does not do is start ssh and wait.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: pretended
short_description: A host that is not there
description:
  - Answers each module as a host would on which nothing is to be changed.
author: windfarm.airflow contributors (@windfarm)
options: {}
"""
_MODULE = re.compile(rb"'?ansible_collections\.windfarm\.airflow\.plugins\.modules\.(\w+)|ansible\.modules\.(\w+)")
FACTS = {
    "ansible_distribution": "Debian",
    "ansible_distribution_major_version": "12",
    "ansible_distribution_version": "12.12",
    "ansible_architecture": "x86_64",
    "ansible_service_mgr": "systemd",
    "ansible_system": "Linux",
    "ansible_python_version": "3.11.2",
    "ansible_python": {"version": {"major": 3, "minor": 11}},
    "ansible_local": {},
}
SYSTEM = {name.removeprefix("ansible_"): value for name, value in FACTS.items()}
HOST = {**SYSTEM, "interpreter": "3.11", "cgroup": 2, "root": True}
RELEASE = "/opt/airflow/releases/3.3.2-0000000000"
MIGRATIONS = {name: {"heads": ["a"], "revisions": ["a"]} for name in ("alembic_version", "alembic_version_fab")}
ANSWERS: dict[str, dict[str, Any]] = {
    "airflow_host_info": {"host": HOST, "ansible_facts": FACTS},
    "airflow_release": {
        "present": True,
        "uv_present": True,
        "architecture": "x86_64",
        "python": "3.11",
        "path": RELEASE,
        "migrations": MIGRATIONS,
        "machine": {"memory": 16, "processors": 4},
    },
    "airflow_certificate": {"fingerprint": "0" * 64},
    "airflow_services": {"leaving": [], "actions": [], "notes": []},
    "airflow_upgrade": {"running": RELEASE, "state": "same"},
    "airflow_firewall": {"pending": False, "actions": []},
    "haproxy_server": {"followed": False},
    "postgresql_server": {"version": 15, "actions": []},
    "airflow_worker_proof": {"dags": ""},
    "airflow_content": {"changes": []},
    "airflow_clients": {"shut_out": []},
    "airflow_admission": {"refused": {}},
    "airflow_dags": {"revision": "0" * 16, "tree": "", "added": 0, "updated": 0, "removed": 0},
}


class Connection(ConnectionBase):
    transport = "pretended"
    has_pipelining = True
    always_pipeline_modules = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        if not in_data:
            # secrets.yml looks for a file, by a command, and finds none.
            return 0, b"", b""
        found = _MODULE.search(in_data)
        if not found:
            return 1, b"", f"a pretended host answers modules only, not {cmd[:200]}".encode()
        name = (found[1] or found[2]).decode()
        return 0, json.dumps({"changed": False, **ANSWERS.get(name, {})}).encode(), b""

    def put_file(self, in_path: str, out_path: str) -> None:
        raise AssertionError(f"{in_path} would be sent, though nothing is to be changed")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        raise AssertionError(f"{in_path} would be fetched")

    def close(self) -> None:
        self._connected = False
