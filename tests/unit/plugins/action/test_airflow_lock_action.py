# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Resolves with uv itself, from a package index that is a folder."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from ansible_collections.windfarm.airflow.plugins.action import airflow_lock as action
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_lock

try:
    airflow_lock.find_uv()
except airflow_lock.LockError:
    pytest.skip("there is no uv", allow_module_level=True)

ROOT = pathlib.Path(__file__).resolve().parents[4]
VERSION = yaml.safe_load((ROOT / "roles/airflow/defaults/main.yml").read_text(encoding="utf-8"))["airflow_version"]
LOCKS = [f"airflow-{VERSION}-py3.11.txt", f"airflow-{VERSION}-py3.13.txt"]
SHIPPED = airflow_lock.shipped_lock(action.COLLECTION, VERSION, "3.11")
CELERY = airflow_lock.pins(pathlib.Path(SHIPPED).read_text(encoding="utf-8"))["celery"]

Resolve = Callable[..., "dict[str, Any]"]


def add_wheel(index: pathlib.Path, name: str, version: str, needs: tuple[str, ...] = ()) -> None:
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    wheel = f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {n}\n" for n in needs)
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    links = [f'<a href="{path.name}">{path.name}</a>' for path in sorted(folder.glob("*.whl"))]
    (folder / "index.html").write_text("".join(links), encoding="utf-8")


@pytest.fixture(name="resolve")
def _resolve(folder: pathlib.Path, controller: Any, write: Any) -> Resolve:
    index = folder / "index"
    add_wheel(index, "ours", "1.0", ("helper>=1", "helper2 ; platform_machine == 'aarch64'"))
    add_wheel(index, "helper", "1.0")
    add_wheel(index, "helper", "2.0", ("celery>=99",))
    add_wheel(index, "helper2", "1.0")

    def run(requirements: list[str], check_mode: bool = False, on_worker2: Any = None, **variables: Any) -> dict[str, Any]:
        given = {"airflow_requirements": requirements, "airflow_index_url": index.as_uri(), **variables}
        found = controller([str(folder / "hosts.yml")])
        for host in ("control1", "worker1", "worker2"):
            own = {"airflow_requirements": on_worker2} if host == "worker2" and on_worker2 is not None else {}
            found.variables.set_nonpersistent_facts(host, {**given, **own})
        return found.run(action.ActionModule, check_mode=check_mode)

    return run


def test_resolves_once_for_every_python(folder: pathlib.Path, resolve: Resolve) -> None:
    first = resolve(["ours>=1"])
    assert first["changed"], first
    assert [pathlib.Path(path).name for path in first["locks"]] == LOCKS
    assert first["diff"][0]["after"] == "helper==1.0\nhelper2==1.0\nours==1.0\n"
    path = folder / "locks" / LOCKS[0]
    text = path.read_text(encoding="utf-8")
    shipped = pathlib.Path(SHIPPED).read_text(encoding="utf-8")
    assert airflow_lock.unhashed(text) == []
    assert set(airflow_lock.blocks(shipped).items()) < set(airflow_lock.blocks(text).items())
    assert "helper2==1.0 ; platform_machine == 'aarch64' \\\n" in text
    assert "file:" not in text and str(folder) not in text
    assert airflow_lock.find_lock(action.COLLECTION, str(folder), VERSION, "3.11", ["ours>=1"]) == str(path)
    second = resolve(["ours>=1"])
    assert not second["changed"] and path.read_text(encoding="utf-8") == text


def test_each_list_of_requirements_has_its_lock(folder: pathlib.Path, resolve: Resolve) -> None:
    def locks() -> dict[str, list[str]]:
        found = {path.name: path.read_text(encoding="utf-8") for path in (folder / "locks").iterdir()}
        return {name: [one for one in ("helper", "ours") if one in airflow_lock.pins(text)] for name, text in found.items()}

    python = {"airflow_lock_pythons": ["3.11"]}
    assert resolve(["helper<2"], on_worker2=["ours"], **python)["changed"]
    (other,) = set(locks()) - {LOCKS[0]}
    assert locks() == {LOCKS[0]: ["helper"], other: ["helper", "ours"]}
    assert not resolve(["helper<2"], on_worker2=["ours"], **python)["changed"]
    # One set alone has requirements: the lock that it has stays.
    assert not resolve([], on_worker2=["ours"], **python)["changed"]
    for requirements in (["helper<2"], ["ours"]):
        assert airflow_lock.find_lock(action.COLLECTION, str(folder), VERSION, "3.11", requirements)


def test_check_mode_resolves_and_writes_nothing(folder: pathlib.Path, resolve: Resolve) -> None:
    assert resolve(["ours"], check_mode=True)["changed"]
    assert not (folder / "locks").exists()


def test_one_python(folder: pathlib.Path, resolve: Resolve) -> None:
    resolve(["ours"], airflow_lock_pythons=["3.13"])
    assert [path.name for path in (folder / "locks").iterdir()] == LOCKS[1:]


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        (["celery==99"], f"airflow_requirements — 'celery==99' excludes celery {CELERY}"),
        (["helper==2.0"], f"airflow_requirements — cannot be resolved under the lock of Airflow {VERSION}: "),
        (["nothing-like-this"], "nothing-like-this was not found"),
        (["-r x"], "is an option"),
    ],
)
def test_a_conflict_is_one_line(folder: pathlib.Path, resolve: Resolve, requirements: list[str], expected: str) -> None:
    result = resolve(requirements)
    assert result["failed"] and expected in result["msg"] and "\n" not in result["msg"]
    assert not (folder / "locks").exists()


def test_nothing_to_do(folder: pathlib.Path, resolve: Resolve) -> None:
    assert not resolve([])["changed"]
    assert not resolve(["ours"], airflow_lock_file="/mine.txt")["changed"]


def test_an_unknown_release(resolve: Resolve) -> None:
    result = resolve(["ours"], airflow_version="9.9.9")
    assert "there is no lock for Airflow 9.9.9" in result["msg"], json.dumps(result)
