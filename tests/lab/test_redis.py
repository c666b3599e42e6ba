# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Role redis alone: what it leaves behind, and that no message is lost on the way."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from inventory import ROOT, Inventory
from server import Role, Run, hosts, until

MESSAGES = 3000
TLS = {"redis_tls_certificate": "/root/redis-test/certificate.pem", "redis_tls_key": "/root/redis-test/key.pem"}
OTHER = "another pässword \\ \"quoted\" 'twice' $#%"
# What systemd-analyze says of the unit; Debian's own has 1.1 too, with files that its group may write.
EXPOSURE = 1.1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = hosts(metafunc.config.getoption("--inventory"), "redis")
        metafunc.parametrize("name", names, scope="module")
    if "first" in metafunc.fixturenames:
        # What does not depend on the version of Redis is tried on one of them.
        names = hosts(metafunc.config.getoption("--inventory"), "redis")[:1]
        metafunc.parametrize("first", names, indirect=True, scope="module")


class Redis(Role):
    @property
    def password(self) -> str:
        return str(self.variables["redis_password"])

    @property
    def address(self) -> str:
        return str(self.inventory.get(self.host, "ansible_host"))

    @property
    def clients(self) -> list[str]:
        return [str(one) for one in self.variables["redis_users"][0]["passwords"]]

    @property
    def rules(self) -> list[str]:
        return ["~*", "&*", "-@all", "+@connection", "+@list"]

    def users(self, *passwords: str, rules: list[str] | None = None) -> list[dict[str, object]]:
        return [{"name": "airflow", "passwords": list(passwords or self.clients), "rules": rules or self.rules}]

    def cli(
        self, *words: str, password: str | None = None, user: str = "admin", address: str = "127.0.0.1", tls: bool = False
    ) -> str:
        """As the administrator, or with an empty password as anybody; `user` empty is a password without a name."""
        command = " ".join(f"'{word}'" for word in words)
        login = f"--user {user}" if user and password != "" else ""
        login += " --tls --insecure" if tls else ""
        return self.shell(
            f"IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; exec redis-cli --no-auth-warning {login} -h {address} {command}",
            stdin=(self.password if password is None else password) + "\n",
            check=False,
        )

    def client(self, *words: str, password: str | None = None, tls: bool = False) -> str:
        return self.cli(*words, user="airflow", password=self.clients[0] if password is None else password, tls=tls)

    def make_certificate(self, name: str) -> str:
        """A new pair where the role looks for it; returns the certificate."""
        return self.shell(
            "mkdir -p /root/redis-test && cd /root/redis-test && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
            f"-nodes -keyout key.pem -out certificate.pem -days 30 -subj /CN={name} "
            f"-addext subjectAltName=IP:{self.address} 2>/dev/null && cat certificate.pem"
        )

    def served(self) -> str:
        return self.shell(
            "openssl s_client -connect 127.0.0.1:6379 </dev/null 2>/dev/null | openssl x509 -noout -subject -nameopt multiline"
        ).rsplit(" ", 1)[-1]

    def hold(self, *login: str) -> None:
        """A connection that stays open, logged in as somebody; what it says later is in /run/held."""
        words = "\n".join(login)
        self.shell(f"cat > /run/hold.py <<'EOF'\n{HOLD}\nEOF")
        self.shell("rm -f /run/held /run/go; cat > /run/login; setsid python3 /run/hold.py >/dev/null 2>&1 &", stdin=words)
        until(lambda: self.shell("cat /run/held", check=False) == "+OK", 30, "the connection is open")

    def held(self) -> str:
        """What the held connection gets to hear when it is used now."""
        self.shell("touch /run/go")
        until(lambda: self.shell("cat /run/held") != "+OK", 30, "the connection was used")
        return self.shell("cat /run/held")

    @staticmethod
    def hash(password: str) -> str:
        return hashlib.sha256(password.encode()).hexdigest()

    def pid(self) -> str:
        return self.shell("systemctl show -p MainPID --value redis-server")

    def fill(self, password: str = "") -> None:
        """The queue holds MESSAGES messages."""
        login = "--user admin" if password else ""
        script = (
            "IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; "
            f"seq -f 'LPUSH queue %g' {MESSAGES} | redis-cli --no-auth-warning {login} >/dev/null"
        )
        self.shell(script, stdin=password + "\n")
        assert self.length(password) == MESSAGES

    def length(self, password: str | None = None, tls: bool = False) -> int:
        return int(self.cli("LLEN", "queue", password=password, tls=tls))

    def crash(self) -> None:
        """kill -9, then systemd starts it again."""
        before = self.pid()
        self.shell("systemctl kill -s KILL redis-server")
        until(lambda: self.pid() not in ("0", before), 30, "redis-server is started again")
        until(self.ready, 30, "redis-server has loaded its data")

    def ready(self) -> bool:
        """Redis tells systemd when it has loaded its data."""
        return self.shell("systemctl show -P ActiveState redis-server") == "active"

    def as_debian_ships_it(self) -> None:
        """Empty, with the package's own configuration: no append-only file, no password."""
        self.shell(
            "test -e /root/debian.conf || { rm -f /etc/redis/redis.conf; apt-get install -q -y --reinstall "
            "-o Dpkg::Options::=--force-confmiss redis-server >/dev/null 2>&1; cp -p /etc/redis/redis.conf /root/debian.conf; }; "
            "systemctl stop redis-server; rm -rf /var/lib/redis/* /etc/redis/*; "
            "cp -p /root/debian.conf /etc/redis/redis.conf; systemctl start redis-server"
        )
        assert self.cli("CONFIG", "GET", "appendonly", password="").split() == ["appendonly", "no"]


HOLD = r"""import os, socket, sys, time
words = open("/run/login").read().split(chr(10))
connection = socket.create_connection(("127.0.0.1", 6379))
def say(*words):
    parts = [word.encode() for word in words]
    connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in parts))
    try:
        return connection.recv(4096).decode().strip() or "closed"
    except OSError:
        return "closed"
def tell(text):
    open("/run/held.new", "w").write(text)
    os.rename("/run/held.new", "/run/held")
tell(say("AUTH", *words))
while not os.path.exists("/run/go"):
    time.sleep(0.1)
try:
    tell(say("LLEN", "queue"))
except OSError:
    tell("closed")
"""


@pytest.fixture(scope="module")
def redis(inventory: Inventory, name: str) -> Redis:
    return Redis(inventory, "redis", name)


@pytest.fixture(scope="module")
def first(inventory: Inventory, request: pytest.FixtureRequest) -> Redis:
    return Redis(inventory, "redis", request.param)


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
    assert sorted(listening) == sorted(["127.0.0.1:6379", f"{redis.address}:6379"])
    assert redis.shell("stat -c '%a %U %G' /etc/redis/redis.conf") == "640 redis redis"


def test_only_accounts_open_it(redis: Redis) -> None:
    assert "NOAUTH" in redis.cli("PING", password="")
    assert redis.cli("PING") == "PONG"
    assert redis.cli("PING", address=redis.address) == "PONG"
    assert redis.client("PING") == "PONG"
    for user in ("", "default", "admin", "airflow", "nobody"):
        assert "PONG" not in redis.cli("PING", user=user, password="wrong", address=redis.address)
    for password in (redis.password, redis.clients[0]):
        assert "NOAUTH" in redis.cli("PING", user="", password=password)
    assert redis.cli("ACL", "USERS").split() == ["admin", "airflow", "default"]
    assert "off" in redis.cli("ACL", "GETUSER", "default").split()


REFUSED = (
    "FLUSHALL;FLUSHDB;KEYS queue;EVAL 1 0;SCRIPT FLUSH;SHUTDOWN NOSAVE;DEBUG OBJECT queue;MODULE LIST;CONFIG GET save;ACL LIST;"
    "ACL WHOAMI;CLIENT KILL TYPE normal;CLIENT LIST;CLIENT PAUSE 1;MONITOR;SLOWLOG GET;REPLICAOF NO ONE;SAVE;BGREWRITEAOF;"
    "SORT queue;MIGRATE h 1 k 0 1;RESTORE k 0 v;OBJECT FREQ k;SWAPDB 0 1;FUNCTION LIST;LATENCY RESET;SCAN 0"
)


def test_the_brokers_account_can_do_nothing_else(redis: Redis) -> None:
    script = (
        "IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; "
        'while read -r line; do echo "$line: $(redis-cli --no-auth-warning --user airflow $line </dev/null | head -1)"; done'
    )
    commands = REFUSED.split(";")
    answers = redis.shell(script, stdin="\n".join([redis.clients[0], *commands, ""])).splitlines()
    assert len(answers) == len(commands)
    # DEBUG is closed to everybody, before anybody's rights are looked at.
    assert [one for one in answers if "NOPERM" not in one and "DEBUG command not allowed" not in one] == []


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
    stock.cli("ACL", "SETUSER", "admin", "on", "#" + stock.hash(stock.password), "~*", "&*", "+@all", password="")
    stock.cli("ACL", "SETUSER", "default", "reset", password="")
    run = stock.run()
    assert run.changed == 1
    assert not run.restarted
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


@pytest.fixture
def release_010(stock: Redis) -> Redis:
    """As 0.1.0 of this collection left it: one password for everybody, in the file in plain."""
    stock.cli("CONFIG", "SET", "appendonly", "yes", password="")
    until(lambda: "aof_rewrite_in_progress:0" in stock.cli("INFO", "persistence", password=""), 60, "the file is written")
    stock.shell(
        "IFS= read -r word; sed -i '/^appendonly /d' /etc/redis/redis.conf; "
        "printf 'appendonly yes\\nrequirepass %s\\n' \"$word\" >> /etc/redis/redis.conf; systemctl restart redis-server",
        stdin="the-old-password\n",
    )
    assert stock.cli("LLEN", "queue", user="", password="the-old-password") == str(MESSAGES)
    return stock


def assert_migrated(redis: Redis, run: Run, before: str) -> None:
    assert run.changed == 1
    assert not run.restarted
    assert redis.pid() == before
    for _again in range(2):
        assert redis.length() == MESSAGES
        assert redis.client("LLEN", "queue") == str(MESSAGES)
        assert "NOAUTH" in redis.cli("PING", user="", password="the-old-password")
        assert redis.cli("CONFIG", "GET", "requirepass").split() == ["requirepass"]
        assert redis.run().changed == 0
        redis.crash()


@pytest.mark.long
def test_a_server_with_one_password_is_taken_over_live(release_010: Redis) -> None:
    before = release_010.pid()
    release_010.hold("the-old-password")
    run = release_010.run()
    assert release_010.held() == "closed"
    assert_migrated(release_010, run, before)


@pytest.mark.long
def test_a_run_killed_before_it_wrote_the_file_is_made_good(release_010: Redis) -> None:
    before = release_010.pid()
    release_010.shell("cp -p /etc/redis/redis.conf /root/redis.conf")
    release_010.run()
    release_010.shell("cp -p /root/redis.conf /etc/redis/redis.conf")
    assert_migrated(release_010, release_010.run(), before)


@pytest.mark.long
def test_a_run_killed_before_it_set_the_accounts_is_made_good(release_010: Redis) -> None:
    before = release_010.pid()
    release_010.cli("CONFIG", "SET", "appendonly", "yes", user="", password="the-old-password")
    assert_migrated(release_010, release_010.run(), before)


def test_a_new_file_and_an_old_server(release_010: Redis) -> None:
    """The old password is nowhere any more but among those of the accounts."""
    users = release_010.users("the-old-password")
    before = release_010.pid()
    release_010.shell("cp -p /etc/redis/redis.conf /root/redis.conf")
    release_010.run(redis_users=users)
    release_010.shell("cp -p /etc/redis/redis.conf /root/new.conf; cp -p /root/redis.conf /etc/redis/redis.conf")
    release_010.shell("systemctl restart redis-server; cp -p /root/new.conf /etc/redis/redis.conf")
    assert release_010.pid() != before
    run = release_010.run(redis_users=users)
    assert not run.restarted
    assert release_010.run(redis_users=users).changed == 0
    assert release_010.length() == MESSAGES
    release_010.run()


def test_a_server_that_no_password_opens_is_restarted_with_its_queue(release_010: Redis) -> None:
    release_010.shell("sed -i '/^requirepass/d' /etc/redis/redis.conf")
    assert "no password" not in release_010.run("--check").message
    run = release_010.run()
    assert run.restarted
    assert release_010.length() == MESSAGES
    assert release_010.run().changed == 0


def test_an_account_list_in_another_file_is_refused(stock: Redis) -> None:
    stock.shell("cp -p /etc/redis/redis.conf /root/redis.conf; install -o redis -m 640 /dev/null /etc/redis/users.acl")
    stock.shell("echo 'aclfile /etc/redis/users.acl' >> /etc/redis/redis.conf; systemctl restart redis-server")
    assert "redis_users" in stock.run(ok=False).message
    stock.shell("rm /etc/redis/users.acl; cp -p /root/redis.conf /etc/redis/redis.conf; systemctl restart redis-server")
    stock.run()


def test_the_administrators_password_changes_in_the_running_server(redis: Redis) -> None:
    before = redis.pid()
    run = redis.run(redis_password=OTHER, redis_previous_passwords=["older", redis.password])
    assert run.changed == 1
    assert not run.restarted
    assert redis.cli("PING", password=OTHER) == "PONG"
    assert "PONG" not in redis.cli("PING")
    redis.run(redis_previous_passwords=[OTHER])
    assert redis.cli("PING") == "PONG"
    assert redis.pid() == before
    redis.crash()
    assert redis.cli("PING") == "PONG"


def test_a_forgotten_administrators_password_costs_a_restart_but_no_message(redis: Redis) -> None:
    redis.cli("DEL", "queue")
    redis.fill(redis.password)
    run = redis.run(redis_password=OTHER)
    assert run.restarted
    assert redis.length(OTHER) == MESSAGES
    assert redis.run(redis_previous_passwords=[OTHER]).changed == 1
    assert redis.length() == MESSAGES


def test_a_second_password_opens_too_and_the_first_goes_later(redis: Redis) -> None:
    before = redis.pid()
    old, new = redis.clients[0], OTHER
    redis.hold("airflow", old)
    run = redis.run(redis_users=redis.users(old, new))
    assert run.changed == 1
    assert [redis.client("PING", password=one) for one in (old, new)] == ["PONG", "PONG"]
    assert redis.run(redis_users=redis.users(new, old)).text.count("set account") == 0
    redis.run(redis_users=redis.users(new))
    assert "PONG" not in redis.client("PING", password=old)
    assert redis.client("PING", password=new) == "PONG"
    # As the README says: what is open stays open.
    assert redis.held().startswith(":")
    redis.run()
    assert redis.pid() == before


def test_accounts_of_others_go_live_and_from_the_file(redis: Redis) -> None:
    before = redis.pid()
    extra = [*redis.users(), {"name": "report", "passwords": ["report-password"], "rules": ["~queue", "+llen (+get ~x)"]}]
    redis.run(redis_users=extra)
    assert redis.run(redis_users=extra).changed == 0
    assert redis.cli("LLEN", "queue", user="report", password="report-password").isdigit()
    redis.hold("report", "report-password")
    redis.cli("ACL", "SETUSER", "foreign", "on", "nopass", "~*", "+@all")
    redis.shell("echo 'user intruder on nopass ~* +@all' >> /etc/redis/redis.conf")
    assert redis.run().changed == 1
    assert redis.held() == "closed"
    assert redis.cli("ACL", "USERS").split() == ["admin", "airflow", "default"]
    assert redis.shell("grep -c '^user ' /etc/redis/redis.conf") == "3"
    assert redis.pid() == before


def test_rules_change_in_the_running_server(redis: Redis) -> None:
    before = redis.pid()
    assert redis.run("--check", redis_users=redis.users()).changed == 1
    assert "OK" in redis.client("SET", "key", "1")
    redis.run(redis_users=redis.users())
    assert "NOPERM" in redis.client("SET", "key", "1")
    redis.cli("ACL", "SETUSER", "airflow", "+flushall")
    run = redis.run(redis_users=redis.users())
    assert "set account airflow (commands)" in run.text
    assert "NOPERM" in redis.client("FLUSHALL")
    redis.cli("ACL", "SETUSER", "default", "on", "nopass", "~*", "+@all")
    assert redis.run().changed == 1
    assert "NOAUTH" in redis.cli("PING", password="")
    assert redis.pid() == before


def test_tls_is_switched_on_renewed_and_off_in_the_running_server(redis: Redis) -> None:
    redis.cli("DEL", "queue")
    redis.fill(redis.password)
    before = redis.pid()
    redis.make_certificate("first")
    run = redis.run("--diff", **TLS)
    assert "PRIVATE KEY" not in run.text
    assert redis.run(**TLS).changed == 0
    assert redis.served() == "first"
    assert redis.length(tls=True) == MESSAGES
    assert "PONG" not in redis.cli("PING")
    for version in ("-tls1", "-tls1_1"):
        assert "BEGIN" not in redis.shell(f"openssl s_client -connect 127.0.0.1:6379 {version} </dev/null 2>&1", check=False)
    redis.make_certificate("second")
    assert redis.run("--check", **TLS).changed == 1
    assert redis.served() == "first"
    redis.run(**TLS)
    assert redis.served() == "second"
    assert redis.shell("stat -c '%a %U %G' /etc/redis/tls-*.pem") == "600 redis redis"
    redis.crash()
    assert redis.served() == "second"
    assert redis.length(tls=True) == MESSAGES
    # With another port at the same time, and back.
    redis.run(**TLS, redis_port=6390)
    redis.run(**TLS)
    after = redis.pid()
    redis.run()
    assert redis.length() == MESSAGES
    assert redis.shell("ls /etc/redis") == "redis.conf"
    assert redis.run().changed == 0
    assert redis.pid() == after != before


def test_an_interrupted_switch_to_tls_is_made_good(redis: Redis) -> None:
    redis.make_certificate("third")
    redis.shell("cp -p /etc/redis/redis.conf /root/plain.conf")
    redis.run(**TLS)
    before = redis.pid()
    # Live, but not written down: of the second certificate neither the file nor the server knows.
    redis.shell("cp -p /etc/redis/redis.conf /root/tls.conf; cp -p /root/plain.conf /etc/redis/redis.conf")
    assert redis.run(**TLS).changed == 1
    assert redis.pid() == before
    # Written down, but not live.
    redis.run()
    redis.shell("cp -p /root/tls.conf /etc/redis/redis.conf")
    assert redis.run(**TLS).changed == 1
    assert redis.served() == "third"
    assert redis.pid() == before
    # Between closing one port and opening the other.
    redis.cli("CONFIG", "SET", "tls-port", "0", tls=True)
    assert redis.run(**TLS).restarted
    assert redis.length(tls=True) == MESSAGES
    redis.run()


def test_certificates_that_do_not_fit_are_refused_before_any_change(redis: Redis) -> None:
    redis.make_certificate("fourth")
    redis.shell("cp /root/redis-test/key.pem /root/redis-test/old.pem")
    redis.make_certificate("fifth")
    cases = {
        "is not the key of": {**TLS, "redis_tls_key": "/root/redis-test/old.pem"},
        "redis_tls_certificate: /root/no.pem does not exist": {**TLS, "redis_tls_certificate": "/root/no.pem"},
        "go together": {**TLS, "redis_tls_key": ""},
        "cannot be used": {"redis_tls_certificate": "/etc/hostname", "redis_tls_key": "/etc/hostname"},
    }
    for text, variables in cases.items():
        run = redis.run(ok=False, **variables)
        assert text in run.message
        assert "actions: []" in run.text
    missing = {"redis_tls_certificate": "/root/no.pem", "redis_tls_key": "/root/no.key"}
    assert "does not exist" in redis.run(ok=False, **missing).message
    assert redis.run("--check", "--diff", **missing).changed == 1


def test_the_unit_is_confined_and_works(redis: Redis) -> None:
    redis.shell("systemctl restart redis-server")
    until(redis.ready, 30, "redis-server runs")
    line = redis.shell("systemd-analyze security --no-pager redis-server | tail -1")
    print(line)
    assert float(line.split(": ")[1].split()[0]) <= EXPOSURE
    assert "Read-only" in redis.cli("CONFIG", "REWRITE")
    for command, state in (("BGSAVE", "rdb_last_bgsave_status:ok"), ("BGREWRITEAOF", "aof_last_bgrewrite_status:ok")):
        redis.cli(command)
        until(lambda: "in_progress:1" not in redis.cli("INFO", "persistence"), 60, f"{command} ends")
        assert state in redis.cli("INFO", "persistence")
    assert redis.length() == MESSAGES
    redis.crash()
    assert redis.length() == MESSAGES
    assert redis.shell("stat -c %a /var/lib/redis/dump.rdb") == "600"
    assert redis.run(redis_sandbox=False).changed == 1
    assert "UMask=0077" not in redis.shell("systemctl cat redis-server")
    assert not redis.run().restarted


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
        ({"redis_config": {"tls-port": 1}}, "redis_tls_certificate"),
        ({"redis_config": {"user": "x on"}}, "redis_users"),
        ({"redis_users": [{"name": "default", "passwords": ["long-enough"], "rules": ["+@all"]}]}, "default"),
        ({"redis_users": [{"name": "one", "passwords": [], "rules": ["+@all"]}]}, "'one' needs passwords"),
        ({"redis_users": [{"name": "one", "passwords": ["long-enough"], "rules": ["+no-such-command"]}]}, "+no-such-command"),
        ({"redis_admin_user": "airflow"}, "redis_admin_user"),
        ({"redis_config": {"dir": "/srv/other"}}, "dir"),
        ({"redis_maxmemory": "lots"}, "redis_maxmemory"),
        ({"redis_listen_addresses": ["192.0.2.7"]}, "192.0.2.7"),
        ({"redis_listen_addresses": ["no-such-name.invalid"]}, "no-such-name.invalid"),
    ],
)
def test_bad_input_is_refused_before_any_change(first: Redis, variables: dict[str, object], word: str) -> None:
    run = first.run(ok=False, **variables)
    assert word in run.message
    assert "actions: []" in run.text


def test_passwords_are_nowhere(redis: Redis) -> None:
    users = redis.users("cl'ient\"secret-0", "second-secret-0")
    plain = "pl@in:/?#secret-0"
    runs = [
        redis.run("-vvv", "--diff", redis_password=plain, redis_previous_passwords=[redis.password], redis_users=users),
        redis.run("-vvv", "--diff", redis_previous_passwords=[plain]),
    ]
    for run in runs:
        for word in (plain, "secret-0", redis.password, redis.clients[0], redis.hash(plain), redis.hash(redis.password)):
            assert word not in run.text
    found = redis.shell(
        "{ journalctl -q; cat /var/log/redis/*; } | grep -cF -- secret-0; "
        "grep -rlF -e secret-0 -e 'p@ss:/?#' -e 'br@ker:/?#' /etc /tmp /var/tmp /run /var/lib/redis 2>/dev/null; exit 0",
    )
    assert found == "0"


@pytest.fixture(scope="module")
def celery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the versions of Celery, Kombu and redis-py that the newest lock has."""
    folder = tmp_path_factory.mktemp("celery")
    lock = sorted((ROOT / "roles" / "airflow" / "files" / "locks").glob("airflow-*-py3.11.txt"))[-1]
    pins = [line.split(" ")[0] for line in lock.read_text(encoding="utf-8").splitlines() if line[:1].isalnum() and "==" in line]
    (folder / "pins.txt").write_text("\n".join(pins), encoding="utf-8")
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [uv, "pip", "install", "-q", "--python", str(python), "-c", str(folder / "pins.txt"), "celery", "redis"]
    subprocess.run(install, check=True)
    return python


def test_celery_needs_no_more_than_its_rules(redis: Redis, celery: Path, tmp_path: Path) -> None:
    """Workers that work, are told, are killed and get their tasks again: all over TLS, and nothing is refused."""
    authority = tmp_path / "ca.pem"
    authority.write_text(redis.make_certificate("broker"), encoding="utf-8")
    redis.run(**TLS)
    redis.cli("FLUSHALL", tls=True)
    redis.cli("ACL", "LOG", "RESET", tls=True)
    url = f"rediss://airflow:{quote(redis.clients[0], safe='')}@{redis.address}:6379/0"
    environment = {**os.environ, "BROKER": json.dumps({"url": url, "ca": str(authority)})}
    script = str(Path(__file__).with_name("celery_broker.py"))
    done = subprocess.run([str(celery), script], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    print(seen)
    assert seen["tasks"] == 200
    assert all(seen["answers"].values())
    assert (seen["cancelled"], seen["added"], seen["active"]) == ("PENDING", 42, True)
    assert (seen["redelivered"], seen["attempts"]) == ("done", 2)
    assert seen["events"]["task-succeeded"] >= 201
    assert seen["refusals"] == 0
    assert redis.cli("ACL", "LOG", tls=True) == ""
    redis.run()
