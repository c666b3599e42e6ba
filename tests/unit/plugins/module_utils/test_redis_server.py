# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import redis_server as rd
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError

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
