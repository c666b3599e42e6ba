# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.parsing.vault import is_encrypted, match_encrypt_secret, parse_vaulttext_envelope
from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_secrets, controller_file
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import FACT_FILE, GROUPS, listed
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import CA_KEY, SECRETS, SecretsError
from ansible_collections.windfarm.airflow.plugins.plugin_utils.host_variables import whole


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            {"file": {"type": "path"}, "answers": {"type": "str", "default": "__airflow_secrets_answers"}}
        )
        try:
            return self._create(arguments["file"], arguments["answers"], task_vars or {})
        except SecretsError as exc:
            return {"failed": True, "msg": str(exc)}

    def _create(self, given: str | None, answers: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        hostvars = whole(task_vars["hostvars"])
        hosts = {name: hostvars.raw_get(name) for name in hostvars}
        # The file's name may be a template, so it is read as each host sees it.
        names = [given] if given else [hostvars[name].get("airflow_secrets_file") for name in hosts]
        path, named = airflow_secrets.secrets_path(names, airflow_secrets.inventory_folders(hosts))
        path = os.path.realpath(path)
        hidden = None if named else airflow_secrets.hidden_file(path)
        if hidden:
            raise SecretsError(*hidden)
        folder = os.path.dirname(path)
        if self._task.check_mode:
            result = self._plan(path, hostvars, hosts)[0]
            self._ask(result, answers, task_vars)
            return result
        try:
            os.makedirs(folder, exist_ok=True)
            with controller_file.locked(folder):
                result, data = self._plan(path, hostvars, hosts)
                self._ask(result, answers, task_vars)
                if data is not None:
                    controller_file.write(path, data, 0o600)
                elif not result["encrypted"] and os.path.exists(path) and os.stat(path).st_mode & 0o077:
                    os.chmod(path, 0o600)
                    result["changed"] = True
        except OSError as exc:
            raise SecretsError(path, str(exc.strerror), "make the folder writable, or set airflow_secrets_file") from exc
        return result

    def _ask(self, result: dict[str, Any], registered: str, task_vars: dict[str, Any]) -> None:
        """Whom to ask before a Fernet key is made, and what they have answered."""
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]
        ours = {host for group in groups if group in GROUPS or group.startswith("airflow") for host in groups[group]}
        asks = [host for host in hostvars if host in ours] if "airflow_fernet_key" in result["created"] else []
        result["asks"] = asks
        answers = {host: hostvars[host][registered] for host in asks if registered in hostvars[host]}
        kept, failed, silent = airflow_secrets.sorted_answers(answers)
        if failed:
            what = "cannot be asked whether a cluster is there already, its error is above"
            raise SecretsError(f"host {listed(failed)}", what, "mend it and run again")
        if kept:
            raise SecretsError(
                "airflow_fernet_key",
                f"would be made anew, but {listed(kept)} belongs to a cluster whose connections only its old key can read",
                "restore the file of secrets; only to give up all that the cluster has stored, "
                f"remove {FACT_FILE} from its hosts",
            )
        if silent:
            self._display.warning(
                f"{listed(silent)} cannot be asked whether a cluster is there already. "
                "If there is one, restore its file of secrets instead: a new airflow_fernet_key cannot read its connections"
            )

    def _plan(self, path: str, hostvars: Any, hosts: dict[str, Any]) -> tuple[dict[str, Any], bytes | None]:
        """The result, and the file's new content if it changes."""
        text, envelope = self._read(path)
        present = self._parse(text, path)
        sets = [present, *hosts.values()]
        empty = airflow_secrets.empty(sets)
        if empty:
            raise SecretsError(", ".join(empty), "is empty", "remove the line, so that a value is created, or give it one")
        # The list may be a template, so it is read as each host sees it.
        extra = airflow_secrets.extra_names(hostvars[name] for name in hosts)
        created = airflow_secrets.missing(sets, extra)
        vault = self._loader._vault
        new_file = not text.strip()
        encrypt_whole = envelope is not None or (new_file and bool(vault.secrets))
        plain = [name for name in (*SECRETS, *extra) if isinstance(present.get(name), str) and "{{" not in present[name]]
        result: dict[str, Any] = {
            "changed": bool(created),
            "msg": f"{len(created)} secrets created in {path}" if created else f"no secret is missing, {path} is as it was",
            "file": path,
            "created": created,
            "encrypted": encrypt_whole or not (plain or (created and not vault.secrets)),
            "diff": {
                "before_header": path,
                "after_header": path,
                "before": "",
                "after": "".join(f"{name}: (a new secret)\n" for name in created),
            },
        }
        if not result["encrypted"]:
            self._display.warning(f"{path} holds plain text. Run `ansible-vault encrypt {path}` and configure the vault password")
        if not created:
            return result, None
        keys = [hostvars[host][CA_KEY] for host in hosts if CA_KEY in hosts[host]]
        folders = airflow_secrets.inventory_folders(hosts)
        cluster = os.path.basename(folders[0]) if len(folders) == 1 else "cluster"
        values = airflow_secrets.create(created, (keys or [present.get(CA_KEY)])[0], cluster)
        if encrypt_whole or not vault.secrets:
            lines = [airflow_secrets.plain_line(name, value) for name, value in values.items()]
        else:
            lines = [airflow_secrets.vaulted_line(name, to_text(self._encrypt(value))) for name, value in values.items()]
        wanted = airflow_secrets.appended(text, lines)
        if not self._keeps(wanted, present, created, path):
            cure = "write it as `name: value` lines that start in the first column, the last with a line break"
            raise SecretsError(path, "lines cannot be added at its end", cure)
        data = to_bytes(wanted)
        if encrypt_whole:
            data = self._encrypt(wanted, envelope)
        return result, data

    def _keeps(self, wanted: str, present: dict[str, Any], created: list[str], path: str) -> bool:
        """Whether the new text holds what the old one held, and the new secrets."""
        try:
            after = self._parse(wanted, path)
        except AnsibleError:
            return False
        same = all(after.get(name) == value for name, value in present.items() if isinstance(value, str))
        return same and list(after) == [*present, *created]

    def _read(self, path: str) -> tuple[str, tuple[str | None, Any] | None]:
        """The file's plain text, and what to encrypt it with again if it is encrypted."""
        if not os.path.exists(path):
            return "", None
        with open(path, "rb") as file:
            data = file.read()
        if not is_encrypted(data):
            return to_text(data), None
        if not self._loader._vault.secrets:
            raise SecretsError(path, "is encrypted", "give the vault password, for example with --ask-vault-pass")
        plain, _vault_id, secret = self._loader._vault.decrypt_and_get_vault_id(data)
        # The header's vault ID is kept, which may be another than that of the password that fits.
        return to_text(plain), (parse_vaulttext_envelope(data)[3], secret)

    def _encrypt(self, text: str, envelope: tuple[str | None, Any] | None = None) -> bytes:
        vault = self._loader._vault
        vault_id, secret = envelope or match_encrypt_secret(vault.secrets, encrypt_vault_id=C.DEFAULT_VAULT_ENCRYPT_IDENTITY)
        return to_bytes(vault.encrypt(to_bytes(text), secret=secret, vault_id=vault_id))

    def _parse(self, text: str, path: str) -> dict[str, Any]:
        found = self._loader.load(text, file_name=path, show_content=False) if text.strip() else {}
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise SecretsError(path, "is no list of variables", "write it as `name: value` lines")
        return found
