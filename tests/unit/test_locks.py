# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shipped locks, and the tool that makes them."""

from __future__ import annotations

import datetime
import importlib.util
import pathlib
import re
from typing import Any

import pytest
import yaml
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_lock
from packaging.version import Version

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOCKS = ROOT / "roles/airflow/files/locks"
DATA = yaml.safe_load((LOCKS / "locks.yml").read_text(encoding="utf-8"))
NAMES = [airflow_lock.lock_name(str(version), python) for version in DATA["released"] for python in DATA["pythons"]]


@pytest.fixture(name="tool", scope="module")
def _tool() -> Any:
    path = ROOT / "tools/lock.py"
    if not path.exists():
        pytest.skip("not part of the installed collection")
    spec = importlib.util.spec_from_file_location("lock", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_release_has_its_locks() -> None:
    assert sorted(path.name for path in LOCKS.glob("*.txt")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_lock(name: str, tool: Any) -> None:
    text = (LOCKS / name).read_text(encoding="utf-8")
    _airflow, version, python = name.removesuffix(".txt").replace("-py", "-").split("-")
    pins = airflow_lock.pins(text)
    assert airflow_lock.lock_matches(text, version, python, [])
    assert text.startswith(tool.header(DATA, version, python, tool.as_of(DATA["released"][version])))
    assert airflow_lock.unhashed(text) == []
    assert pins["apache-airflow"] == pins["apache-airflow-core"] == version
    assert Version(pins["celery"]) < Version("5.7")
    assert pins["flower"] == "2.2.0"
    assert {"gunicorn", "psycopg2-binary", "redis", "statsd", "sentry-sdk", "gitpython"} <= set(pins)
    # Python before 3.11.3, and so Debian 12's 3.11.2, lacks what redis takes from this package.
    assert ("async-timeout" in pins) == (python == "3.11")
    # Nothing of the machine that made it, and nothing that could not be checked against a hash.
    assert not re.search(r"://|^\s*-(?!-hash=sha256:[0-9a-f]{64})| @ |/", text.split("\n", 4)[4], re.MULTILINE)


def test_exceptions_have_reasons() -> None:
    for exception in DATA["exceptions"]:
        assert set(exception) == {"package", "requirement", "until", "reason"}


def test_exceptions_only_make_newer(tool: Any) -> None:
    day = datetime.date(2026, 6, 8)
    found = tool.resolve_options(DATA["exceptions"], day)
    assert found[:2] == ["--exclude-newer", "2026-06-09T00:00:00Z"]
    assert [item for item in found if "=" in item] == ["flower=2026-09-23T00:00:00Z"]


def test_a_new_release_is_added_at_the_end(tool: Any) -> None:
    text = (LOCKS / "locks.yml").read_text(encoding="utf-8")
    added = tool.with_release(text, "9.9.9", datetime.date(2030, 1, 2))
    assert list(yaml.safe_load(added)["released"])[-1] == "9.9.9"
    assert yaml.safe_load(added)["released"]["9.9.9"] == datetime.date(2030, 1, 2)
    assert added.replace("  9.9.9: 2030-01-02\n", "") == text
