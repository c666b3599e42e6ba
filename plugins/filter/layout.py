# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of role airflow: each is documented in its .yml file beside this one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.windfarm.airflow.plugins.module_utils import layout, workers
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import COMPONENT_GROUPS, SERVER_GROUPS


def _reported(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            raise AnsibleFilterError(str(error)) from error

    return filtered


def worker_instances(
    found: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], group_names: Collection[str]
) -> list[dict[str, Any]]:
    neighbours = {*COMPONENT_GROUPS.values(), *SERVER_GROUPS.values()} - {COMPONENT_GROUPS["worker"]}
    return workers.sized(found, machine, len(neighbours & set(group_names)))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        names = (
            "airflow_cfg",
            "component_layout",
            "components_of",
            "environment_file",
            "for_component",
            "secret_environment",
            "url",
        )
        filters = {name: _reported(getattr(layout, name)) for name in names}
        return {**filters, "worker_instances": _reported(worker_instances), "taking_workers": _reported(workers.taking)}
