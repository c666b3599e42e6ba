# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Variables of all hosts for plugins: as in a play, a variable may name those of another host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible.vars.hostvars import HostVars, HostVarsVars


class _Whole(Mapping[str, Any]):
    def __init__(self, hostvars: HostVars) -> None:
        self._hostvars = hostvars

    def __getitem__(self, host: str) -> Any:
        # Ansible leaves `hostvars` out of what it evaluates these with, so that a look into them ends. What they name is
        # evaluated without it again, so this ends too.
        variables = {**self._hostvars.raw_get(host), "hostvars": self._hostvars}
        return HostVarsVars(variables, loader=self._hostvars._loader, host=host)

    def raw_get(self, host: str) -> Any:
        return self._hostvars.raw_get(host)

    def __iter__(self) -> Iterator[str]:
        return iter(self._hostvars)

    def __len__(self) -> int:
        return len(self._hostvars)


def whole(hostvars: Any) -> Any:
    """The magic variable `hostvars`, whose variables may use `hostvars` themselves."""
    return _Whole(hostvars) if isinstance(hostvars, HostVars) else hostvars
