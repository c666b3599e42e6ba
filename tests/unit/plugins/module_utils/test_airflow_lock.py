# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_lock import LockError, find_lock, lock_matches

COLLECTION = str(pathlib.Path(__file__).resolve().parents[4])
HASH = "    --hash=sha256:00"


def lock(*names: str) -> str:
    return "".join(f"{name} \\\n{HASH}\n" for name in names)


def user_lock(python: str = "3.11", requirements: tuple[str, ...] = ("pandas>=3",), base: str | None = None) -> str:
    shipped = pathlib.Path(airflow_lock.shipped_lock(COLLECTION, "3.3.2", "3.11")).read_text(encoding="utf-8")
    facts = {
        "airflow": "3.3.2",
        "python": python,
        "requirements": airflow_lock.normalised(requirements),
        "base": base or airflow_lock.digest(shipped),
    }
    return airflow_lock.render_header(["For people"], facts) + lock("apache-airflow==3.3.2", "pandas==3.1.1")


def test_header() -> None:
    text = airflow_lock.render_header(["one", "two"], {"airflow": "1"})
    assert text == '# one\n# two\n# windfarm.airflow lock: {"airflow": "1"}\n'
    assert airflow_lock.parse_header(text + "a==1\n") == {"airflow": "1"}
    assert airflow_lock.parse_header("a==1\n" + text) == {}
    assert airflow_lock.parse_header("# windfarm.airflow lock: {\n") == {}


def test_pins() -> None:
    text = (
        "# note\n\nOld_Name[x]==1.0 ; python_version < '3' \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\nb @ https://e/b.whl\n"
    )
    assert airflow_lock.pins(text) == {"old-name": "1.0", "b": "https://e/b.whl"}
    assert airflow_lock.unhashed(text) == ["b"]
    with pytest.raises(LockError, match="is no pin"):
        airflow_lock.pins("-r other.txt\n")


def test_merge_keeps_the_shipped_lines() -> None:
    shipped = lock("b==1")
    assert airflow_lock.merge(shipped, lock("a==1") + "B==1 \\\n    --hash=sha256:ff\n") == lock("a==1", "b==1")


def test_combine() -> None:
    both = {"x86_64": lock("a==1", "cuda==2"), "aarch64": lock("a==1")}
    assert airflow_lock.combine(both) == lock("a==1", "cuda==2 ; platform_machine == 'x86_64'")
    with pytest.raises(LockError, match="a has different versions for x86_64 and aarch64"):
        airflow_lock.combine({"x86_64": lock("a==1"), "aarch64": lock("a==2")})


def test_lock_matches() -> None:
    text = user_lock(requirements=("b", "a  >= 1"))
    assert lock_matches(text, "3.3.2", "3.11", ["a >= 1", "b", "b "])
    assert not lock_matches(text, "3.3.2", "3.11", ["a >= 1"])
    assert not lock_matches(text, "3.3.2", "3.13", ["a >= 1", "b"])
    assert not lock_matches(text, "3.2.2", "3.11", ["a >= 1", "b"])
    assert not lock_matches(text, "3.3.2", "3.11", ["a >= 1", "b"], "another shipped lock")
    assert not lock_matches("", "3.3.2", "3.11", [])


def test_find_lock(tmp_path: pathlib.Path) -> None:
    here = str(tmp_path)
    shipped = airflow_lock.shipped_lock(COLLECTION, "3.3.2", "3.11")
    assert find_lock(COLLECTION, here, "3.3.2", "3.11") == shipped
    assert find_lock(COLLECTION, None, "3.3.2", "3.11", [], "") == shipped
    path = tmp_path / "locks/airflow-3.3.2-py3.11.txt"
    with pytest.raises(LockError, match=r"airflow_requirements — not resolved yet, .* — run the playbook"):
        find_lock(COLLECTION, here, "3.3.2", "3.11", ["pandas>=3"])
    path.parent.mkdir()
    path.write_text(user_lock(), encoding="utf-8")
    assert find_lock(COLLECTION, here, "3.3.2", "3.11", ["pandas>=3"]) == str(path)
    with pytest.raises(LockError, match="was resolved for other requirements"):
        find_lock(COLLECTION, here, "3.3.2", "3.11", ["pandas>=4"])
    path.write_text(user_lock(base="0"), encoding="utf-8")
    with pytest.raises(LockError, match="under another shipped lock"):
        find_lock(COLLECTION, here, "3.3.2", "3.11", ["pandas>=3"])
    for folder in (None, "", "None"):
        with pytest.raises(LockError, match="this inventory has no folder"):
            find_lock(COLLECTION, folder, "3.3.2", "3.11", ["pandas>=3"])
    with pytest.raises(LockError, match=r"no lock for Airflow 3.3.2 on Python 3.12 — set one of 3.2.2 \(Python 3.11, 3.13\)"):
        find_lock(COLLECTION, here, "3.3.2", "3.12")


def test_a_second_list_of_requirements_has_a_lock_of_its_own(tmp_path: pathlib.Path) -> None:
    here, first, second = str(tmp_path), ["pandas>=3"], ["pandas>=3", "duckdb"]
    plain, other = airflow_lock.user_locks(here, "3.3.2", "3.11", [first, second])
    assert pathlib.Path(plain).name == "airflow-3.3.2-py3.11.txt"
    assert other == airflow_lock.user_lock(here, "3.3.2", "3.11", ["duckdb", "pandas>=3"]) != plain
    (tmp_path / "locks").mkdir()
    pathlib.Path(plain).write_text(user_lock(), encoding="utf-8")
    with pytest.raises(LockError, match="was resolved for other requirements"):
        find_lock(COLLECTION, here, "3.3.2", "3.11", second)
    pathlib.Path(other).write_text(user_lock(requirements=("duckdb", "pandas>=3")), encoding="utf-8")
    assert find_lock(COLLECTION, here, "3.3.2", "3.11", first) == plain
    assert find_lock(COLLECTION, here, "3.3.2", "3.11", second) == other
    # Whatever is asked for first: nobody's lock moves.
    assert airflow_lock.user_locks(here, "3.3.2", "3.11", [second, first]) == [other, plain]
    third = ["polars"]
    assert airflow_lock.user_locks(here, "3.3.2", "3.11", [third, first, second])[1:] == [plain, other]
    # A list that was changed takes over the name of the one that is not asked for any more.
    assert airflow_lock.user_locks(here, "3.3.2", "3.11", [third, second]) == [plain, other]
    assert airflow_lock.available_locks(f"{here}/locks") == {"3.3.2": ["3.11"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (lock("apache-airflow==3.2.2"), "pins apache-airflow 3.2.2, airflow_version is 3.3.2"),
        (lock("a==1"), "pins apache-airflow not at all"),
        ("apache-airflow==3.3.2\n", "has no hash for apache-airflow"),
        ("apache-airflow>=3\n", "is no pin"),
        (user_lock(python="3.13"), "is for Python 3.13 and"),
        (user_lock(requirements=()), "is for Python 3.11 and no requirements"),
    ],
)
def test_given_lock_is_refused(tmp_path: pathlib.Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LockError, match=expected):
        find_lock(COLLECTION, None, "3.3.2", "3.11", ["pandas>=3"], str(path))


def test_given_lock(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mine.txt"
    with pytest.raises(LockError, match="does not exist on the controller"):
        find_lock(COLLECTION, None, "3.3.2", "3.12", [], str(path))
    for text in (lock("apache-airflow==3.3.2"), user_lock()):
        path.write_text(text, encoding="utf-8")
        assert find_lock(COLLECTION, None, "3.3.2", "3.11", ["pandas>=3"], str(path)) == str(path)


@pytest.mark.parametrize("text", ["pandas", "pandas[x]>=3,<4 ; python_version > '3'", "a @ https://e/a-1-py3-none-any.whl"])
def test_good_requirements(text: str) -> None:
    assert airflow_lock.requirement_problem(text) is None


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (3, "3 is no requirement"),
        ("-r x", "is an option"),
        ("a @ git+https://e/a", "cannot be pinned by a hash"),
        ("a @ ../a.whl", "cannot be pinned by a hash"),
        ("a @ https://user:word@e/a.whl", "the address of 'a' holds a login"),
    ],
)
def test_bad_requirements(requirement: object, expected: str) -> None:
    found = airflow_lock.requirement_problem(requirement)
    assert found and expected in found.what and "word" not in str(found)


def test_contradiction() -> None:
    shipped = {"celery": "5.6.3", "a-b": "2.0rc1"}
    assert airflow_lock.contradiction(["Celery[x]<6", "a_b", "other==1"], shipped) is None
    found = airflow_lock.contradiction(["celery==5.7.0"], shipped)
    assert str(found).startswith("airflow_requirements — 'celery==5.7.0' excludes celery 5.6.3, which Airflow is locked to")
    assert "is no requirement" in str(airflow_lock.contradiction(["pandas=1"], shipped))


def test_explanation_is_one_line_without_login() -> None:
    text = "error: No solution found when resolving dependencies\n  cause: x\n at https://me:pw@e/simple\n\nhint: more"
    assert airflow_lock.explanation(text) == "x at https://***@e/simple"


def test_environment() -> None:
    assert airflow_lock.environment("", "", "", "") == {}
    assert airflow_lock.environment("i", "", "/ca", "p")["UV_DEFAULT_INDEX"] == "i"
    assert airflow_lock.environment("i", "", "/ca", "p")["HTTPS_PROXY"] == "p"


def test_find_uv(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(LockError, match="uv — is not on the controller"):
        airflow_lock.find_uv()
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.touch(0o755)
    assert airflow_lock.find_uv() == str(uv)


def test_available_locks(tmp_path: pathlib.Path) -> None:
    for name in ("airflow-3.10.0-py3.9.txt", "airflow-3.9.1-py3.13.txt", "airflow-3.9.1-py3.9.txt", "locks.yml"):
        (tmp_path / name).touch()
    assert list(airflow_lock.available_locks(str(tmp_path)).items()) == [("3.9.1", ["3.9", "3.13"]), ("3.10.0", ["3.9"])]
    assert airflow_lock.describe_locks(str(tmp_path / "none")) == "none"
