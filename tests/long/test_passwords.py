# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Credentials of every character that URLs, shells, INI, YAML, systemd, Redis and PostgreSQL read as something else: the first
deployment works with them, or the preflight names the credential and the character; and none of it can be seen anywhere."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import secret_scan
import yaml
from fresh import Fresh, changed

NASTY = "@:/?#[]%$\"' \\üß漢"
PASSWORDS = (
    "airflow_database_password", "airflow_results_database_password", "airflow_broker_password", "airflow_broker_admin_password",
    "airflow_admin_password", "airflow_api_secret_key", "airflow_flower_password",
)  # fmt: skip
# What the preflight refuses, and how it names the character.
REFUSED = {"airflow_api_secret_key": "$", "airflow_flower_password": "$ and a character beyond ASCII"}


def value() -> str:
    return f"{NASTY}{secrets.token_hex(32)}"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(tmp_path_factory.mktemp("passwords") / "inventory", "lt-passwords", "10.89.77.165", image="trixie") as fresh:
        yield fresh


@pytest.fixture(scope="module")
def begun() -> float:
    return time.time()


@pytest.fixture(scope="module")
def outputs() -> dict[str, str]:
    return {}


def write(host: Fresh, values: dict[str, str]) -> None:
    path = host.folder / "group_vars" / "all" / "vault.yml"
    content = {**(yaml.safe_load(path.read_text()) if path.exists() else {}), **values}
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    path.chmod(0o600)


def test_what_cannot_be_is_refused_by_name(host: Fresh, begun: float) -> None:
    host.must("playbooks/secrets.yml")
    write(host, {name: value() for name in PASSWORDS})
    rc, output = host.play("playbooks/site.yml")
    assert rc == 2 and changed(output) == {host.name: 0}
    for name, character in REFUSED.items():
        assert f"{name} — holds {character}" in output
    for name in set(PASSWORDS) - set(REFUSED):
        assert f"{name} —" not in output


def test_the_first_deployment_works_with_all_others(host: Fresh, begun: float, outputs: dict[str, str]) -> None:
    allowed = {name: value() for name in PASSWORDS}
    for name in REFUSED:
        allowed[name] = allowed[name].replace("$", "")
    flower = allowed["airflow_flower_password"]
    allowed["airflow_flower_password"] = flower.encode("ascii", "ignore").decode()
    (host.folder / "group_vars" / "all" / "vault.yml").unlink()
    write(host, allowed)
    for playbook in ("secrets", "site"):
        outputs[f"output of {playbook}.yml -vvv"] = host.must(f"playbooks/{playbook}.yml", "-vvv", "--diff")
    host.smoke()
    assert changed(host.must("playbooks/site.yml")) == {host.name: 0}


def test_the_command_line_works_too(host: Fresh) -> None:
    assert "smoke" in host.run("airflow", "dags", "list", "-o", "json")


def test_nothing_of_it_is_seen_anywhere(host: Fresh, begun: float, outputs: dict[str, str], tmp_path: Path) -> None:
    assert outputs, "nothing was deployed"
    # The inventory is in a temporary folder, with all of them.
    report = secret_scan.scan(host.inventory, outputs=outputs, since=begun)
    print(f"\n{report}")
    own = f"file {os.path.realpath(host.folder)}/"
    assert not [str(hit) for hit in report.forbidden if not (hit.host == "controller" and hit.place.startswith(own))]
