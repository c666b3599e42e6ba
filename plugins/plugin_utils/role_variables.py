# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables of role airflow as the role will see them, before it runs: for actions on the controller."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any


class RoleVariables:
    """A host's variables over the role's defaults, templates evaluated with both."""

    def __init__(self, loader: Any, templar: Any, collection: str, task_vars: Mapping[str, Any]) -> None:
        self._templar = templar
        self._hostvars = task_vars["hostvars"]
        role = os.path.join(collection, "roles", "airflow")
        self.defaults, self.internal = (
            loader.load_from_file(os.path.join(role, folder, "main.yml"), trusted_as_template=True) or {}
            for folder in ("defaults", "vars")
        )
        magic = {name: task_vars[name] for name in ("hostvars", "groups")}
        self._base = {**self.defaults, **self.internal, **magic}

    def read(self, host: str, names: Iterable[str], broken: Any = None) -> dict[str, Any]:
        """The named variables; a default that is a template is left out, as it may need what only the role has.

        `broken(name, error)` is told of what cannot be evaluated, which otherwise raises.
        """
        from ansible.errors import AnsibleError

        own = self._hostvars.raw_get(host)
        templar = self._templar.copy_with_new_env(available_variables={**self._base, **own})
        found: dict[str, Any] = {}
        for name in names:
            if name in own:
                try:
                    found[name] = templar.template(own[name])
                except AnsibleError as exc:
                    if broken is None:
                        raise
                    broken(name, exc)
            elif name in self.defaults and "{{" not in str(self.defaults[name]):
                found[name] = self.defaults[name]
        return found
