# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tools that attack the lab, where they need no lab: what they overlook, nobody finds."""

from __future__ import annotations

import base64
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "tests" / "lab"
if not LAB.exists():
    pytest.skip("not part of the installed collection", allow_module_level=True)
sys.path[:0] = [str(LAB), str(LAB / "dags")]

import attacks  # noqa: E402
import modes  # noqa: E402
import probe_net  # noqa: E402
import secret_scan  # noqa: E402

NASTY = "p@:/?#[]%$\"' \\üé+x-" + "k" * 12


# --- what a secret looks like ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("after", ["", "z", "yz"])
def test_base64_is_found_however_it_lies(before: str, after: str) -> None:
    found = secret_scan.patterns({"airflow_x": NASTY})
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before.encode() + NASTY.encode() + after.encode()).decode()
        assert any(pattern in text for pattern in found), text


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("plain", f"x={NASTY};"),
        ("URL", f"redis://airflow:{urllib.parse.quote(NASTY, safe='')}@host"),
        ("URL", f"password={urllib.parse.quote_plus(NASTY)}&x"),
        ("JSON", json.dumps({"a": NASTY})),
        ("JSON", json.dumps({"a": NASTY}, ensure_ascii=False)),
        ("JSON", json.dumps(json.dumps({"a": NASTY}))),
        ("YAML", f"a: '{NASTY.replace(chr(39), chr(39) * 2)}'"),
        ("Python", repr({"a": NASTY})),
        ("Python", repr(NASTY.encode())),
        ("hexadecimal", NASTY.encode().hex()),
        ("HTML", NASTY.replace("'", "&#x27;").replace('"', "&quot;")),
    ],
)
def test_a_form_is_found(form: str, text: str) -> None:
    found = {kind for pattern, (_name, kind) in secret_scan.patterns({"airflow_x": NASTY}).items() if pattern in text}
    assert form in found


def test_the_environment_files_form_is_found() -> None:
    from ansible_collections.windfarm.airflow.plugins.module_utils.layout import environment_file

    text = environment_file({"A": NASTY})
    assert any(pattern in text for pattern in secret_scan.patterns({"airflow_x": NASTY}))


def test_of_a_pem_each_secret_line_is_looked_for() -> None:
    lines = ["A" * 64, "B" * 64, "C" * 20]
    pem = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(lines) + "\n-----END PRIVATE KEY-----\n"
    found = secret_scan.patterns({"airflow_ca_key": pem})
    assert "A" * 64 in found and "B" * 64 in found
    assert not any("C" * 9 in pattern for pattern in found), "the last line is the public half"
    assert secret_scan.parts(pem.replace("A" * 64 + "\n" + "B" * 64 + "\n", "")) == ["C" * 20]


def test_of_several_fernet_keys_each_is_looked_for() -> None:
    keys = [base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
    assert set(keys) <= set(secret_scan.patterns({"airflow_fernet_key": ",".join(keys)}))


def test_no_pattern_matches_everything() -> None:
    with pytest.raises(SystemExit, match="airflow_x is too short"):
        secret_scan.patterns({"airflow_x": "short"})
    assert all(len(pattern) >= 8 for pattern in secret_scan.patterns({"airflow_x": "x" * 16}))


# --- where it may be ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("place", "name", "allowed"),
    [
        ("file /etc/airflow/scheduler/environment", "airflow_fernet_key", True),
        ("file /etc/airflow/worker@default-a/environment", "airflow_broker_password", True),
        ("file /etc/airflow/worker@default/environment", "airflow_fernet_key", False),
        ("file /etc/airflow/worker/environment", "airflow_database_password", False),
        ("file /etc/airflow/triggerer/environment", "airflow_results_database_password", False),
        ("file /etc/airflow/scheduler/environment.bak", "airflow_fernet_key", False),
        ("file /etc/airflow/scheduler/airflow.cfg", "airflow_fernet_key", False),
        ("file /etc/airflow/webserver/jwt.pem", "airflow_jwt_private_key", True),
        ("file /etc/airflow/worker/jwt.pem", "airflow_jwt_private_key", False),
        ("file /etc/airflow/webserver/environment", "airflow_jwt_private_key", False),
        ("file /tmp/x", "airflow_fernet_key", False),
        ("journal", "airflow_fernet_key", False),
        ("file /etc/airflow/tls/ca.key", "airflow_ca_key", False),
        ("environment of airflow-worker in airflow-worker@default-b.service", "airflow_broker_password", True),
        ("environment of airflow-worker in airflow-scheduler.service", "airflow_broker_password", False),
        ("environment of root in airflow-scheduler.service", "airflow_fernet_key", True),
        ("environment of root in cron.service", "airflow_fernet_key", False),
        ("environment of airflow-cli in session-3.scope", "airflow_fernet_key", True),
        ("command line of airflow-scheduler in airflow-scheduler.service", "airflow_fernet_key", False),
    ],
)
def test_the_table_of_allowed_places(place: str, name: str, allowed: bool) -> None:
    assert secret_scan.Hit("host", place, name, "plain").allowed is allowed


def test_the_table_is_the_one_of_the_documentation() -> None:
    """A row per kind of secret, a column per component."""
    kinds = {
        "metadata database": secret_scan.DATABASE,
        "Fernet key": secret_scan.FERNET,
        "API secret key": secret_scan.API,
        "broker": secret_scan.BROKER,
        "results database": secret_scan.RESULTS,
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in documentation() if line.startswith("|")]
    head = next(row for row in rows if "scheduler" in row)
    for kind, name in kinds.items():
        row = next(row for row in rows if row[0].startswith(kind))
        marked = {column for column, cell in zip(head[1:], row[1:]) if cell == "x"}
        assert marked == {component for component, held in secret_scan.ENVIRONMENT.items() if name in held}, kind
    signing = next(row for row in rows if row[0].startswith("JWT signing key"))
    assert {column for column, cell in zip(head[1:], signing[1:]) if cell == "x"} == secret_scan.SIGNERS


def documentation() -> list[str]:
    return (ROOT / "docs" / "security.md").read_text().splitlines()


def test_what_cannot_be_closed_is_documented() -> None:
    text = (LAB / "test_security.py").read_text()
    start = text.index("CANNOT_BE_CLOSED = ")
    scope: dict[str, Any] = {}
    exec(text[start : text.index("\n}\n", start) + 2], scope)  # noqa: S102
    names = {name for group in scope["CANNOT_BE_CLOSED"].values() for name in group}
    assert names <= set(attacks.ATTACKS)
    rows = [line.strip("|").split("|")[0].strip() for line in documentation() if line.startswith("|")]
    assert names <= set(rows)


# --- the search --------------------------------------------------------------------------------------------------------
def search(order: dict[str, Any]) -> dict[str, Any]:
    text = secret_scan.sent(LAB / "scan_host.py", order)
    done = subprocess.run([sys.executable, "-c", secret_scan.LOADER], input=text, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_files_are_searched(tmp_path: Path) -> None:
    texts = list(secret_scan.patterns({"airflow_x": NASTY}))
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "a\nb ü").write_bytes(b"\0\xff" + NASTY.encode() + b"\0")
    (tmp_path / "other").write_text("nothing")
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "skipped").write_text(NASTY)
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    order = {"texts": texts, "roots": [str(tmp_path)], "skip": [str(tmp_path / "journal")], "since": 0, "sources": []}
    found = search(order)
    assert found["files"] == 2
    assert {place for place, _index in found["hits"]} == {f"file {tmp_path}/a folder/a\nb ü"}
    assert texts.index(NASTY) in {index for _place, index in found["hits"]}
    os.utime(tmp_path / "a folder" / "a\nb ü", (0, 0))
    assert search({**order, "since": 32503680000})["files"] == 0


def test_command_lines_and_environments_are_searched() -> None:
    texts = ["windfarm-planted-" + str(os.getpid()), "windfarm-other-" + str(os.getpid())]
    with subprocess.Popen(["sleep", "60"], env={"X": texts[1]}, executable="/bin/sleep") as process:
        argument = subprocess.Popen(["/bin/sh", "-c", "sleep 60; : $0", texts[0]])
        try:
            found = search({"texts": texts, "roots": [], "skip": [], "since": 0, "sources": ["processes"]})
        finally:
            for one in (process, argument):
                one.kill()
            argument.wait()
    places = {(place.split(" of ")[0], index) for place, index in found["hits"]}
    assert places == {("command line", 0), ("environment", 1)}
    assert found["processes"] > 1


def test_a_hit_names_the_secret_once(tmp_path: Path) -> None:
    """A file that holds the plain value and by that some of its forms."""
    found = secret_scan.patterns({"airflow_fernet_key": "x" * 43 + "="})
    (tmp_path / "file").write_text("x" * 43 + "=")
    report = secret_scan.Report()
    order = {"texts": list(found), "roots": [str(tmp_path)], "skip": [], "since": 0, "sources": []}
    secret_scan.add(report, "host", search(order), found)
    assert [(hit.name, hit.form) for hit in report.hits] == [("airflow_fernet_key", "plain")]
    assert len(report.forbidden) == 1 and "xxxx" not in str(report.hits[0])


# --- who may read and write --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        (("/etc/airflow/worker@default-a/environment", "file", 0o600, "root", "root"), ""),
        (("/etc/airflow/worker@default-a/environment", "file", 0o640, "root", "airflow"), "0640"),
        (("/etc/airflow/worker/environment", "file", 0o644, "root", "root"), "others may read"),
        (("/etc/airflow/webserver/jwt.pem", "file", 0o640, "root", "airflow-webserver"), ""),
        (("/etc/airflow/webserver/jwt.pem", "file", 0o644, "root", "root"), "others may read"),
        (("/opt/airflow/releases/x/bin/airflow", "file", 0o755, "airflow-worker", "root"), "not to root"),
        (("/opt/airflow/releases/x", "folder", 0o775, "root", "airflow"), "may write"),
        (("/srv/airflow/dags", "link", 0o777, "root", "root"), ""),
        (("/srv/airflow/x", "folder", 0o777, "root", "root"), "everybody"),
        (("/opt/airflow/x", "file", 0o4755, "root", "root"), "setuid"),
        (("/var/lib/airflow/worker/x", "file", 0o644, "airflow-worker", "airflow-worker"), ""),
        (("/var/lib/airflow/worker", "folder", 0o755, "airflow-worker", "airflow-worker"), "others may enter"),
        (("/var/log/airflow/worker", "folder", 0o2750, "airflow-worker", "airflow-logs"), ""),
        (("/var/log/airflow/worker/x", "file", 0o640, "airflow-scheduler", "airflow-logs"), "not to airflow-worker"),
        (("/var/lib/airflow/worker/x", "file", 0o640, "1234", "airflow-worker"), "belongs to 1234"),
        (("/var/lib/airflow", "folder", 0o755, "root", "root"), ""),
    ],
)
def test_modes(entry: tuple[str, str, int, str, str], wrong: str) -> None:
    found = modes.problems([modes.Entry(*entry)])
    assert (wrong in found[0]) if wrong else not found, found


# --- the network -------------------------------------------------------------------------------------------------------
@pytest.fixture()
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_scan_finds_open_ports_only(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    found = probe_net.scan("127.0.0.1", port, min(port + 50, 65535))
    assert port in found
    assert all(probe_net.connect("127.0.0.1", one) == "open" for one in found)


def test_a_closed_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert probe_net.connect("127.0.0.1", port) == "refused"
    assert probe_net.pg("127.0.0.1", port, "u", "d") == "refused"
    assert probe_net.redis("127.0.0.1", port, [["PING"], ["INFO"]]) == ["refused", "refused"]
    assert probe_net.http_("127.0.0.1", port, "/") == "refused"


def answering(server: socket.socket, *answers: bytes) -> threading.Thread:
    def run() -> None:
        link, _address = server.accept()
        with link:
            for answer in answers:
                link.recv(4096)
                link.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00", "asks for a password (SCRAM)"),
        (b"R\x00\x00\x00\x08\x00\x00\x00\x00", "lets in"),
        (b"E\x00\x00\x00\x19SFATAL\x00C28000\x00Mno hba\x00\x00"[:26], "28000 no hba"),
    ],
)
def test_postgresqls_answers(listener: socket.socket, answer: bytes, said: str) -> None:
    thread = answering(listener, answer[:1] + (len(answer) - 1).to_bytes(4, "big") + answer[5:])
    assert probe_net.pg("127.0.0.1", listener.getsockname()[1], "u", "d", secure=False) == said
    thread.join()


def test_redis_answers(listener: socket.socket) -> None:
    thread = answering(listener, b"-NOAUTH Authentication required.\r\n", b"$3\r\nabc\r\n")
    found = probe_net.redis("127.0.0.1", listener.getsockname()[1], [["PING"], ["GET", "x"]], secure=False)
    assert found == ["-NOAUTH Authentication required.", "$3"]
    thread.join()


# --- the attacks -------------------------------------------------------------------------------------------------------
def test_an_attack_says_what_was_open_and_why_the_rest_was_not() -> None:
    def refused() -> object:
        raise PermissionError(13, "x")

    def other() -> object:
        raise attacks.Denied("HTTP 401")

    found = attacks.judge(iter([("a", refused), ("b", lambda: None), ("c", other), ("d", refused)]))
    assert found == {"tried": 4, "open": ["b"], "denied": {"HTTP 401": 1, "Permission denied": 2}}


def test_a_mistake_in_an_attack_is_no_defence() -> None:
    def mistaken() -> object:
        raise TypeError

    with pytest.raises(TypeError):
        attacks.judge(iter([("a", mistaken)]))


def test_writing_is_tried_without_leaving_anything(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    attacks.write(str(file))
    attacks.write(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "content"
    assert attacks.replace(str(file))


def test_a_command_is_open_only_when_it_succeeds() -> None:
    assert attacks.command("true") == ""
    with pytest.raises(attacks.Denied, match="exit code 1"):
        attacks.command("false")
    with pytest.raises(attacks.Denied, match="shows nothing"):
        attacks.output("true")


def test_what_may_kill_is_tried_in_a_child() -> None:
    assert attacks.in_child(lambda: 5)() == "5"
    with pytest.raises(attacks.Denied, match="killed by SIGSYS"):
        attacks.in_child(lambda: os.kill(os.getpid(), 31))()
    with pytest.raises(attacks.Denied, match="Not a directory"):
        attacks.in_child(lambda: os.listdir("/dev/null"))()


def test_forged_tokens_try_every_secret_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "environ", {"AIRFLOW__API__SECRET_KEY": "k1", "AIRFLOW__CELERY__BROKER_URL": "rediss://u:p%40w@h:1/0"}
    )
    assert set(attacks.passwords()) == {"k1", "rediss://u:p%40w@h:1/0", "p@w"}
    made = dict(attacks.forged({}, "audience", "1"))
    assert {"HS512 with secret 0 of its own", "alg none", "a key of its own"} <= set(made)
    for token in made.values():
        head, body, _signature = token.split(".")
        assert json.loads(base64.urlsafe_b64decode(body + "=="))["aud"] == "audience"
        assert json.loads(base64.urlsafe_b64decode(head + "=="))["typ"] == "JWT"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.mark.parametrize(("status", "let_in"), [(200, True), (404, True), (401, False), (302, False), (500, False)])
def test_who_is_let_in_by_a_webserver(status: int, let_in: bool) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{status}"
        if let_in:
            assert attacks.request(url) == status
        else:
            with pytest.raises(attacks.Denied, match=str(status)):
                attacks.request(url)
        thread.join()


def test_root_attacks_nothing() -> None:
    if os.geteuid() != 0:
        pytest.skip("is not root")
    done = subprocess.run([sys.executable, str(LAB / "dags/attacks.py")], input="{}", capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "root may do all of this" in done.stderr
