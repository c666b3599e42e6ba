# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every secret is replaced while tasks run; runs that are killed anywhere are continued; the old secret is refused."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from fresh import Fresh, changed, output_of
from inventory import ROOT
from ledger import Ledger, Report, assert_clean, table
from test_rotation import PROOF, command, rotate_killed, secrets_of, values
from upgrading import NEW, SITE, Cluster, Watch, deployed

KINDS = ("admin", "api", "database", "results", "redis", "fernet", "tls", "jwt")
KILLS = 10
# Long tasks of the load: longer than any one restart, short enough that eight loads end.
LONG_SECONDS = 60
ROTATE = "playbooks/rotate_secrets.yml"
REPORTS: list[Report] = []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two webservers, two schedulers and two workers: what runs finds a fellow of whatever is restarted."""
    cluster = Cluster(str(ROOT / "molecule/upgrade/inventory"), tmp_path_factory.mktemp("rotated") / "inventory")
    cluster.edit(airflow_version=NEW)
    # Beside a run of the scenario.
    hosts = cluster.folder / "hosts.yml"
    hosts.write_text(re.sub(r"\b10\.89\.77\.14(\d)", r"10.89.77.20\1", re.sub(r"\bup(\d)", r"ro\1", hosts.read_text())))
    cluster.read()
    with deployed(cluster):
        yield cluster
    print("\n" + table(REPORTS))


@pytest.fixture(scope="module")
def ledger(cluster: Cluster) -> Iterator[Ledger]:
    with cluster.ledger() as ledger:
        yield ledger


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(tmp_path_factory.mktemp("rotations") / "inventory", "lt-rotated", "10.89.77.166", image="trixie") as fresh:
        fresh.must("playbooks/secrets.yml")
        fresh.must("playbooks/site.yml")
        yield fresh


Command = Callable[..., str]
KEPT = {"connection": "p-kept", "extra": "x-kept", "variable": "v-kept"}


def store(airflow: Command) -> dict[str, str]:
    """A connection and a variable, which must be readable in the end."""
    airflow("connections", "add", "kept", "--conn-type", "http", "--conn-password", "p-kept", "--conn-extra", '{"a": "x-kept"}')
    airflow("variables", "set", "kept", "v-kept")
    return KEPT


def read_back(airflow: Command) -> dict[str, str]:
    (found,) = json.loads(airflow("connections", "get", "kept", "-o", "json"))
    value = airflow("variables", "get", "kept").splitlines()[-1]
    return {
        "connection": found["password"],
        "extra": json.loads(str(found["extra_dejson"]).replace("'", '"'))["a"],
        "variable": value,
    }


@pytest.fixture(scope="module")
def stored(host: Fresh) -> dict[str, str]:
    return store(partial(host.run, "airflow"))


@pytest.fixture(scope="module")
def stored_in_cluster(cluster: Cluster) -> dict[str, str]:
    return store(partial(cluster.run, cluster.members["scheduler"][0], "airflow"))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_the_old_one_is_refused(
    cluster: Cluster, ledger: Ledger, stored_in_cluster: dict[str, str], kind: str
) -> None:
    hosts = cluster.folder / "hosts.yml"
    before = values(str(hosts))
    with Watch(cluster) as watch, ledger.load(f"rotation of {kind}", LONG_SECONDS):
        run = cluster.play(ROTATE, rotate=kind)
    report = ledger.settle()
    REPORTS.append(report)
    print(f"\n{report.table()}\n{report.remarks()}\n{run.table()}\n{watch.table()}")
    output = run.output
    assert run.rc == 0, output[-6000:]
    if kind == "jwt":
        assert "the same command finishes the rotation" in run.said and not PROOF.search(output)
        assert cluster.must(ROTATE, rotate="jwt").changed == 0
        output = cluster.must(ROTATE, rotate="jwt", rotate_wait=True).output
    assert_clean(report)
    assert watch.together(["webserver", "worker"]) == []
    assert PROOF.search(output) or kind == "fernet", output[-6000:]
    after = values(str(hosts))
    olds = [old for name, old in before.items() if after.get(name) != old and isinstance(old, str) and len(old) > 20]
    assert olds and not [old for old in olds if old in output]
    assert not {name for name in after if name.startswith("airflow_rotation") or "previous" in name}
    # Passwords and the authority are others now.
    cluster.read()
    assert read_back(partial(cluster.run, cluster.members["scheduler"][0], "airflow")) == stored_in_cluster
    # What the file says is what runs.
    cluster.settled(SITE)


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
    assert read_back(partial(host.run, "airflow")) == stored
    output = host.must("playbooks/site.yml", "--diff")
    assert changed(output) == {host.name: 0}, output[-8000:]


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
