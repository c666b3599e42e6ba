# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.plugin_utils.progress import Progress, details, next_steps, why
from ansible_collections.windfarm.airflow.plugins.plugin_utils.web_page import url_of, words_of


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_phases_and_their_times() -> None:
    clock = Clock()
    progress = Progress(clock)
    assert progress.phase("One") == ["", "[    0.0 s] One"]
    clock.now += 12.5
    assert progress.phase("Two") == ["", "[   12.5 s] Two"]
    clock.now += 0.5
    progress.phase("Three")
    clock.now += 61
    assert progress.closing(False) == [
        "", "Time", "     12.5 s  One", "     61.0 s  Three", "     74.0 s  in all", "", "Nothing has changed.",
    ]  # fmt: skip


def test_a_task_is_named_when_there_is_something_to_say_or_after_a_silence() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.phase("One")
    assert progress.task("Quick") == []
    assert progress.change("a", {}) == ["            Quick", "              changed  a"]
    assert progress.change("b", {}) == ["              changed  b"]
    clock.now += 20
    assert progress.task("Slow") == ["            Slow"]
    assert progress.change("a", {"changes": ["write x"]}) == ["              changed  a", "                         write x"]
    assert progress.task("Next") == []
    assert progress.closing(False)[-3:] == ["What changed", "  Quick: a, b", "  Slow: a"]
    assert progress.closing(False, check=True)[-3] == "What would change"


def test_many_hosts_are_counted() -> None:
    progress = Progress(Clock())
    progress.task("Write")
    for number in range(12):
        progress.change(f"h{number}", {})
    assert progress.closing(False)[-1] == "  Write: h0, h1, h2, h3, h4, h5, h6, h7 and 4 more"


def test_details_are_short() -> None:
    assert details({"changes": [str(number) for number in range(40)]})[-1] == "and 29 more"
    assert details({"changes": "not a list"}) == details({}) == []


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"msg": "bad"}, ["bad"]),
        ({"msg": "one\ntwo"}, ["one", "two"]),
        ({"msg": "bad", "stderr": "why\n", "module_stderr": "bad"}, ["bad", "why"]),
        ({"censored": "hidden", "msg": "secret"}, ["hidden"]),
        ({}, []),
    ],
)
def test_why(result: dict[str, Any], expected: list[str]) -> None:
    assert why(result) == expected


def test_a_failure_without_a_word() -> None:
    progress = Progress(Clock())
    progress.task("Try")
    assert progress.failure("a", {}) == ["            Try", "              FAILED  a: no message"]
    assert progress.failed == {"a": "Try"}


AGAIN = "Next: mend what is told above, then give the same command again; it goes on where it stopped."
WORDS = {"inventory": "inventories/x", "url": "https://192.0.2.1:8080/", "user": "admin", "secrets": "x/vault.yml"}


@pytest.mark.parametrize(
    ("playbook", "failed", "check", "expected"),
    [
        ("playbooks/secrets.yml", False, False, ["Next: ansible-playbook -i inventories/x playbooks/site.yml"]),
        (
            "playbooks/site.yml",
            False,
            False,
            [
                "Web page: https://192.0.2.1:8080/",
                "User admin; the password is airflow_admin_password in x/vault.yml",
                "Next: ansible-playbook -i inventories/x playbooks/status.yml",
            ],
        ),
        ("playbooks/site.yml", True, False, [AGAIN]),
        ("playbooks/site.yml", False, True, ["Nothing was changed: this was a prediction (--check)."]),
        ("playbooks/dags.yml", False, False, []),
    ],
)  # fmt: skip
def test_next_steps(playbook: str, failed: bool, check: bool, expected: list[str]) -> None:
    assert next_steps(playbook, failed, check, WORDS) == expected


def test_the_web_page() -> None:
    plan = {"entry": {"url": ""}, "webservers": [{"address": "192.0.2.1", "port": 8080}], "single": False, "tls": True}
    assert url_of(plan, {}) == "https://192.0.2.1:8080/"
    assert (
        url_of({**plan, "tls": False, "webservers": [{"address": "2001:db8::1", "port": 80}]}, {}) == "http://[2001:db8::1]:80/"
    )
    assert url_of({**plan, "single": True}, {"ansible_host": "10.0.0.9"}) == "https://10.0.0.9:8080/"
    assert url_of({**plan, "entry": {"url": "https://entry"}}, {}) == "https://entry"
    assert url_of({**plan, "entry": {"url": "https://entry"}}, {"airflow_base_url": "https://own"}) == "https://own"


def test_an_inventory_that_is_none_is_no_error() -> None:
    assert "url" not in words_of(None)
