# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import traceback

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.windfarm.airflow.plugins.filter.keys import FilterModule
from ansible_collections.windfarm.airflow.plugins.module_utils import pki

FILTERS = FilterModule().filters()


def test_what_there_is() -> None:
    key = pki.new_jwt_key()
    assert FILTERS["jwks"](key, [])["keys"][0]["kid"] == FILTERS["jwt_kid"](key)
    assert FILTERS["fingerprints"]({"airflow_jwt_private_key": key}) == {"airflow_jwt_private_key": [pki.jwt_kid(key)]}


@pytest.mark.parametrize("name", list(FILTERS))
def test_an_error_holds_no_key(name: str) -> None:
    text = pki.new_jwt_key().replace("MC4", "MC5")
    with pytest.raises(AnsibleFilterError) as caught:
        FILTERS[name]({"airflow_jwt_private_key": text} if name == "fingerprints" else text)
    assert str(caught.value).startswith(f"{name}: ")
    shown = "".join(traceback.format_exception(caught.value))
    assert not [line for line in text.splitlines()[1:-1] if line in shown]
