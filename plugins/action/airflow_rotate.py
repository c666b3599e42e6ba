# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings the file of secrets from one state of a rotation to the next, on the controller."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.utils.vars import load_extra_vars
from ansible_collections.windfarm.airflow.plugins.action.airflow_secrets import ActionModule as SecretsAction
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_secrets, controller_file, rotation
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import GROUPS, listed
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import CA_KEY, SECRETS_PLAYBOOK
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import setting
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import ProblemError
from ansible_collections.windfarm.airflow.plugins.module_utils.rotation import MARKER, STEPS, RotationError
from ansible_collections.windfarm.airflow.plugins.plugin_utils.host_variables import whole

try:
    # Where a value was read; without it, only values that differ from the file's are found to be defined elsewhere.
    from ansible._internal._datatag._tags import Origin
except ImportError:
    Origin = None


class ActionModule(SecretsAction):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        # Past the class that the file's methods come from, which does something else.
        super(SecretsAction, self).run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            {
                # What is rotated, no secret itself.
                "secret": {"type": "str", "default": "", "no_log": False},
                "state": {"type": "str", "choices": ["planned", "entered", "settled", "finished"], "required": True},
                "step": {"type": "int", "default": 0},
                "wait": {"type": "bool", "default": False},
                "reached": {"type": "str", "default": "__airflow_rotation_reached"},
                "proof": {"type": "list", "elements": "str", "default": []},
            }
        )
        self._vars = dict(task_vars or {})
        self._vars["hostvars"] = whole(self._vars["hostvars"])
        self._kind = arguments["secret"]
        try:
            return getattr(self, f"_{arguments['state']}")(arguments)
        except ProblemError as exc:
            return {"failed": True, "changed": False, "msg": str(exc)}

    # What the playbook asks for

    def _planned(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Refuses what cannot be done, says what will be, and which steps do it."""
        path = self._path()
        _text, _envelope, values, raw = self._known(path)
        at = rotation.begin(self._kind, values.get(MARKER))
        self._refuse_missing_hosts()
        self._refuse_other_places(path, raw)
        if not at:
            self._refuse_what_is_not_ours(values)
        steps = STEPS[self._kind]
        nothing = {"steps": {}, "file": path, "last": len(steps)}
        if at:
            self._say(f"The rotation of {self._kind} goes on: state {at} of {len(steps)} ({steps[at - 1].title}).")
        if at and at < len(steps) and self._left(values) > 0 and not arguments["wait"]:
            self._say(self._patience(values))
            return {**nothing, "changed": False, "waits": True}
        if self._task.check_mode:
            for number, step in enumerate(steps, 1):
                if number > at:
                    self._say(f"Would {step.title}, in {path} and then on the hosts ({', '.join(step.converge)}).")
            return {**nothing, "changed": True, "waits": False}
        plan = {
            str(number): {"title": f"{number}/{len(steps)}: {step.title}", "before": step.before if number > at else "",
                          "converge": list(step.converge)}
            for number, step in enumerate(steps, 1) if number >= at
        }  # fmt: skip
        return {**nothing, "changed": False, "steps": plan, "waits": False}

    def _entered(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Writes the state, unless the file has it already; from then on every play works with it."""
        number, path = arguments["step"], self._path()
        nothing: dict[str, Any] = {"changed": False, "converge": [], "file": path, "waits": False}
        if number > len(STEPS[self._kind]):
            return nothing
        _text, _envelope, values, raw = self._known(path)
        at = rotation.begin(self._kind, values.get(MARKER))
        if at > number:
            return nothing
        step = STEPS[self._kind][number - 1]
        self._refuse_lost_hosts(arguments["reached"], number - 1 if at == number - 1 else 0)
        if step.before == "expired" and at < number:
            if self._left(values) > 0 and not arguments["wait"]:
                self._say(self._patience(values))
                return {**nothing, "waits": True}
            while self._left(values) > 0:
                time.sleep(min(5, max(0.1, self._left(values))))
        changed = at < number
        if changed:
            self._refuse_other_places(path, raw)
            self._write(path, lambda known: rotation.enter(self._kind, number, known))
        self._say(f"Step {number}/{len(STEPS[self._kind])}: {step.title}.")
        return {"changed": changed, "converge": list(step.converge), "file": path, "waits": False}

    def _settled(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """All hosts have the state: tokens that were made before run out from now on."""
        number, path = arguments["step"], self._path()
        steps = STEPS[self._kind]
        if not number < len(steps) or steps[number].before != "expired":
            return {"changed": False}
        _text, _envelope, values, _raw = self._known(path)
        marker = values.get(MARKER) or {}
        if marker.get("stage") != number or marker.get("until"):
            return {"changed": False}
        configs = [self._vars["hostvars"][host].get("airflow_config") or {} for host in self._ours()]
        until = rotation.later(max(rotation.token_seconds(config) for config in configs))
        self._write(path, lambda known: {MARKER: {**known[MARKER], "until": until}})
        return {"changed": True}

    def _finished(self, arguments: dict[str, Any]) -> dict[str, Any]:
        path = self._path()
        self._refuse_lost_hosts(arguments["reached"], len(STEPS[self._kind]))
        self._write(path, lambda _known: rotation.finish(self._kind))
        for line in arguments["proof"]:
            self._say(f"Proof: {line}")
        self._say(f"The rotation of {self._kind} is complete.")
        return {"changed": True}

    # What is refused

    def _ours(self) -> list[str]:
        groups = self._vars["groups"]
        ours = {host for group in groups if group in GROUPS or group.startswith("airflow") for host in groups[group]}
        return [host for host in self._vars["hostvars"] if host in ours]

    def _refuse_missing_hosts(self) -> None:
        present = set(self._vars["ansible_play_hosts"])
        lacking = [host for host in self._ours() if host not in present]
        if lacking:
            what = f"would pass over {listed(lacking)}, which then has a secret that nobody accepts"
            cure = "run without --limit, and bring back what is unreachable or take it out of the inventory"
            raise RotationError(f"rotate={self._kind}", what, cure)

    def _refuse_lost_hosts(self, reached: str, number: int) -> None:
        """A host that was lost on the way does not have the state yet that the next one relies on."""
        hostvars = self._vars["hostvars"]
        lost = [host for host in self._ours() if number and int(hostvars[host].get(reached, 0)) < number]
        if lost:
            what = "was lost on the way, and what it still uses would be taken away"
            raise RotationError(f"host {listed(lost)}", what, f"bring it back and run again, with -e rotate={self._kind}")

    def _refuse_other_places(self, path: str, raw: Mapping[str, Any]) -> None:
        hostvars = self._vars["hostvars"]
        given = load_extra_vars(self._loader)
        cure = f"move it into {path}, or change it where it is kept and run site.yml"
        for name in rotation.names_of(self._kind):
            if name in given:
                raise RotationError(name, "is given with -e, and the next run would not have it", f"write it into {path}")
            for host in hostvars:
                value = hostvars.raw_get(host).get(name)
                where = self._origin(value, path)
                if value is not None and where:
                    raise RotationError(name, f"is defined in {where}, not in {path}, so it cannot be replaced there", cure)
            found = raw.get(name)
            if isinstance(found, str) and any(mark in found for mark in ("{{", "{%", "{#")):
                raise RotationError(name, "is a template, and what it leads to cannot be replaced", cure)
        for name in rotation.SECRETS[self._kind]:
            if name not in raw and name != CA_KEY:
                raise RotationError(name, f"is not in {path}", SECRETS_PLAYBOOK)

    def _origin(self, value: object, path: str) -> str:
        """Where the value was read if that is not the file of secrets."""
        tag = Origin.get_tag(value) if Origin is not None else None
        if tag is None:
            return ""
        found = tag.path or tag.description or "another place"
        return "" if os.path.realpath(found) == path else str(found)

    def _refuse_what_is_not_ours(self, values: Mapping[str, Any]) -> None:
        hostvars, groups = self._vars["hostvars"], self._vars["groups"]
        group, variable = rotation.SERVERS.get(self._kind, ("", ""))
        if group and not groups.get(group):
            what = f"{variable} names a server that you run, where this cannot make accounts"
            raise RotationError(f"rotate={self._kind}", what, "change the password there and in the file of secrets")
        if self._kind != "tls":
            return
        if not any(boolean(hostvars[host].get("airflow_tls", True), strict=False) for host in self._ours()):
            raise RotationError("rotate=tls", "airflow_tls is off, so there is nothing to rotate", "set it to true first")
        if not values.get(CA_KEY):
            raise RotationError(
                CA_KEY,
                "is not in the file of secrets: the authority is your own, and only you can make a new one",
                "put the old and the new certificate into airflow_ca_certificate, run site.yml, give the hosts certificates of "
                "the new one, run it, take the old one out, run it",
            )
        own = [host for host in self._ours() if hostvars[host].get("airflow_certificate_file")]
        if own:
            what = f"{listed(own)} has a certificate of its own (airflow_certificate_file), which this cannot make anew"
            raise RotationError("rotate=tls", what, "change the authority by hand, as docs/security.md says")

    # Time

    @staticmethod
    def _left(values: Mapping[str, Any]) -> float:
        until = (values.get(MARKER) or {}).get("until")
        return rotation.seconds_until(until) if until else 0

    def _patience(self, values: Mapping[str, Any]) -> str:
        return (
            f"Tokens that were signed with the old key are in use and accepted until {values[MARKER]['until']}. From then on, "
            f"the same command finishes the rotation (-e rotate={self._kind}); with -e rotate_wait=true it waits for that."
        )

    # The file

    def _path(self) -> str:
        hostvars = self._vars["hostvars"]
        hosts = {name: hostvars.raw_get(name) for name in hostvars}
        names = [hostvars[name].get("airflow_secrets_file") for name in hosts]
        path = os.path.realpath(airflow_secrets.secrets_path(names, airflow_secrets.inventory_folders(hosts))[0])
        if not os.path.isfile(path):
            raise RotationError(path, "does not exist", SECRETS_PLAYBOOK)
        return path

    def _known(self, path: str) -> tuple[str, Any, dict[str, Any], dict[str, Any]]:
        """The file's text, what it is encrypted with, and its variables: evaluated, and as they stand there."""
        text, envelope = self._read(path)
        raw = self._parse(text, path)
        wanted = set(rotation.names_of(self._kind)) if self._kind in STEPS else {MARKER}
        values = {name: self._templar.template(value) for name, value in raw.items() if name in wanted}
        speaker = self._vars["hostvars"][self._ours()[0]]
        for prefix in rotation.LOGINS.values():
            values[f"{prefix}_user"] = setting(speaker, f"{prefix}_user")
        values["cluster"] = os.path.basename(airflow_secrets.inventory_folder(speaker) or "cluster")
        return text, envelope, values, raw

    def _write(self, path: str, change: Any) -> None:
        try:
            with controller_file.locked(os.path.dirname(path)):
                text, envelope, values, raw = self._known(path)
                changes = change(values)
                lines = {
                    name: None if value is None else self._line(name, value, raw, envelope) for name, value in changes.items()
                }
                try:
                    wanted = rotation.edited(text, lines)
                except ValueError as exc:
                    raise RotationError(path, str(exc), "remove one of the two") from None
                self._verify(path, wanted, raw, changes)
                data = to_bytes(wanted)
                controller_file.write(path, self._encrypt(wanted, envelope) if envelope else data, 0o600)
        except OSError as exc:
            raise RotationError(path, str(exc.strerror), "make the file and its folder writable") from exc

    def _line(self, name: str, value: Any, raw: Mapping[str, Any], envelope: Any) -> str:
        """As the value stood there before, else encrypted where a password is configured."""
        vault = self._loader._vault
        if envelope is not None or not vault.secrets or not rotation.is_secret(name) or not value:
            return rotation.line_of(name, value)
        cipher = getattr(raw.get(name), "_ciphertext", None)
        if cipher is None:
            return airflow_secrets.vaulted_line(name, to_text(self._encrypt(value)))
        _plain, vault_id, secret = vault.decrypt_and_get_vault_id(cipher)
        return airflow_secrets.vaulted_line(name, to_text(self._encrypt(value, (vault_id, secret))))

    def _verify(self, path: str, wanted: str, before: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        cure = "write it as `name: value` lines that start in the first column, the last with a line break"
        try:
            after = self._parse(wanted, path)
            same = all(self._bare(after.get(name)) == self._bare(value) for name, value in before.items() if name not in changes)
            new = all(
                self._bare(self._templar.template(after[name])).strip() == self._bare(value).strip()
                for name, value in changes.items()
                if value is not None
            )
        except (AnsibleError, KeyError):
            same = new = False
        if not (same and new and set(after) == {name for name in {**before, **changes} if changes.get(name, "") is not None}):
            raise RotationError(path, "lines cannot be replaced in it", cure)

    @staticmethod
    def _bare(value: Any) -> str:
        cipher = getattr(value, "_ciphertext", None)
        return str(cipher) if cipher is not None else value if isinstance(value, str) else json.dumps(value, default=str)

    def _say(self, line: str) -> None:
        self._display.display(line, color=C.COLOR_HIGHLIGHT)
