# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Role redis alone: what it leaves behind, and that no message is lost on the way."""

from __future__ import annotations

import pytest
from inventory import Inventory
from server import Role, hosts, until

MESSAGES = 3000


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = hosts(metafunc.config.getoption("--inventory"), "redis")
        metafunc.parametrize("name", names, scope="module")


class Redis(Role):
    @property
    def password(self) -> str:
        return str(self.variables["redis_password"])

    def cli(self, *words: str, password: str | None = None, address: str = "127.0.0.1") -> str:
        command = " ".join(f"'{word}'" for word in words)
        return self.shell(
            f"IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; exec redis-cli --no-auth-warning -h {address} {command}",
            stdin=(self.password if password is None else password) + "\n",
            check=False,
        )

    def pid(self) -> str:
        return self.shell("systemctl show -p MainPID --value redis-server")

    def fill(self, password: str = "") -> None:
        """The queue holds MESSAGES messages."""
        script = (
            "IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; "
            f"seq -f 'LPUSH queue %g' {MESSAGES} | redis-cli --no-auth-warning >/dev/null"
        )
        self.shell(script, stdin=password + "\n")
        assert self.length(password) == MESSAGES

    def length(self, password: str | None = None) -> int:
        return int(self.cli("LLEN", "queue", password=password))

    def crash(self) -> None:
        """kill -9, then systemd starts it again."""
        before = self.pid()
        self.shell("systemctl kill -s KILL redis-server")
        until(lambda: self.pid() not in ("0", before), 30, "redis-server is started again")
        until(lambda: "PONG" in self.cli("PING") or "PONG" in self.cli("PING", password=""), 30, "redis-server answers")

    def as_debian_ships_it(self) -> None:
        """Empty, with the package's own configuration: no append-only file, no password."""
        self.shell("systemctl stop redis-server; rm -rf /var/lib/redis/* /etc/redis/redis.conf")
        self.shell(
            "apt-get install -q -y --reinstall -o Dpkg::Options::=--force-confmiss redis-server >/dev/null 2>&1; "
            "systemctl restart redis-server"
        )
        assert self.cli("CONFIG", "GET", "appendonly", password="").split() == ["appendonly", "no"]


@pytest.fixture(scope="module")
def redis(inventory: Inventory, name: str) -> Redis:
    return Redis(inventory, "redis", name)


@pytest.fixture
def stock(redis: Redis) -> Redis:
    """Debian's Redis with a queue that only memory holds."""
    redis.as_debian_ships_it()
    redis.fill()
    return redis


def test_runs_and_listens_where_it_should(redis: Redis) -> None:
    assert redis.shell("systemctl is-active redis-server; systemctl is-enabled redis-server").split() == [
        "active",
        "enabled",
    ]
    listening = redis.shell("ss -Hltn 'sport = :6379' | awk '{print $4}'").split()
    assert sorted(listening) == sorted(["127.0.0.1:6379", f"{redis.inventory.get(redis.host, 'ansible_host')}:6379"])
    assert redis.shell("stat -c '%a %U %G' /etc/redis/redis.conf") == "640 redis redis"


def test_only_the_password_opens_it(redis: Redis) -> None:
    assert "NOAUTH" in redis.cli("PING", password="")
    assert redis.cli("PING") == "PONG"
    address = str(redis.inventory.get(redis.host, "ansible_host"))
    assert redis.cli("PING", address=address) == "PONG"
    assert "PONG" not in redis.cli("PING", password="wrong", address=address)


def test_keeps_everything_and_evicts_nothing(redis: Redis) -> None:
    assert redis.cli("CONFIG", "GET", "appendonly").split()[1] == "yes"
    assert redis.cli("CONFIG", "GET", "maxmemory-policy").split()[1] == "noeviction"
    assert redis.cli("CONFIG", "GET", "maxmemory").split()[1] == str(256 * 1024**2)


def test_the_naive_way_loses_the_queue(stock: Redis) -> None:
    """The control: without it the next tests could not fail."""
    stock.shell("sed -i 's/^appendonly no/appendonly yes/' /etc/redis/redis.conf; systemctl restart redis-server")
    assert stock.length(password="") == 0


def test_a_stock_server_keeps_its_queue_through_the_role_and_a_crash(stock: Redis) -> None:
    before = stock.pid()
    run = stock.run()
    assert run.changed == 1
    assert not run.restarted
    assert stock.pid() == before
    stock.crash()
    assert stock.length() == MESSAGES
    assert stock.run().changed == 0


def test_a_stopped_server_keeps_its_queue(stock: Redis) -> None:
    stock.shell("systemctl stop redis-server")
    stock.run()
    stock.crash()
    assert stock.length() == MESSAGES
    assert stock.run().changed == 0


def test_an_interrupted_run_is_made_good(stock: Redis) -> None:
    stock.cli("CONFIG", "SET", "appendonly", "yes", password="")
    stock.cli("CONFIG", "SET", "requirepass", stock.password, password="")
    assert stock.run().changed == 1
    stock.crash()
    assert stock.length() == MESSAGES
    assert stock.run().changed == 0


def test_a_refused_value_after_the_switch_loses_nothing(stock: Redis) -> None:
    """The run fails half-way: what it switched on must hold at the next start all the same."""
    run = stock.run(ok=False, redis_config={"maxmemory-policy": "sometimes"})
    assert "redis_config" in run.message
    assert "maxmemory-policy" in run.message
    stock.crash()
    assert stock.length(password="") == MESSAGES
    stock.run()
    assert stock.length() == MESSAGES


def test_the_password_changes_in_the_running_server(redis: Redis) -> None:
    before = redis.pid()
    run = redis.run(redis_password="another pässword \\ \"quoted\" 'twice' $#%")
    assert run.changed == 1
    assert not run.restarted
    assert redis.cli("PING", password="another pässword \\ \"quoted\" 'twice' $#%") == "PONG"
    assert "PONG" not in redis.cli("PING")
    redis.run()
    assert redis.cli("PING") == "PONG"
    assert redis.pid() == before
    redis.crash()
    assert redis.cli("PING") == "PONG"


def test_what_the_running_server_lost_comes_back(redis: Redis) -> None:
    redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert redis.run("--check").changed == 1
    assert redis.cli("CONFIG", "GET", "maxmemory-policy").split()[1] == "allkeys-lru"
    assert redis.run().changed == 1
    assert redis.cli("CONFIG", "GET", "maxmemory-policy").split()[1] == "noeviction"


def test_a_parameter_that_needs_a_restart_gets_one(redis: Redis) -> None:
    redis.cli("DEL", "queue")
    redis.fill(redis.password)
    run = redis.run(redis_config={"databases": 20})
    assert run.restarted
    assert redis.cli("CONFIG", "GET", "databases").split()[1] == "20"
    assert redis.length() == MESSAGES
    again = redis.run(redis_config={"databases": 20})
    assert again.changed == 0
    assert not again.restarted
    assert redis.run().restarted
    assert redis.length() == MESSAGES


def test_a_value_that_only_the_start_refuses_is_taken_back(redis: Redis) -> None:
    before = redis.shell("sha256sum /etc/redis/redis.conf")
    run = redis.run(ok=False, redis_config={"databases": "banana"})
    assert "redis_config" in run.message
    assert "databases" in run.message
    until(lambda: redis.cli("PING") == "PONG", 30, "Redis runs with its previous file")
    assert redis.shell("sha256sum /etc/redis/redis.conf") == before
    assert redis.run().changed == 0


def test_a_file_with_which_redis_cannot_start_is_made_good(redis: Redis) -> None:
    redis.cli("DEL", "queue")
    redis.fill(redis.password)
    redis.shell("echo 'databases banana' >> /etc/redis/redis.conf; systemctl restart redis-server", check=False)
    assert redis.run().changed == 1
    assert redis.length() == MESSAGES
    assert redis.run().changed == 0


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"redis_config": {"maxmemmory": 1}}, "maxmemmory"),
        ({"redis_config": {"requirepass": "x"}}, "redis_password"),
        ({"redis_config": {"dir": "/srv/other"}}, "dir"),
        ({"redis_maxmemory": "lots"}, "redis_maxmemory"),
        ({"redis_listen_addresses": ["192.0.2.7"]}, "192.0.2.7"),
        ({"redis_listen_addresses": ["no-such-name.invalid"]}, "no-such-name.invalid"),
    ],
)
def test_bad_input_is_refused_before_any_change(redis: Redis, variables: dict[str, object], word: str) -> None:
    run = redis.run(ok=False, **variables)
    assert word in run.message
    assert "actions: []" in run.text


def test_the_password_is_in_one_file_only(redis: Redis) -> None:
    plain = redis.password
    run = redis.run("-vvv", "--diff", redis_password=plain + "-1")
    again = redis.run("-vvv", "--diff")
    assert plain not in run.text + again.text
    found = redis.shell(
        "IFS= read -r word; { journalctl -q; cat /var/log/redis/*; } | grep -cF -- \"$word\"; "
        "grep -rlF -- \"$word\" /etc /tmp /var/tmp /run 2>/dev/null; exit 0",
        stdin="p@ss:/?#\n",
    )  # fmt: skip
    assert found == "0"
