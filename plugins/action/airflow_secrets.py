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
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import SECRETS, SecretsError


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec({"file": {"type": "path"}})
        try:
            return self._create(arguments["file"], task_vars or {})
        except SecretsError as exc:
            return {"failed": True, "msg": str(exc)}

    def _create(self, given: str | None, task_vars: dict[str, Any]) -> dict[str, Any]:
        hostvars = task_vars["hostvars"]
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
            return self._plan(path, hosts)[0]
        try:
            os.makedirs(folder, exist_ok=True)
            with controller_file.locked(folder):
                result, data = self._plan(path, hosts)
                if data is not None:
                    controller_file.write(path, data, 0o600)
                elif not result["encrypted"] and os.path.exists(path) and os.stat(path).st_mode & 0o077:
                    os.chmod(path, 0o600)
                    result["changed"] = True
        except OSError as exc:
            raise SecretsError(path, str(exc.strerror), "make the folder writable, or set airflow_secrets_file") from exc
        return result

    def _plan(self, path: str, hosts: dict[str, Any]) -> tuple[dict[str, Any], bytes | None]:
        """The result, and the file's new content if it changes."""
        text, envelope = self._read(path)
        present = self._parse(text, path)
        sets = [present, *hosts.values()]
        empty = [name for name in SECRETS if any(name in found and airflow_secrets.is_empty(found[name]) for found in sets)]
        if empty:
            raise SecretsError(", ".join(empty), "is empty", "remove the line, so that a value is created, or give it one")
        created = airflow_secrets.missing(sets)
        vault = self._loader._vault
        new_file = not text.strip()
        encrypt_whole = envelope is not None or (new_file and bool(vault.secrets))
        plain = [name for name in SECRETS if isinstance(present.get(name), str) and "{{" not in present[name]]
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
        if encrypt_whole or not vault.secrets:
            lines = [airflow_secrets.plain_line(name, SECRETS[name]()) for name in created]
        else:
            lines = [airflow_secrets.vaulted_line(name, to_text(self._encrypt(SECRETS[name]()))) for name in created]
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
