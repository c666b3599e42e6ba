# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tests need to know of a cluster, read once from its inventory."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.cli import CLI
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultSecretsContext
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from api import Airflow

ROOT = Path(__file__).resolve().parents[2]
# Where ansible.cfg is not read (another working directory), the checkout still is an installed collection.
init_plugin_loader([str(ROOT / ".collections")])

from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import plan  # noqa: E402
from ansible_collections.windfarm.airflow.plugins.plugin_utils.host_variables import whole  # noqa: E402

DEFAULT = os.environ.get("LAB_INVENTORY", str(ROOT / "inventories" / "lab"))


class Inventory:
    """Hosts, groups and templated variables of one inventory."""

    def __init__(self, path: str) -> None:
        self.path = path
        loader = DataLoader()
        # Once per process is all that Ansible allows.
        if VaultSecretsContext.current(optional=True) is None:
            CLI.setup_vault_secrets(loader, C.DEFAULT_VAULT_IDENTITY_LIST, auto_prompt=False)
        manager = InventoryManager(loader=loader, sources=[path])
        variables = VariableManager(loader=loader, inventory=manager)
        self.groups: dict[str, list[str]] = {
            name: [host.name for host in group.get_hosts()] for name, group in manager.groups.items()
        }
        hostvars = HostVars(manager, variables, loader)
        self.plan: dict[str, Any] = plan(whole(hostvars), self.groups)
        self.members: dict[str, list[str]] = self.plan["members"]
        self._variables = {
            host.name: Templar(loader, {**variables.get_vars(host=host), "hostvars": hostvars}) for host in manager.get_hosts()
        }

    def get(self, host: str, name: str, default: Any = None) -> Any:
        """One variable as a play on that host would see it, role defaults aside."""
        templar = self._variables[host]
        if name not in templar.available_variables:
            return default
        return templar.template(templar.available_variables[name])

    def common(self, name: str, default: Any = None) -> Any:
        """A variable that is the same for the whole cluster."""
        value = self.get(self.members["scheduler"][0], name, default)
        if value is None:
            sys.exit(f"{name} is not in the inventory {self.path}: run playbooks/secrets.yml first")
        return value

    @property
    def url(self) -> str:
        """What users type, as this machine reaches it: the entry, else the first webserver."""
        entry = self.plan["entry"]
        if entry["hosts"]:
            first = entry["hosts"][0]
            if self.get(first, "airflow_entry_name") or entry["virtual_address"]:
                return str(entry["url"])
            return f"{'https' if entry['tls'] else 'http'}://{self.reach(first)}:{entry['port']}"
        host = self.members["webserver"][0]
        scheme = "https" if self.plan["tls"] else "http"
        return f"{scheme}://{self.reach(host)}:{self.get(host, 'airflow_webserver_port', 8080)}"

    @property
    def ca(self) -> str:
        """Certificates of the cluster's authority."""
        return str(self.common("airflow_ca_certificate")) if self.plan["tls"] else ""

    def airflow(self) -> Airflow:
        """Its API, as the admin user."""
        return Airflow(self.url, self.common("airflow_admin_user", "admin"), str(self.common("airflow_admin_password")), self.ca)

    def reach(self, host: str) -> str:
        return str(self.get(host, "ansible_host", host))

    def ssh(self, host: str) -> list[str]:
        """The command line that ends before the remote command."""
        words = ["ssh", "-o", "BatchMode=yes", *shlex.split(str(self.get(host, "ansible_ssh_common_args", "")))]
        if key := self.get(host, "ansible_ssh_private_key_file"):
            words += ["-i", str(key)]
        return [*words, f"{self.get(host, 'ansible_user', 'root')}@{self.reach(host)}"]

    def run(self, host: str, *command: str, stdin: str = "", check: bool = True) -> str:
        """Run a command on a host as root; what is secret goes through stdin, never through a command line."""
        prefix = [] if self.get(host, "ansible_user", "root") == "root" else ["sudo", "-n"]
        done = subprocess.run(
            [*self.ssh(host), shlex.join([*prefix, *command])],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{host}: {shlex.join(command)}: rc {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def sql(self, statement: str, database: str = "database") -> list[list[str]]:
        """Rows of a query on the PostgreSQL host, by peer authentication; in a database of ours, or another by name."""
        out = self.run(
            self.members["postgresql"][0],
            "runuser", "-u", "postgres", "--",
            "psql", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", self.plan.get(database, {"name": database})["name"],
            stdin=statement,
        )  # fmt: skip
        return [line.split("\t") for line in out.splitlines()]

    def redis(self, *command: str) -> str:
        """redis-cli on the broker's host."""
        read_password = "IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; exec redis-cli"
        words = [
            "--user",
            "admin",
            "-p",
            str(self.plan["broker"]["port"]),
            *(["--tls", "--cacert", "/etc/airflow/tls/ca.pem", "-h", "127.0.0.1"] if self.plan["broker"]["tls"] else []),
            *command,
        ]
        return self.run(
            self.members["redis"][0], "sh", "-c", f"{read_password} {shlex.join(words)}",
            stdin=f"{self.common('airflow_broker_admin_password')}\n",
        )  # fmt: skip

    def active_worker_units(self, host: str) -> list[str]:
        words = ("list-units", "--plain", "--no-legend", "--state=active", "airflow-worker@*.service")
        return [line.split()[0] for line in self.run(host, "systemctl", *words).splitlines()]

    def instance_units(self, host: str) -> dict[str, str]:
        """The unit that takes tasks of each worker instance of this host now: one of two colours."""
        units = self.active_worker_units(host)
        found = {unit.partition("@")[2].rpartition("-")[0]: unit for unit in units}
        assert len(found) == len(units), f"{host}: one active unit for each instance expected, found {units}"
        return found

    def worker_unit(self, host: str) -> str:
        """The same on a host with one instance."""
        units = list(self.instance_units(host).values())
        assert len(units) == 1, f"{host}: exactly one active worker unit expected, found {units}"
        return units[0]

    def slots(self, host: str) -> int:
        """Tasks that the workers of this host run at once."""
        return sum(one["concurrency"] for one in self.plan["workers"][host])
