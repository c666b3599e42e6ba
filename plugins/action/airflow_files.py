# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Renders the files of module airflow_files on the controller."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.windfarm.airflow.plugins.plugin_utils.planned import planned

_JINJA = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
_MANAGED = "Managed by windfarm.airflow: changes here are lost."


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = dict(task_vars or {})
        if "__airflow_cluster" in variables:
            # Templated anew at each use otherwise: once per file and secret, over all hosts.
            try:
                variables["__airflow_cluster"] = planned(variables["hostvars"], variables["groups"])
            except (KeyError, TypeError, ValueError) as error:
                raise AnsibleActionFail(f"the inventory cannot be read as a cluster: {error!r}") from error
        files = [self._rendered(dict(file), variables) for file in self._task.args.get("files") or []]
        hashes = self._stamp(files)
        # What several services share counts for each of them, and is one file.
        files = list({file["path"]: file for file in files}.values())
        for file in files:
            for key in ("src", "template", "vars"):
                file.pop(key, None)
        arguments = {**self._task.args, "files": files}
        name = "windfarm.airflow.airflow_files"
        result.update(self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars))
        result["hashes"] = hashes
        return result

    def _rendered(self, file: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        if file.get("src"):
            source = self._find_needle("files", file["src"])
            return {**file, "content": str(self._loader.get_text_file_contents(source))}
        if not file.get("template"):
            return file
        try:
            source = self._find_needle("templates", file["template"])
            text = self._loader.get_text_file_contents(source)
            scope = {**variables, **(file.get("vars") or {}), "ansible_managed": _MANAGED}
            templar = self._templar.copy_with_new_env(searchpath=[os.path.dirname(source)], available_variables=scope)
            content = templar.template(trust_as_template(text), escape_backslashes=False, overrides=_JINJA)
        except AnsibleError as error:
            raise AnsibleActionFail(f"{file['path']}: {error}") from error
        return {**file, "content": str(content)}

    @staticmethod
    def _stamp(files: list[dict[str, Any]]) -> dict[str, str]:
        """The hash over all files of a service replaces the text @HASH@ in them. It covers at least one long random secret."""
        digests: dict[str, Any] = {}
        for file in files:
            if file.get("part_of"):
                digest = digests.setdefault(file["part_of"], hashlib.sha256())
                digest.update(f"{file['path']}\0{file['content']}\0".encode())
        hashes = {service: digest.hexdigest()[:16] for service, digest in digests.items()}
        for file in files:
            if file.get("part_of"):
                file["content"] = file["content"].replace("@HASH@", hashes[file["part_of"]])
        return hashes
