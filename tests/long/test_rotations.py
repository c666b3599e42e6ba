# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every secret is replaced while tasks run; runs that are killed anywhere are continued; the old secret is refused."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fresh import Fresh, changed, output_of
from ledger import Ledger, Report, assert_clean, table
from test_rotation import PROOF, command, rotate_killed, secrets_of, values

KINDS = ("admin", "api", "database", "results", "redis", "fernet", "tls", "jwt")
KILLS = 10
REPORTS: list[Report] = []


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(tmp_path_factory.mktemp("rotations") / "inventory", "lt-rotated", "10.89.77.166", image="trixie") as fresh:
        fresh.must("playbooks/secrets.yml")
        fresh.must("playbooks/site.yml")
        yield fresh
    print("\n" + table(REPORTS))


@pytest.fixture(scope="module")
def stored(host: Fresh) -> dict[str, str]:
    """A connection and a variable, which must be readable in the end."""
    host.run(
        "airflow",
        "connections",
        "add",
        "kept",
        "--conn-type",
        "http",
        "--conn-password",
        "p-kept",
        "--conn-extra",
        '{"a": "x-kept"}',
    )
    host.run("airflow", "variables", "set", "kept", "v-kept")
    return {"connection": "p-kept", "extra": "x-kept", "variable": "v-kept"}


def read_back(host: Fresh) -> dict[str, str]:
    (found,) = json.loads(host.run("airflow", "connections", "get", "kept", "-o", "json"))
    value = host.run("airflow", "variables", "get", "kept").splitlines()[-1]
    return {
        "connection": found["password"],
        "extra": json.loads(str(found["extra_dejson"]).replace("'", '"'))["a"],
        "variable": value,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_the_old_one_is_refused(host: Fresh, stored: dict[str, str], kind: str) -> None:
    before = values(str(host.path))
    begin = time.monotonic()
    with Ledger(host.inventory) as ledger:
        with ledger.load(f"rotation of {kind}"):
            rc, output = output_of(command(str(host.path), kind))
        report = ledger.settle()
    REPORTS.append(report)
    print(f"\n{report.table()}\n{time.monotonic() - begin:.0f} s")
    assert rc == 0, output[-6000:]
    if kind == "jwt":
        assert "the same command finishes the rotation" in output and not PROOF.search(output)
        again = host.must("playbooks/rotate_secrets.yml", "-e", "rotate=jwt")
        assert changed(again) == {host.name: 0}
        output = host.must("playbooks/rotate_secrets.yml", "-e", "rotate=jwt", "-e", "rotate_wait=true")
    assert_clean(report)
    assert PROOF.search(output) or kind == "fernet", output[-6000:]
    after = values(str(host.path))
    olds = [old for name, old in before.items() if after.get(name) != old and isinstance(old, str) and len(old) > 20]
    assert olds and not [old for old in olds if old in output]
    assert not {name for name in after if name.startswith("airflow_rotation") or "previous" in name}
    assert read_back(host) == stored
    # What the file says is what runs.
    assert changed(host.must("playbooks/site.yml")) == {host.name: 0}


def test_ten_kills_at_random_points(host: Fresh, stored: dict[str, str], tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 100000))
    print(f"\nSEED={seed}")
    chance = random.Random(seed)  # noqa: S311  (repeatable on purpose)
    kills = 0

    def after(seconds: float) -> Callable[[], bool]:
        end = time.monotonic() + seconds
        return lambda: time.monotonic() > end

    while kills < KILLS:
        kind = chance.choice(["database", "results", "redis", "fernet", "tls", "api"])
        left = 3
        while left:
            left -= 1
            task = rotate_killed(str(host.path), kind, tmp_path / "log", after(chance.uniform(5, 90)))
            print(f"{kind}: killed in {task}" if task else f"{kind}: ended")
            if not task:
                break
            kills += 1
            marker: Any = values(str(host.path)).get("airflow_rotation")
            # At any moment the file is right: nothing is down, and nothing more than a new state is put in place.
            if chance.random() < 0.3:
                host.must("playbooks/site.yml")
            print(f"  {marker}")
        if "airflow_rotation" in values(str(host.path)):
            host.must("playbooks/rotate_secrets.yml", "-e", f"rotate={kind}")
        host.smoke()
    assert read_back(host) == stored
    assert changed(host.must("playbooks/site.yml")) == {host.name: 0}


def test_an_encrypted_file_stays_encrypted(host: Fresh, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("of the file\n")
    path = secrets_of(str(host.path))
    plain = path.read_text()
    own = {"ANSIBLE_VAULT_PASSWORD_FILE": str(password)}
    vault = str(Path(command(str(host.path), "api")[0]).with_name("ansible-vault"))
    assert output_of([vault, "encrypt", str(path)], **own)[0] == 0
    rc, output = output_of(command(str(host.path), "api"), **own)
    assert rc == 0 and PROOF.search(output), output[-6000:]
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;") and path.stat().st_mode & 0o777 == 0o600
    assert output_of([vault, "decrypt", str(path)], **own)[0] == 0
    before, after = yaml.safe_load(plain), yaml.safe_load(path.read_text())
    assert {name for name in after if after[name] != before[name]} == {"airflow_api_secret_key"}
