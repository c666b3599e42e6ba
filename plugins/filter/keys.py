# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters about keys: each is documented in its .yml file beside this one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.windfarm.airflow.plugins.module_utils import pki


def _reported(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            # Without its cause, which may quote a key.
            raise AnsibleFilterError(f"{function.__name__}: {error}") from None

    return filtered


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {name: _reported(getattr(pki, name)) for name in ("fingerprints", "jwks", "jwt_kid")}
