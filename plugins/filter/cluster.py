# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters about the cluster: each is documented in its .yml file beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import database_logins
from ansible_collections.windfarm.airflow.plugins.plugin_utils.planned import planned


def cluster(hostvars: Mapping[str, Any], groups: Mapping[str, Sequence[str]], removed: Sequence[str] = ()) -> dict[str, Any]:
    try:
        return planned(hostvars, groups, removed)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"the inventory cannot be read as a cluster: {error!r}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cluster": cluster, "database_logins": database_logins}
