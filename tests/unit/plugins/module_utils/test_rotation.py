# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_secrets, pki, rotation
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import database_logins, login
from ansible_collections.windfarm.airflow.plugins.module_utils.rotation import KINDS, MARKER, RETIRED, STEPS, RotationError


def start() -> dict[str, Any]:
    users = {"airflow_database_user": "airflow", "airflow_results_database_user": "airflow_results", "cluster": "c"}
    return {**airflow_secrets.create(airflow_secrets.SECRETS), **users}


def run(kind: str, values: dict[str, Any], to: int = 9) -> list[dict[str, Any]]:
    """The values in each state, as the file has them."""
    states = []
    for number in range(1, min(to, len(STEPS[kind])) + 1):
        values = {**values, **rotation.enter(kind, number, values)}
        states.append(values)
    return states


def keys(state: dict[str, Any]) -> list[str]:
    return str(state["airflow_fernet_key"]).split(",")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_replaces_its_secret_and_leaves_nothing_behind(kind: str) -> None:
    before = start()
    states = run(kind, before)
    assert [state[MARKER]["stage"] for state in states] == list(range(1, len(STEPS[kind]) + 1))
    assert RETIRED in states[-1] and RETIRED not in (states[-2] if len(states) > 1 else {})
    after = {**states[-1], **rotation.finish(kind)}
    changed = {name for name, value in after.items() if value is not None and value != before.get(name)}
    kept = {"database": "airflow_database_login", "results": "airflow_results_database_login"}.get(kind)
    assert changed == {*rotation.SECRETS[kind], *([kept] if kept else [])}
    # Whatever a state writes has been checked before, in every place.
    assert {name for state in states for name in state} - set(before) <= set(rotation.names_of(kind))


def test_hosts_in_neighbouring_states_read_what_the_others_encrypt() -> None:
    before = start()
    states = [before, *run("fernet", before)]
    for earlier, later in zip(states, states[1:]):
        assert keys(earlier)[0] in keys(later)
        assert keys(later)[0] in keys(earlier)
    assert json.loads(states[-1][RETIRED]) == {"keys": [before["airflow_fernet_key"]]}
    assert keys(states[-1]) == [keys(states[-2])[0]] != keys(before)


def test_a_list_of_fernet_keys_becomes_one() -> None:
    before = {**start(), "airflow_fernet_key": "a,b"}
    first, second, third = run("fernet", before)
    assert keys(first)[:2] == ["a", "b"] and keys(second)[1:] == ["a", "b"] and len(keys(third)) == 1
    assert json.loads(third[RETIRED]) == {"keys": ["a", "b"]}


def test_tokens_of_either_key_are_accepted_while_hosts_differ() -> None:
    before = start()
    states = [before, *run("jwt", before)]

    def kid(state: dict[str, Any]) -> str:
        return pki.jwt_kid(state["airflow_jwt_private_key"])

    def accepted(state: dict[str, Any]) -> list[str]:
        others = filter(None, [state.get(rotation.JWT_OTHER)])
        return [key["kid"] for key in pki.jwks(state["airflow_jwt_private_key"], others)["keys"]]

    for earlier, later in zip(states, states[1:]):
        assert kid(later) in accepted(earlier) and kid(earlier) in accepted(later)
    assert kid(before) not in accepted(states[-1])
    assert json.loads(states[-1][RETIRED])["value"] == before["airflow_jwt_private_key"]


def test_logins_take_turns() -> None:
    before = {**start(), "airflow_database_user": "own"}
    assert login(before, "airflow_database") == ("own", "", "")
    first, second = run("database", before)
    assert login(first, "airflow_database") == ("own_2", "own", "")
    assert first["airflow_database_previous_password"] == before["airflow_database_password"]
    assert login(second, "airflow_database") == ("own_2", "", "own")
    assert json.loads(second[RETIRED]) == {"user": "own", "password": before["airflow_database_password"]}
    third, fourth = run("database", {**second, **rotation.finish("database")})
    assert login(third, "airflow_database") == ("own", "own_2", "")
    assert login(fourth, "airflow_database") == ("own", "", "own_2")
    assert json.loads(fourth[RETIRED])["user"] == "own_2"


def test_who_may_log_in_to_postgresql() -> None:
    limits = {"connection_limits": {"database": 7}}
    target = {"user": "a_2", "previous": "a", "barred": "", "owner": "a_owner"}
    one = {"member_of": ["a_owner"], "act_as": "a_owner", "connection_limit": 7}
    both = [{"name": "a_2", "password": "new", **one}, {"name": "a", "password": "old", **one}]
    assert database_logins({**limits, "database": target}, "database", ["new", "old"]) == both
    barred = {**target, "previous": "", "barred": "a"}
    assert database_logins({**limits, "database": barred}, "database", ["new", ""]) == [
        both[0],
        {"name": "a", "login": False, "member_of": []},
    ]


def test_one_authority_replaces_the_other_and_those_of_others_stay() -> None:
    before = start()
    own = pki.new_ca(pki.new_key(), "own").strip()
    before["airflow_ca_certificate"] = f"{own}\n{before['airflow_ca_certificate']}"
    states = [before, *run("tls", before)]

    def trusted(state: dict[str, Any]) -> set[str]:
        return {pki.fingerprint(one) for one in pki.load_certificates(state["airflow_ca_certificate"])}

    def signs(state: dict[str, Any]) -> str:
        return pki.fingerprint(pki.load_authority(state["airflow_ca_certificate"], state["airflow_ca_key"]).issuer)

    for earlier, later in zip(states, states[1:]):
        assert signs(later) in trusted(earlier) and signs(earlier) in trusted(later)
    assert signs(before) == signs(states[1]) != signs(states[2]) == signs(states[3])
    assert trusted(states[3]) == trusted(before) - {signs(before)} | {signs(states[3])}
    old = pki.load_certificates(json.loads(states[3][RETIRED])["certificate"])
    assert [pki.fingerprint(one) for one in old] == [signs(before)]


def test_redis_accepts_both_passwords_of_both_accounts() -> None:
    before = start()
    first, second = run("redis", before)
    for name in ("airflow_broker", "airflow_broker_admin"):
        assert first[f"{name}_previous_password"] == before[f"{name}_password"] != first[f"{name}_password"]
        assert not second[f"{name}_previous_password"]


def test_where_it_stands() -> None:
    assert rotation.begin("jwt", None) == rotation.begin("jwt", {}) == 0
    assert rotation.begin("jwt", {"secret": "jwt", "stage": 2}) == 2
    for kind, marker, text in (
        ("", None, "rotate — is not set — choose one: -e rotate=fernet|jwt|"),
        ("all", None, "rotate — is 'all' — choose one"),
        ("tls", {"secret": "jwt", "stage": 2}, "a rotation of jwt is unfinished — finish it first, with -e rotate=jwt"),
        ("jwt", {"secret": "jwt", "stage": 4}, "has stage 4, and a rotation of jwt has 1 to 3"),
        ("jwt", "jwt", "is no record of a rotation"),
    ):
        with pytest.raises(RotationError) as error:
            rotation.begin(kind, marker)
        assert text in str(error.value)


def test_how_long_tokens_live() -> None:
    assert rotation.token_seconds({}) == 640
    assert rotation.token_seconds({"scheduler": {"task_queued_timeout": 30.0}}) == 640
    assert rotation.token_seconds({"scheduler": {"task_queued_timeout": "1200"}, "api_auth": {"jwt_leeway": 0}}) == 1230
    assert 8 < rotation.seconds_until(rotation.later(10)) <= 10


BEFORE = """\
---
# mine
airflow_api_secret_key: "old"   # this stays
airflow_ca_key: |
  first
  second

# between
airflow_admin_password: !vault |
  $ANSIBLE_VAULT;1.1;AES256
  3132
other: {a: [1]}
last: 'text'
"""


def test_edits_in_place_and_nothing_else() -> None:
    lines = {
        "airflow_api_secret_key": 'airflow_api_secret_key: "new"\n',
        "airflow_ca_key": "airflow_ca_key: |\n  third\n",
        "airflow_admin_password": None,
        MARKER: rotation.line_of(MARKER, {"secret": "api", "stage": 1}),
    }
    after = rotation.edited(BEFORE, lines)
    wanted = BEFORE.replace('"old"', '"new"').replace("  first\n  second\n", "  third\n")
    wanted = wanted.replace("airflow_admin_password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3132\n", "")
    assert after == wanted + 'airflow_rotation: {"secret": "api", "stage": 1}\n'
    # And back: what was added goes without a trace.
    assert rotation.edited(after, {MARKER: None}) == wanted


def test_a_comment_survives_a_value_of_many_lines() -> None:
    after = rotation.edited("a: b  # why\nc: d\n", {"a": "a: |\n  x\n  y\n"})
    assert yaml.safe_load(after) == {"a": "x\ny\n", "c": "d"} and "# why" in after


@pytest.mark.parametrize("value", ['pl@n+ed/é"x$%', "back\\slash 'q' # no", ": {", "yes", "1e5", " lead"])
def test_any_password_is_written_as_it_is(value: str) -> None:
    assert yaml.safe_load(rotation.line_of("a", value)) == {"a": value}
    assert yaml.safe_load(rotation.edited("a: 1\nb: 2\n", {"a": rotation.line_of("a", value)})) == {"a": value, "b": 2}


def test_what_is_defined_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="defines a twice"):
        rotation.edited("a: 1\na: 2\n", {"a": "a: 3\n"})


def test_haproxy_reads_the_authorities_after_the_workers_have_them() -> None:
    """A worker's roll writes the file. Before it, HAProxy would stay one state late, with the old authority at the end."""
    plays = yaml.safe_load((Path(str(rotation.__file__)).parents[2] / "playbooks/plays/rotate.yml").read_text(encoding="utf-8"))
    imported = [play.get("ansible.builtin.import_playbook") for play in plays]
    assert imported.index("roll.yml") < imported.index("haproxy.yml")
