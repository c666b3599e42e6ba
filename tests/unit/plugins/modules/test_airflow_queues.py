# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils.database import DatabaseError
from ansible_collections.windfarm.airflow.plugins.modules import airflow_queues


class Ended(Exception):
    """What the module's exit is here."""


@pytest.fixture(name="module")
def _module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A database that takes longer than its time-out, as a long lock makes it."""

    class Module:
        check_mode = False

        def __init__(self, argument_spec: dict[str, Any], **_options: Any) -> None:
            self.params = {**{name: one["default"] for name, one in argument_spec.items()}, **given}

        def warn(self, text: str) -> None:
            said.append(text)

        def exit_json(self, **answer: Any) -> None:
            raise Ended({"failed": False, **answer})

        def fail_json(self, **answer: Any) -> None:
            raise Ended({"failed": True, **answer})

    def read(*_arguments: Any) -> None:
        raise DatabaseError("queues cannot be read: canceling statement due to statement timeout")

    given: dict[str, Any] = {}
    said: list[str] = []
    monkeypatch.setattr(airflow_queues, "AnsibleModule", Module)
    monkeypatch.setattr(airflow_queues.queues, "read", read)

    def run(**options: Any) -> tuple[dict[str, Any], list[str]]:
        given.update(options)
        with pytest.raises(Ended) as ended:
            airflow_queues.main()
        return ended.value.args[0], said

    return run


def test_who_decides_by_the_queues_is_told_that_they_cannot_be_read(module: Any) -> None:
    answer, said = module()
    assert answer["failed"] and "statement timeout" in answer["msg"] and said == []


def test_a_warning_that_cannot_be_given_ends_nothing(module: Any) -> None:
    answer, said = module(warn=True)
    assert not answer["failed"] and not answer["changed"] and answer["without_worker"] == {}
    assert said == [
        "whether workers take all queues that DAGs use could not be seen: "
        "queues cannot be read: canceling statement due to statement timeout"
    ]
