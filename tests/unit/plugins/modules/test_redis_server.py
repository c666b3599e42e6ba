# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module's decisions; what Redis does with them is tested on the lab's hosts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import redis_server as rd
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import Host, ServerError
from ansible_collections.windfarm.airflow.plugins.modules import redis_server as module

PARAMS: dict[str, Any] = {
    "listen_addresses": ["127.0.0.1"],
    "port": 6379,
    "password": "secret",
    "maxmemory": "1mb",
    "appendfsync": "everysec",
    "config": {},
    "start_timeout": 1,
}


class AnsibleModule:
    check_mode = False

    def warn(self, text: str) -> None:
        raise AssertionError(text)


class Redis:
    """A connection to a server with these parameters; some of them it does not change."""

    def __init__(self, parameters: dict[str, str], immutable: tuple[str, ...] = ()) -> None:
        self.parameters_ = parameters
        self.immutable = immutable
        self.calls: list[tuple[str, ...]] = []

    def call(self, *words: str) -> Any:
        self.calls.append(words)
        if words[:2] == ("CONFIG", "GET"):
            return [words[2], self.parameters_[words[2]]]
        if words[2] in self.immutable:
            raise rd.RedisError("ERR CONFIG SET failed (possibly related to argument 'x') - can't set immutable config")
        if words[3] == "bad":
            raise rd.RedisError("ERR CONFIG SET failed (possibly related to argument 'x') - argument is bad")
        self.parameters_[words[2]] = words[3]
        return "OK"


def server(redis: Redis | None = None, check: bool = False, **params: Any) -> module.Server:
    ansible = AnsibleModule()
    ansible.check_mode = check
    result = module.Server(Host(ansible), {**PARAMS, **params})
    result.listen = result.params["listen_addresses"]
    result.connection = redis  # type: ignore[assignment]
    return result


def test_the_wish_has_the_password_last_and_the_users_values_over_ours() -> None:
    wish = server(config={"tcp-keepalive": 30, "hz": 20}).wanted({})
    assert list(wish)[-1] == "requirepass"
    assert (wish["tcp-keepalive"], wish["hz"], wish["maxmemory"]) == ("30", "20", str(1024**2))
    assert (wish["appendonly"], wish["maxmemory-policy"]) == ("yes", "noeviction")
    assert server(listen_addresses=["*"]).wanted({})["bind"] == "* -::*"


def test_the_data_stays_where_it_is() -> None:
    present = {"dir": "/srv/redis", "dbfilename": "x.rdb"}
    wish = server().wanted(present)
    assert (wish["dir"], wish["dbfilename"], wish["appenddirname"]) == ("/srv/redis", "x.rdb", "appendonlydir")
    assert server(config={"dir": "/srv/redis"}).wanted(present)["dir"] == "/srv/redis"
    with pytest.raises(ServerError, match="'dir' is /srv/redis on this host"):
        server(config={"dir": "/elsewhere"}).wanted(present)


@pytest.mark.parametrize("password", ["", "a\nb"])
def test_an_impossible_password_is_refused(password: str) -> None:
    with pytest.raises(ServerError, match="redis_password"):
        server(password=password).wanted({})


def test_values_are_set_live_and_the_others_are_left_for_a_restart() -> None:
    redis = Redis({"hz": "10", "databases": "16", "requirepass": "", "save": "1 1"}, immutable=("databases",))
    one = server(redis)
    later = one.set_live({"hz": "20", "databases": "20", "requirepass": "new", "save": "1 1"}, dict(redis.parameters_))
    assert later == ["databases"]
    assert one.host.actions == ["set hz from 10 to 20", "set requirepass"]
    assert ("CONFIG", "SET", "save", "1 1") not in redis.calls


def test_a_value_that_redis_spells_otherwise_is_no_change() -> None:
    class Spelling(Redis):
        def call(self, *words: str) -> Any:
            return "OK" if words[1] == "SET" else super().call(*words)

    one = server(Spelling({"loglevel": "notice"}))
    assert one.set_live({"loglevel": "NOTICE"}, {"loglevel": "notice"}) == []
    assert one.host.actions == []


def test_a_refused_value_names_the_variable() -> None:
    with pytest.raises(ServerError, match="redis_config: Redis refuses the value of 'hz': argument is bad"):
        server(Redis({"hz": "10"})).set_live({"hz": "bad"}, {"hz": "10"})


def test_check_mode_sets_nothing_and_hides_passwords() -> None:
    redis = Redis({"hz": "10", "requirepass": "old-secret"})
    one = server(redis, check=True)
    assert one.set_live({"hz": "20", "requirepass": "new"}, dict(redis.parameters_)) == []
    assert redis.calls == []
    assert one.host.actions == ["set hz from 10 to 20", "set requirepass"]


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ServerError, match="'hzz' is not a parameter of Redis"):
        server().known({"hz": "1", "hzz": "1"}, {"hz": "10"})


@pytest.mark.parametrize(
    ("present", "on_disk", "first"),
    [
        ({}, {}, False),
        ({"dump.rdb": 5}, {}, True),
        ({"dump.rdb": 5}, {"appendonly": "yes"}, True),
        ({"dump.rdb": 5, "appendonlydir/a.manifest": 1}, {"appendonly": "yes"}, False),
        ({"dump.rdb": 5, "appendonly.aof": 1}, {"appendonly": "yes"}, False),
        # Left from a time when it was on: the younger one holds more.
        ({"dump.rdb": 5, "appendonlydir/a.manifest": 1}, {"appendonly": "no"}, True),
        ({"dump.rdb": 5, "appendonlydir/a.manifest": 9}, {"appendonly": "no"}, False),
    ],
)
def test_a_stopped_server_loads_what_there_is(
    tmp_path: Path, present: dict[str, int], on_disk: dict[str, str], first: bool
) -> None:
    for name, time in present.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        os.utime(path, (time, time))
    wish = server().wanted({"dir": str(tmp_path)})
    assert module.Server._snapshot_first(wish, on_disk) is first


def persistence(**values: str) -> dict[str, str]:
    return {
        "aof_enabled": "1",
        "aof_rewrite_in_progress": "0",
        "aof_rewrite_scheduled": "0",
        "aof_last_bgrewrite_status": "ok",
        **values,
    }


@pytest.mark.parametrize("busy", [{"aof_rewrite_in_progress": "1"}, {"aof_rewrite_scheduled": "1"}])
def test_it_waits_for_the_append_only_file(busy: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    states = [persistence(**busy), persistence(**busy), persistence()]
    one = server()
    monkeypatch.setattr(one, "info", lambda _section: states.pop(0))
    one.complete()
    assert states == []


def test_an_append_only_file_that_cannot_be_written_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    one = server()
    monkeypatch.setattr(one, "info", lambda _section: persistence(aof_last_bgrewrite_status="err"))
    monkeypatch.setattr(one, "log_line", lambda: "No space left on device")
    with pytest.raises(ServerError, match="cannot write its append-only file: No space left"):
        one.complete()
    monkeypatch.setattr(one, "info", lambda _section: persistence(aof_rewrite_in_progress="1"))
    one.params["start_timeout"] = 0
    with pytest.raises(ServerError, match="raise redis_start_timeout"):
        one.complete()


class Door:
    """A server that knows one password, or none."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.inside = not password

    def call(self, *words: str) -> str:
        if words[0] == "AUTH":
            if not self.password:
                raise rd.RedisError("ERR AUTH <password> called without any password configured for the default user.")
            self.inside = words[1] == self.password
            if not self.inside:
                raise rd.RedisError("WRONGPASS invalid username-password pair")
        elif not self.inside:
            raise rd.RedisError("NOAUTH Authentication required.")
        return "OK"


@pytest.mark.parametrize("password", ["secret", "of the file", ""])
def test_any_known_password_opens_the_server(password: str) -> None:
    server()._authenticate(Door(password), "of the file")  # type: ignore[arg-type]


def test_an_unknown_password_is_told() -> None:
    with pytest.raises(ServerError, match="accepts neither redis_password nor"):
        server()._authenticate(Door("other"), "of the file")  # type: ignore[arg-type]
