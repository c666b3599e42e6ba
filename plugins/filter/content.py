# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A filter about what the cluster holds: documented in its .yml file beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.windfarm.airflow.plugins.module_utils import content_rules


def auth_type(text: str) -> str:
    try:
        return content_rules.auth_type(text)
    except SyntaxError as error:
        raise AnsibleFilterError(f"airflow_webserver_config: line {error.lineno} is no Python: {error.msg}") from None


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"auth_type": auth_type}
