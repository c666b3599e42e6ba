# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import datetime
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import redis_server as rd
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError, mask
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ODD = "p@ss:/?#[]%$\"' \\ wörd €"


@pytest.fixture
def answers() -> Iterator[Any]:
    """A server that sends given bytes to whoever connects, and keeps what it got."""
    listener = socket.create_server(("127.0.0.1", 0))
    received: list[bytes] = []

    def serve(data: bytes) -> rd.Connection:
        def once() -> None:
            client, _address = listener.accept()
            with client:
                received.append(client.recv(65536))
                client.sendall(data)

        threading.Thread(target=once, daemon=True).start()
        connection = rd.Connection("127.0.0.1", listener.getsockname()[1], timeout=5)
        connection.received = received  # type: ignore[attr-defined]
        return connection

    yield serve
    listener.close()


# Protocol


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"+OK\r\n", "OK"),
        (b":42\r\n", 42),
        (b"$-1\r\n", None),
        (b"$0\r\n\r\n", ""),
        ("$5\r\n€\r\n\r\n".encode(), "€\r\n"),
        (b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", ["a", [1]]),
        (b"*-1\r\n", None),
    ],
)
def test_answers_are_read(answers: Any, data: bytes, value: Any) -> None:
    connection = answers(data)
    assert connection.call("PING", "ä") == value
    assert connection.received == [b"*2\r\n$4\r\nPING\r\n$2\r\n\xc3\xa4\r\n"]
    connection.close()


def test_an_error_is_raised(answers: Any) -> None:
    with pytest.raises(rd.RedisError, match="ERR no"):
        answers(b"-ERR no\r\n").call("X")


@pytest.mark.parametrize("data", [b"", b"+half", b"HTTP/1.1 400\r\n"])
def test_what_is_not_redis_is_an_error(answers: Any, data: bytes) -> None:
    with pytest.raises(ConnectionError):
        answers(data).call("X")


def test_parameters_and_info(answers: Any) -> None:
    assert answers(b"*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$0\r\n\r\n").parameters() == {"a": "1", "b": ""}
    assert answers(b"$19\r\n# Server\r\npid:1\r\n\r\n\r\n").info("server") == {"pid": "1"}


# The file


@pytest.mark.parametrize("word", ["plain", "", " ", ODD, '"', "\\", "'", "a\nb", "#", "\x00\xff", "x" * 500])
def test_words_survive_quoting(word: str) -> None:
    assert rd.unquote(rd.quote(word)) == [word]
    assert "\n" not in rd.quote(word)


def test_other_quotings_are_read() -> None:
    assert rd.unquote(r"""requirepass "a\"b\x41\n" 'c\'d' e""") == ["requirepass", 'a"bA\n', "c'd", "e"]


def test_a_file_is_written_and_read_back() -> None:
    text = rd.render({
        "bind": "127.0.0.1 ::1", "requirepass": ODD, "notify-keyspace-events": "",
        "client-output-buffer-limit": ["normal 0 0 0", "pubsub 32mb 8mb 60"],
    })  # fmt: skip
    assert text.splitlines()[1] == "bind 127.0.0.1 ::1"
    assert 'notify-keyspace-events ""' in text
    assert ODD not in text
    found = rd.read_parameters("# requirepass no\n\n" + text)
    assert found == {
        "bind": "127.0.0.1 ::1", "requirepass": ODD, "notify-keyspace-events": "",
        "client-output-buffer-limit": "pubsub 32mb 8mb 60",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(rd.RESERVED))
def test_reserved_parameters_are_refused_with_the_cure(name: str) -> None:
    with pytest.raises(ServerError, match=rf"redis_config: '{name}' cannot be set here: .+"):
        rd.user_parameters({name.upper(): "x"})


@pytest.mark.parametrize("config", [{"a b": 1}, {"a": None}, {"a": {"b": 1}}, {"a": "x\ny"}, {"a": ["x", "y\nz"]}])
def test_impossible_parameters_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match=r"^redis_config: "):
        rd.user_parameters(config)


def test_values_become_text() -> None:
    assert rd.user_parameters({"Hz": 10, "lfu": True, "x": ["a", False]}) == {"hz": "10", "lfu": "yes", "x": ["a", "no"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", "0"), ("512mb", str(512 * 1024**2)), ("1G", "1000000000"), ("25%", str(2 * 1024**3)), ("100", "100")],
)
def test_memory(text: str, value: str) -> None:
    assert rd.memory(text, 8 * 1024**3 + 4095) == value


@pytest.mark.parametrize("text", ["", "lots", "-1", "101%", "5 mb", "1tb"])
def test_impossible_memory_is_refused(text: str) -> None:
    with pytest.raises(ServerError, match=r"^redis_maxmemory: "):
        rd.memory(text, 1)


@pytest.mark.parametrize("name", ["tls-port", "TLS-Ciphers"])
def test_parameters_of_tls_are_refused(name: str) -> None:
    with pytest.raises(ServerError, match="redis_tls_certificate"):
        rd.user_parameters({name: "x"})


# Accounts

ADMIN = rd.administrator("admin", "secret")


def user(**values: Any) -> dict[str, Any]:
    return {"name": "airflow", "passwords": ["one"], "rules": ["~*"], **values}


def test_accounts_keep_hashes_of_passwords_and_the_words_of_rules() -> None:
    admin, one = rd.accounts(ADMIN, [user(passwords=[ODD, "b", ODD], rules=["~* &*", "-@all", "+script|load"])])
    assert (admin.name, admin.rules) == ("admin", ("~*", "&*", "+@all"))
    hashes = [hashlib.sha256(word.encode()).hexdigest() for word in (ODD, "b")]
    assert one.line == f"airflow on #{hashes[0]} #{hashes[1]} ~* &* -@all +script|load"
    assert rd.unquote(rd.render({"user": [one.line]}).splitlines()[1]) == ["user", *one.line.split()]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"name": "default"}, "always off"),
        ({"name": "admin"}, "redis_admin_user"),
        ({"name": "two words"}, "cannot be an account"),
        ({"name": ""}, "cannot be an account"),
        ({"passwords": []}, "needs passwords"),
        ({"passwords": ["good", ""]}, "needs passwords"),
        ({"passwords": ["a\nb"]}, "needs passwords"),
        ({"passwords": ["secret"]}, "administrator's password"),
        ({"rules": ["+@all", ">hidden"]}, "go into 'passwords'"),
        ({"rules": ["+@all nopass"]}, "go into 'passwords'"),
        ({"rules": ["OFF"]}, "go into 'passwords'"),
        ({"rules": ["#" + 64 * "a"]}, "go into 'passwords'"),
    ],
)
def test_impossible_accounts_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ServerError, match=r"^redis_users: ") as caught:
        rd.accounts(ADMIN, [user(**values)])
    assert text in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_an_account_twice_is_refused() -> None:
    with pytest.raises(ServerError, match="'airflow' is there twice"):
        rd.accounts(ADMIN, [user(), user()])


@pytest.mark.parametrize("name", ["", "default", "a b", "#x"])
def test_an_impossible_administrator_is_refused(name: str) -> None:
    with pytest.raises(ServerError, match=r"^redis_admin_user: "):
        rd.administrator(name, "secret")


def test_accounts_of_a_file() -> None:
    text = "# user no on\nuser a on\n  USER b off\nuser a on +get\nusername x\n"
    assert rd.account_names(text) == ["a", "b"]
    assert rd.account_names(None) == []


def answer(**values: Any) -> dict[str, Any] | None:
    merged = {"flags": ["on"], "passwords": ["a", "b"], "commands": "-@all +get", **values}
    return rd.described([item for pair in merged.items() for item in pair])


def test_accounts_are_compared_as_redis_tells_them() -> None:
    assert rd.account_differences(answer(), answer(passwords=["b", "a"], flags=["sanitize-payload", "on"])) == ""
    assert rd.account_differences(answer(), answer(commands="-@all", passwords=["a"])) == "commands, passwords"
    assert rd.account_differences(None, answer()) == "new"


def bulk(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)


def test_rules_are_put_into_redis_words_by_an_account_that_nobody_sees(answers: Any) -> None:
    described = bulk("flags", "x", "commands", "-@all").replace(b"$1\r\nx\r\n", bulk("on"))
    connection = answers(
        b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+OK\r\n" + described_with_passwords(described) + b":1\r\n"
    )
    assert connection.as_account(["on"]) == {"flags": ["on"], "commands": "-@all", "passwords": []}
    words = rd.unquote(connection.received[0].decode().replace("\r\n", " "))
    assert [words[2], words[-1]] == ["MULTI", "EXEC"]
    assert "DELUSER" in words


def described_with_passwords(data: bytes) -> bytes:
    return data.replace(b"*4", b"*6", 1) + b"$9\r\npasswords\r\n*0\r\n"


@pytest.mark.parametrize("data", [b"+OK\r\n-ERR first\r\n-EXECABORT all\r\n", b"+OK\r\n+QUEUED\r\n*1\r\n-ERR first\r\n"])
def test_the_first_error_of_a_transaction_is_raised(answers: Any, data: bytes) -> None:
    with pytest.raises(rd.RedisError, match="ERR first"):
        answers(data).transaction(("X",))


# The process


def test_addresses_of_the_kernel() -> None:
    assert rd.socket_address("0100007F:18EB") == ("127.0.0.1", 6379)
    assert rd.socket_address("00000000:18EB") == ("127.0.0.1", 6379)
    assert rd.socket_address("00000000000000000000000001000000:0001") == ("::1", 1)
    assert rd.socket_address("0" * 32 + ":0001") == ("::1", 1)


def test_only_the_process_own_sockets_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine:
        assert ("127.0.0.1", mine.getsockname()[1]) in rd.listening(str(os.getpid()))
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            assert rd.listening(str(other.pid)) == []
    assert rd.listening("0") == []


# The certificate


def pair(folder: Path, name: str) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(paths[0]), str(paths[1])


def test_certificate_and_key_become_one_text(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, "a")
    text = rd.certificate(certificate, key) or ""
    assert text == Path(certificate).read_text() + Path(key).read_text()
    assert rd.certificate(str(tmp_path / "x"), str(tmp_path / "y")) is None


def test_certificates_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, "a")
    other = pair(tmp_path, "b")[1]
    with pytest.raises(ServerError, match=f"^redis_tls_key: {other} is not the key of the certificate {certificate}"):
        rd.certificate(certificate, other)
    with pytest.raises(ServerError, match=r"^redis_tls_key: .*missing does not exist on this host"):
        rd.certificate(certificate, str(tmp_path / "missing"))
    with pytest.raises(ServerError, match=r"^redis_tls_certificate: .* cannot be used"):
        rd.certificate(key, key)
    with pytest.raises(ServerError, match=r"^redis_tls_certificate: .* cannot be read"):
        rd.certificate(str(tmp_path), key)


# Comparison

BUFFERS = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"


@pytest.mark.parametrize(
    ("name", "wanted", "live"),
    [
        ("bind", "127.0.0.1 10.0.0.1", "127.0.0.1 10.0.0.1"),
        ("auto-aof-rewrite-min-size", "64mb", "67108864"),
        ("save", "3600 1 300 100", "3600 1 300 100"),
        ("client-output-buffer-limit", "replica 256mb 64mb 60", BUFFERS),
        ("client-output-buffer-limit", ["normal 0 0 0", "pubsub 32mb 8mb 60"], BUFFERS),
        ("notify-keyspace-events", "KEA", "AKE"),
        ("notify-keyspace-events", "", ""),
        ("requirepass", "1kb  2kb", "1kb  2kb"),
    ],
)
def test_the_same_in_other_words(name: str, wanted: Any, live: str) -> None:
    assert rd.same(name, wanted, live)
    assert list(rd.differences({name: wanted}, {name: live})) == []


@pytest.mark.parametrize(
    ("name", "wanted", "live"),
    [
        ("bind", "127.0.0.1", "127.0.0.1 10.0.0.1"),
        ("auto-aof-rewrite-min-size", "65mb", "67108864"),
        ("client-output-buffer-limit", ["normal 0 0 0", "pubsub 32mb 9mb 60"], BUFFERS),
        ("requirepass", "1024", "1kb"),
        ("requirepass", "a", ""),
        ("logfile", "/a", ""),
    ],
)
def test_a_difference_is_seen(name: str, wanted: Any, live: str) -> None:
    assert list(rd.differences({name: wanted}, {name: live})) == [name]


def test_hashes_of_passwords_are_hidden_in_differences() -> None:
    line = rd.render({"user": [rd.administrator("admin", "x").line]})
    assert mask(line, rd.SECRETS).splitlines()[1] == "user admin on #******** ~* &* +@all"
