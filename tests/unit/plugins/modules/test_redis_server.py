# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module's decisions; what Redis does with them is tested on the lab's hosts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import redis_server as rd
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import File, Host, ServerError
from ansible_collections.windfarm.airflow.plugins.modules import redis_server as module

PARAMS: dict[str, Any] = {
    "listen_addresses": ["127.0.0.1"],
    "port": 6379,
    "admin_user": "admin",
    "password": "secret",
    "previous_passwords": [],
    "users": [],
    "tls_certificate": "",
    "tls_key": "",
    "sandbox": True,
    "maxmemory": "1mb",
    "appendfsync": "everysec",
    "config": {},
    "start_timeout": 1,
    "hold": False,
    "upgrade": False,
    "restart": False,
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
        if words[:2] == ("CONFIG", "SET") and len(words) > 4:
            if "bad" in words:
                raise rd.RedisError("ERR CONFIG SET failed (possibly related to argument 'tls-cert-file') - Unable to update TLS")
            if "busy" in words:
                raise rd.RedisError("ERR CONFIG SET failed - Unable to listen on this port. Check server logs.")
            self.parameters_.update(zip(words[2::2], words[3::2]))
            return "OK"
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


def test_the_wish_has_the_users_values_over_ours() -> None:
    wish = server(config={"tcp-keepalive": 30, "hz": 20}).wanted({})
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
        server(password=password)


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


# Port and TLS

PLAIN = {"port": "6379", "tls-port": "0", "tls-cert-file": "", "tls-key-file": "", "tls-auth-clients": "yes", "tls-protocols": ""}


def with_tls(redis: Redis | None = None, **options: Any) -> module.Server:
    one = server(redis, **options)
    one.certificate = File(module.CERTIFICATE.format("0123"), "text", 0o600)
    return one


def test_one_port_is_closed_before_the_other_opens_under_its_number() -> None:
    redis = Redis(dict(PLAIN))
    one = with_tls(redis)
    one.enter(one.wanted({}), dict(PLAIN))
    assert redis.calls[0][:6] == ("CONFIG", "SET", "port", "0", "tls-port", "6379")
    assert redis.parameters_["tls-cert-file"] == redis.parameters_["tls-key-file"] == "/etc/redis/tls-0123.pem"
    assert redis.parameters_["tls-auth-clients"] == "no"
    plain = server(redis)
    plain.enter(plain.wanted({}), dict(redis.parameters_))
    assert redis.calls[1][:6] == ("CONFIG", "SET", "tls-port", "0", "port", "6379")
    assert len(redis.calls) == 2
    plain.enter(plain.wanted({}), dict(redis.parameters_))
    assert len(redis.calls) == 2


@pytest.mark.parametrize(("word", "variable"), [("bad", "redis_tls_certificate"), ("busy", "redis_port")])
def test_a_refused_entrance_names_the_variable(word: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = with_tls(Redis(dict(PLAIN)))
    monkeypatch.setattr(one, "log_line", lambda: "why")
    wish = {**one.wanted({}), "tls-key-file": word}
    with pytest.raises(ServerError, match=rf"^{variable}: .*its log says: why"):
        one.enter(wish, dict(PLAIN))


def test_check_mode_opens_nothing() -> None:
    redis = Redis(dict(PLAIN))
    one = with_tls(redis, check=True)
    one.enter(one.wanted({}), dict(PLAIN))
    assert redis.calls == []
    assert "set port from 6379 to 0" in one.host.actions


def test_the_file_has_hashes_and_no_password() -> None:
    users = [{"name": "airflow", "passwords": ["one", "two"], "rules": ["~* &*", "-@all", "+llen"]}]
    one = with_tls(users=users)
    text = one.conf(one.wanted({})).text
    lines = text.splitlines()
    assert lines[-3] == "user default off"
    assert lines[-2] == f"user admin on #{rd.password_hash('secret')} ~* &* +@all"
    assert lines[-1] == f"user airflow on #{rd.password_hash('one')} #{rd.password_hash('two')} ~* &* -@all +llen"
    assert {"port 0", "tls-port 6379", 'tls-protocols "TLSv1.2 TLSv1.3"'} <= set(lines)
    assert "requirepass" not in text
    assert "secret" not in text
    plain = server()
    assert "tls" not in plain.conf(plain.wanted({})).text


def test_both_files_of_a_certificate_or_none() -> None:
    with pytest.raises(ServerError, match="go together"):
        server(tls_certificate="/a").read_certificate()
    one = server(check=True, tls_certificate="/no/a", tls_key="/no/b")
    one.read_certificate()
    assert one.certificate
    with pytest.raises(ServerError, match="redis_tls_certificate: /no/a does not exist"):
        server(tls_certificate="/no/a", tls_key="/no/b").read_certificate()


def test_certificates_that_were_replaced_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CERTIFICATE", str(tmp_path / "tls-{}.pem"))
    for name in ("tls-0123.pem", "tls-4567.pem", "redis.conf"):
        (tmp_path / name).touch()
    one = with_tls()
    one.drop_certificates()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["redis.conf", "tls-0123.pem"]
    one.drop_certificates()
    assert len(one.host.actions) == 1


# Accounts


class Accounts:
    """Redis' accounts, as far as the module asks for them."""

    def __init__(self, accounts: dict[str, list[str]]) -> None:
        self.accounts = accounts
        self.calls: list[tuple[str, ...]] = []

    def call(self, *words: str) -> Any:
        if words == ("ACL", "USERS"):
            return list(self.accounts)
        self.calls.append(words)
        return "OK"

    def transaction(self, *commands: tuple[str, ...]) -> list[Any]:
        self.calls.append(("MULTI", *(" ".join(words) for words in commands)))
        return ["OK"] * len(commands)

    def account(self, name: str) -> dict[str, Any] | None:
        return self.as_account(self.accounts[name]) if name in self.accounts else None

    def as_account(self, modifiers: Any) -> dict[str, Any]:
        if "+nosuch" in modifiers:
            raise rd.RedisError("ERR Error in ACL SETUSER modifier '+nosuch': Unknown command or category name in ACL")
        return {"commands": list(modifiers)}


ADMIN = ["on", f"#{rd.password_hash('secret')}", "~*", "&*", "+@all"]


def test_accounts_are_set_by_the_administrator_and_the_default_one_goes_last() -> None:
    redis = Accounts({"default": ["on", "nopass"], "old": []})
    one = server(redis, users=[{"name": "new", "passwords": ["x"], "rules": ["+get"]}])  # type: ignore[arg-type]
    one.settle_accounts(one.account_changes(), {"requirepass": "old"})
    short = [" ".join(words[:3]) for words in redis.calls]
    assert short[:-1] == ["ACL SETUSER admin", "ACL SETUSER new", "AUTH admin secret", "ACL DELUSER old"]
    assert redis.calls[-1] == ("MULTI", "CONFIG SET requirepass ", "ACL SETUSER default reset", "CLIENT KILL USER default")
    assert one.host.actions == [
        "set account admin (new)", "set account new (new)", "remove account old", "switch account default off",
    ]  # fmt: skip


def test_what_is_there_is_left_alone() -> None:
    redis = Accounts({"default": [], "admin": ADMIN})
    one = server(redis)  # type: ignore[arg-type]
    one.settle_accounts(one.account_changes(), {"requirepass": ""})
    assert redis.calls == [("AUTH", "admin", "secret")]
    assert one.host.actions == []


def test_check_mode_sets_no_account() -> None:
    redis = Accounts({"default": ["on"], "other": []})
    one = server(redis, check=True)  # type: ignore[arg-type]
    one.settle_accounts(one.account_changes(), {})
    assert redis.calls == []
    assert one.host.actions == ["set account admin (new)", "remove account other", "switch account default off"]


def test_a_rule_that_redis_does_not_know_is_named() -> None:
    one = server(Accounts({}), users=[{"name": "a", "passwords": ["x"], "rules": ["+nosuch"]}])  # type: ignore[arg-type]
    with pytest.raises(ServerError, match=r"^redis_users: account 'a': .*'\+nosuch': Unknown command"):
        one.account_changes()


class Door:
    """A server with accounts; without any it has one password for everybody, or none."""

    def __init__(self, password: str, account: str = "") -> None:
        self.password = password
        self.account = account
        self.inside = not password
        self.tried: list[tuple[str, ...]] = []

    def call(self, *words: str) -> str:
        if words[0] == "AUTH":
            self.tried.append(words[1:])
            if not self.password:
                raise rd.RedisError("ERR AUTH <password> called without any password configured for the default user.")
            self.inside = words[1:] == ((self.account, self.password) if self.account else (self.password,))
            if not self.inside:
                raise rd.RedisError("WRONGPASS invalid username-password pair")
        elif not self.inside:
            raise rd.RedisError("NOAUTH Authentication required.")
        return "OK"


USER = {"name": "airflow", "passwords": ["of a client"], "rules": []}
FILE = "requirepass 'of the file'\nuser boss on\n"


@pytest.mark.parametrize(
    "door",
    [
        Door("secret", "admin"), Door("before", "admin"), Door("secret", "boss"),
        Door("secret"), Door("of the file"), Door("of a client"), Door(""),
    ],
)  # fmt: skip
def test_any_known_password_opens_the_server(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_text", lambda _path: FILE)
    assert server(previous_passwords=["before"], users=[USER])._log_in(door)  # type: ignore[arg-type]


def test_the_wanted_password_is_tried_first_and_an_unknown_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_text", lambda _path: FILE)
    door = Door("other")
    assert not server(users=[USER])._log_in(door)  # type: ignore[arg-type]
    assert door.tried[0] == ("admin", "secret")
    # A client's password is nobody's account.
    assert ("airflow", "of a client") not in door.tried
