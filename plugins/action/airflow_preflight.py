# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.windfarm.airflow.plugins.module_utils import (
    airflow_preflight,
    airflow_secrets,
    cluster,
    entry,
    preflight_hosts,
    preflight_inventory,
    preflight_workers,
    variable_rules,
    worker_hosts,
)
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import Inventory, Problem
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import ProblemError
from ansible_collections.windfarm.airflow.plugins.plugin_utils.host_variables import whole
from ansible_collections.windfarm.airflow.plugins.plugin_utils.own_certificate import own_certificate
from ansible_collections.windfarm.airflow.plugins.plugin_utils.role_variables import RoleVariables
from ansible_collections.windfarm.airflow.plugins.plugin_utils.worker_sets import worker_sets

COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            {
                "check": {"type": "str", "choices": ["inventory", "hosts", "drain", "removal"], "required": True},
                "facts": {"type": "str", "default": "__airflow_preflight_facts"},
                "worker": {"type": "raw", "default": ""},
                "leaving": {"type": "list", "elements": "str", "default": []},
                "lost": {"type": "list", "elements": "str", "default": []},
                "readmitted": {"type": "raw", "default": ""},
            }
        )
        variables = task_vars or {}
        hostvars = whole(variables["hostvars"])
        problems: list[Problem] = []
        if arguments["check"] in ("drain", "removal"):
            return self._leaving(arguments, variables)
        secrets_file = self._secrets_file(hostvars, problems) if arguments["check"] == "inventory" else ""
        inventory = self._inventory(variables, secrets_file, problems)
        if arguments["check"] == "inventory":
            problems += preflight_inventory.inventory_problems(inventory)
            for item in [] if problems else preflight_workers.told(inventory):
                self._display.warning(str(item))
        else:
            problems += self._hosts(inventory, variables, arguments)
        plan = preflight_inventory.planned(inventory) if arguments["check"] == "inventory" and not problems else None
        question = preflight_hosts.question(inventory, plan) if plan else {}
        return self._refuse(problems, {"secrets_file": secrets_file, "question": question})

    def _refuse(self, problems: list[Problem], result: dict[str, Any]) -> dict[str, Any]:
        if not problems:
            return {"changed": False, **result}
        # Not in the result: most callbacks would print it again, as one long line.
        title, *lines = airflow_preflight.report(problems)
        self._display.display("\n".join([f"{title}:", *lines]), color=C.COLOR_ERROR)
        return {"failed": True, "changed": False, "msg": f"{title}, see the list above"}

    def _secrets_file(self, hostvars: Any, problems: list[Problem]) -> str:
        """The file that Ansible does not load by itself, if there is one."""
        names = [hostvars[host].get("airflow_secrets_file") for host in hostvars]
        if not any(names):
            return ""
        folders = airflow_secrets.inventory_folders({host: hostvars.raw_get(host) for host in hostvars})
        try:
            path, _named = airflow_secrets.secrets_path(names, folders)
        except airflow_secrets.SecretsError as exc:
            problems.append(exc.problem)
            return ""
        if not os.path.isfile(path):
            problems.append(Problem("airflow_secrets_file", f"{path} does not exist", airflow_secrets.SECRETS_PLAYBOOK))
            return ""
        return path

    def _inventory(self, variables: dict[str, Any], secrets_file: str, problems: list[Problem]) -> Inventory:
        role = RoleVariables(self._loader, self._templar, COLLECTION, variables)
        extra = self._extra_secrets(variables["hostvars"], problems)
        names = (*airflow_preflight.VARIABLES, *airflow_secrets.SECRETS, *extra)
        ours = {host for group in airflow_preflight.GROUPS for host in variables["groups"].get(group, ())}
        # What only a playbook knows by a common word, such as `servers`, is the user's own where the inventory has it.
        said = load_extra_vars(self._loader)
        known = {
            name: spec
            for name, spec in variable_rules.known_variables(COLLECTION).items()
            if name.startswith(variable_rules.PREFIXES) or name in said
        }
        defined: dict[str, list[str]] = {}
        overlay = self._overlay(secrets_file, variables, extra)
        hosts: dict[str, dict[str, Any]] = {}
        broken: dict[tuple[str, str], list[str]] = {}
        for host in variables["hostvars"]:
            if host not in ours:
                # Whatever their variables are, they are not this cluster's.
                hosts[host] = {}
                continue

            def note(name: str, exc: Exception, host: str = host) -> None:
                broken.setdefault((name, " ".join(str(exc).split())), []).append(host)

            given = variables["hostvars"].raw_get(host)
            defined[host] = [name for name in given if name in known or name.startswith(variable_rules.PREFIXES)]
            content = airflow_preflight.CONTENT if host in variables["groups"].get("airflow_scheduler", []) else ()
            wanted = dict.fromkeys((*names, *content, *known))
            hosts[host] = {**role.read(host, wanted, note), **overlay, airflow_secrets.EXTRA: extra}
        problems += [
            Problem(
                name,
                f"cannot be evaluated for {airflow_preflight.listed(where)}: {text}",
                "correct it in the inventory",
            )
            for (name, text), where in broken.items()
        ]
        managed = role.internal.get("__airflow_config_managed") or {}
        sets, settled = worker_sets(variables["hostvars"], self._loader)
        entries = {host: hosts[host] for host in variables["groups"].get(entry.GROUP, [])}
        return Inventory(
            hosts,
            variables["groups"],
            COLLECTION,
            managed,
            self._own_certificates(hosts, "airflow_certificate", problems),
            sets,
            settled,
            self._own_certificates(entries, "airflow_entry_certificate", problems),
            defined,
            list(role.internal.get("__airflow_catalog") or {}),
            role.internal.get("__airflow_config_defaults") or {},
        )

    def _own_certificates(
        self, hosts: dict[str, dict[str, Any]], variable: str, problems: list[Problem]
    ) -> dict[str, tuple[str, str]]:
        found = {}
        for host, known in hosts.items():
            certificate = str(known.get(f"{variable}_file") or "")
            key = str(known.get(f"{variable}_key_file") or "")
            if not (certificate or key):
                continue
            try:
                found[host] = own_certificate(self._loader, certificate, key, known.get("inventory_dir"), variable)
            except ProblemError as exc:
                where, what, cure = exc.problem
                problems.append(Problem(f"{where} of host {host}", what, cure))
        return found

    def _extra_secrets(self, hostvars: Any, problems: list[Problem]) -> list[str]:
        """The names of the user's own passwords."""
        try:
            return airflow_secrets.extra_names(hostvars[host] for host in hostvars)
        except airflow_secrets.SecretsError as exc:
            problems.append(exc.problem)
            return []

    def _overlay(self, secrets_file: str, variables: dict[str, Any], extra: list[str]) -> dict[str, Any]:
        """Secrets in a file of their own: hosts that --limit leaves out do not have them as variables."""
        if not secrets_file:
            return {}
        found = self._loader.load_from_file(secrets_file, trusted_as_template=True) or {}
        templar = self._templar.copy_with_new_env(available_variables={**variables, **found})
        return {name: templar.template(found[name]) for name in (*airflow_secrets.SECRETS, *extra) if name in found}

    def _hosts(self, inventory: Inventory, variables: dict[str, Any], arguments: dict[str, Any]) -> list[Problem]:
        present = set(variables["ansible_play_hosts"])
        facts: dict[str, Any] = {}
        absent: dict[str, str] = {}
        for host in variables["ansible_play_hosts_all"]:
            known = variables["hostvars"][host]
            answer = known.get(arguments["facts"]) or {}
            if answer.get("unreachable") and host in arguments["lost"]:
                continue
            if host in present:
                facts[host] = {**(known.get("ansible_facts") or {}), **(answer.get("host") or {})}
            else:
                absent[host] = "unreachable" if answer.get("unreachable") else "failed"
        lost, told = airflow_preflight.key_problems(inventory, facts)
        for item in told:
            self._display.warning(str(item))
        unfinished = airflow_preflight.rotating(inventory)
        if unfinished and not variables.get("rotate"):
            self._display.warning(
                f"A rotation of {unfinished} is unfinished, which every run respects. To finish it, run "
                f"playbooks/rotate_secrets.yml with -e rotate={unfinished}"
            )
        found = airflow_preflight.absent_problems(inventory, absent) + airflow_preflight.host_problems(inventory, facts) + lost
        found += self._workers(facts, variables, arguments) + self._admission(facts, variables)
        return found + self._what_is_there(inventory, facts, variables)

    def _what_is_there(self, inventory: Inventory, facts: dict[str, Any], variables: dict[str, Any]) -> list[Problem]:
        plan = preflight_inventory.planned(inventory)
        if not plan:
            return []
        limited = any(host not in variables["ansible_play_hosts_all"] for host in inventory.ours())
        # Where the operating system is another one, so is everything else: one line is enough.
        right = {host: known for host, known in facts.items() if not airflow_preflight.wrong_system(known)}
        problems, told = preflight_hosts.problems(preflight_hosts.Case(inventory, plan, right, limited))
        for item in told:
            self._display.warning(str(item))
        return problems

    def _workers(self, facts: dict[str, Any], variables: dict[str, Any], arguments: dict[str, Any]) -> list[Problem]:
        """What hosts say of their workers."""
        drained = worker_hosts.drained_hosts(facts)
        if drained and not variables.get("undo"):
            self._display.warning(
                f"Drained, so they take no tasks: {', '.join(drained)}. To let them work again: playbooks/drain.yml "
                f"-e worker={','.join(drained)} -e undo=true"
            )
        workers = variables["groups"].get(worker_hosts.WORKERS, [])
        wanted = [*worker_hosts.names(arguments["readmitted"]), *arguments["leaving"]]
        problems = worker_hosts.removed_problems(workers, facts, wanted)
        if any(worker_hosts.working(facts[host]) for host in facts if host not in workers):
            problems += worker_hosts.shut_out_problems(cluster.plan(variables["hostvars"], variables["groups"]), facts)
        return problems

    @staticmethod
    def _admission(facts: dict[str, Any], variables: dict[str, Any]) -> list[Problem]:
        """New workers that servers outside of this run do not admit yet."""
        asked = {host: variables["hostvars"][host].get("__airflow_admission") or {} for host in facts}
        refused = {host: answer.get("refused") or {} for host, answer in asked.items()}
        everyone, groups = variables["ansible_play_hosts_all"], variables["groups"]
        kinds = {**cluster.SERVER_GROUPS, "webserver": cluster.COMPONENT_GROUPS["webserver"]}
        servers = {kind: [host for host in groups.get(group, []) if host not in everyone] for kind, group in kinds.items()}
        limit = str(variables.get("ansible_limit") or ",".join(everyone))
        return worker_hosts.admission_problems(refused, servers, limit)

    def _leaving(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Whether the hosts that are named may be drained or removed."""
        removal = arguments["check"] == "removal"
        groups, hostvars = variables["groups"], variables["hostvars"]
        problems = worker_hosts.name_problems(arguments["worker"], groups, "remove_worker.yml" if removal else "drain.yml")
        if problems:
            return self._refuse(problems, {})
        wanted = worker_hosts.names(arguments["worker"])
        known = {host: hostvars[host].get("ansible_facts") for host in variables["ansible_play_hosts"]}
        facts = {host: found for host, found in known.items() if found}
        if not removal:
            what, cure = "does not answer, or is left out by --limit", "bring it back; a host that is away takes no tasks"
            return self._refuse([Problem(f"host {host}", what, cure) for host in wanted if host not in facts], {})
        plan = cluster.plan(hostvars, groups)
        everyone = variables["ansible_play_hosts_all"]
        kinds = ("postgresql", "redis", "scheduler", "webserver")
        outside = list(dict.fromkeys(host for kind in kinds for host in plan["members"][kind] if host not in everyone))
        if outside:
            what = f"leaves out {airflow_preflight.listed(outside)}, which a removal concerns too"
            return self._refuse([Problem("--limit", what, "run it without --limit")], {})
        problems = worker_hosts.removal_problems(wanted, arguments["lost"], plan["members"], facts, groups.get("haproxy", []))
        workers = plan["workers"]
        # Whoever stays but takes no tasks takes none of theirs either.
        able = [host for host in workers if host in wanted or (host in facts and worker_hosts.serves(facts[host]))]
        return self._refuse(problems, {"workers": {host: workers[host] for host in able}})
