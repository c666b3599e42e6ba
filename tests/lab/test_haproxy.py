# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Role haproxy alone: two web servers with TLS on the host itself, lost, frozen and replaced under a stream of requests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from inventory import Inventory
from server import Role, hosts, until

CONF = "/etc/haproxy/haproxy.cfg"
TLS = "/run/lab-tls"
PORTS = {"a": 9443, "b": 9444}

# Answers with its name; closes the connection without an answer once, where the file NAME.die asks for it.
SERVER = """
import http.server, json, os, ssl, sys
name, port, pem = sys.argv[1], int(sys.argv[2]), sys.argv[3]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.path.startswith("/api/v2") and os.path.exists(f"/run/lab-tls/{name}.die"):
            os.unlink(f"/run/lab-tls/{name}.die")
            self.close_connection = True
            return
        text = json.dumps({"server": name, "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    do_GET = do_POST = do_PATCH = answer
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    def handle_error(self, request, address): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
server = Server(("127.0.0.1", port), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"""

# As Airflow's workers ask: connections that are kept, a time-out of 5 s. The body follows its headers in a packet of its own.
LOAD = """
import http.client, json, sys, threading, time
end, lock = time.time() + float(sys.argv[1]), threading.Lock()
result = {"requests": 0, "failed": [], "slowest": 0.0, "servers": {}}
def ask(number):
    link, count = None, number
    while time.time() < end:
        count += 1
        begin = time.time()
        try:
            link = link or http.client.HTTPConnection("127.0.0.1", 8079, timeout=5)
            method = ("GET", "POST", "PATCH")[count % 3]
            if method == "GET":
                link.request(method, "/execution/x")
            else:
                link.putrequest(method, "/execution/x")
                link.putheader("Content-Length", "9")
                link.endheaders()
                link.send(b'{"a": 12}')
            answer = link.getresponse()
            text, problem = answer.read(), "" if answer.status == 200 else f"{method}: {answer.status}"
            server = json.loads(text)["server"] if not problem else "none"
            if answer.will_close:
                link.close()
                link = None
        except Exception as error:
            problem, server, link = f"{method}: {error!r}", "none", None
        with lock:
            result["requests"] += 1
            result["failed"] += [f"{begin:.3f} {problem}"] if problem else []
            result["slowest"] = max(result["slowest"], time.time() - begin)
            result["servers"][server] = result["servers"].get(server, 0) + 1
        time.sleep(0.005)
threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(result))
"""

CERTIFICATES = """
umask 077; rm -rf {tls}; mkdir -p {tls}; cd {tls}
new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
authority() {{
    openssl req -x509 $new -keyout $1.key -out $1.pem -days 9 -subj /CN=$1 -addext keyUsage=critical,keyCertSign 2>/dev/null
}}
host() {{
    openssl req $new -keyout $1.key -out $1.csr -subj /CN=$3 2>/dev/null
    printf 'subjectAltName=%s\nauthorityKeyIdentifier=keyid\n' $4 > $1.ext
    openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 9 -extfile $1.ext -out $1.crt 2>/dev/null
    cat $1.crt $1.key > $1.both
}}
authority ca; authority other
host a ca 127.0.0.1 DNS:a.test,IP:127.0.0.1
host b ca 127.0.0.1 DNS:b.test,IP:127.0.0.1
host foreign other 127.0.0.1 IP:127.0.0.1
host misnamed ca elsewhere.test DNS:elsewhere.test
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", hosts(metafunc.config.getoption("--inventory"), "haproxy"), scope="module")


class HAProxy(Role):
    begin = ""

    def listener(self, **changes: Any) -> dict[str, Any]:
        return {**self.variables["haproxy_listeners"][0], "ca_file": f"{TLS}/ca.pem", **changes}

    def converge(self, *options: str, **changes: Any) -> Any:
        variables = {key: changes.pop(key) for key in list(changes) if key.startswith("haproxy_")}
        ok = changes.pop("ok", True)
        return self.run(*options, ok=ok, **{"haproxy_listeners": [self.listener(**changes)], **variables})

    def serve(self, name: str, pem: str = "") -> None:
        self.shell(
            f"systemctl stop lab-{name} 2>/dev/null; systemctl reset-failed lab-{name} 2>/dev/null; "
            f"systemd-run -q --unit lab-{name} python3 {TLS}/server.py {name} {PORTS[name]} {TLS}/{pem or name}.both"
        )

    def states(self) -> dict[str, str]:
        out = self.shell(
            'python3 -c \'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/run/haproxy-admin.sock"); '
            's.sendall(b"show stat\\n"); print(b"".join(iter(lambda: s.recv(65536), b"")).decode())\''
        )
        rows = [line.split(",") for line in out.splitlines() if line.startswith("webserver,")]
        return {row[1]: row[17].split()[0] for row in rows if row[1] not in ("FRONTEND", "BACKEND")}

    def all_up(self) -> None:
        until(lambda: set(self.states().values()) == {"UP"}, 20, "both servers are up")

    def ask(self, path: str = "/execution/x", method: str = "GET") -> tuple[int, dict[str, Any], float]:
        script = (
            "import http.client, time, json; begin = time.time(); "
            "link = http.client.HTTPConnection('127.0.0.1', 8079, timeout=9); "
            f"link.request('{method}', '{path}', headers={{'X-Forwarded-For': '192.0.2.9'}}); answer = link.getresponse(); "
            "text = answer.read().decode(); "
            "print(json.dumps([answer.status, json.loads(text) if text[:1] == '{' else {}, time.time() - begin]))"
        )
        status, body, seconds = json.loads(self.shell(f'python3 -c "{script}"'))
        return status, body, seconds

    def load(self, seconds: float) -> None:
        self.shell(
            "systemctl reset-failed lab-load 2>/dev/null; rm -f /run/lab-tls/load.json; systemd-run -q --unit lab-load "
            f"-p StandardOutput=file:{TLS}/load.json python3 {TLS}/load.py {seconds}"
        )
        time.sleep(1)

    def loaded(self) -> dict[str, Any]:
        until(lambda: not self.shell("systemctl is-active lab-load", check=False).startswith("active"), 90, "the load ends")
        return dict(json.loads(self.shell(f"cat {TLS}/load.json")))

    def pid(self) -> str:
        return self.shell("systemctl show -p MainPID --value haproxy")


@pytest.fixture(scope="module")
def haproxy(inventory: Inventory, name: str) -> Iterator[HAProxy]:
    role = HAProxy(inventory, "haproxy", name)
    role.begin = role.shell("date +%s")
    role.shell(CERTIFICATES.format(tls=TLS))
    for file, text in (("server.py", SERVER), ("load.py", LOAD)):
        role.shell(f"cat > {TLS}/{file}", stdin=text)
    for server in PORTS:
        role.serve(server)
    role.converge()
    role.all_up()
    yield role
    role.shell(f"systemctl stop lab-a lab-b; rm -rf {TLS}")
    role.run()


def test_every_server_answers_and_a_second_run_changes_nothing(haproxy: HAProxy) -> None:
    answers = [haproxy.ask() for _ in range(6)]
    assert {(status, body["server"]) for status, body, _seconds in answers} == {(200, "a"), (200, "b")}
    assert "X-Forwarded-For" not in {header.title() for header in answers[0][1]["headers"]}
    assert haproxy.converge().changed == 0
    assert haproxy.shell("systemctl is-enabled haproxy") == "enabled"
    assert haproxy.shell("stat -c '%a %U' /run/haproxy-admin.sock") == "600 root"


@pytest.mark.parametrize("pem", ["foreign", "misnamed"])
def test_a_server_with_another_authority_or_name_is_not_used(haproxy: HAProxy, pem: str) -> None:
    haproxy.serve("b", pem)
    try:
        until(lambda: haproxy.states()["b"] == "DOWN", 20, "b is refused")
        assert {haproxy.ask()[1]["server"] for _ in range(6)} == {"a"}
        assert "(Layer6 invalid response)" in haproxy.converge().text
        # Where it is the only one there is no answer, rather than one from a stranger.
        haproxy.shell("systemctl stop lab-a")
        until(lambda: haproxy.ask()[0] == 503, 20, "no server is left")
    finally:
        haproxy.serve("a")
        haproxy.serve("b")
    haproxy.all_up()


def test_a_name_is_verified_and_sent(haproxy: HAProxy) -> None:
    servers = [{**server, "verify_name": f"{server['name']}.test"} for server in haproxy.listener()["servers"]]
    haproxy.converge(servers=servers)
    haproxy.all_up()
    haproxy.converge(servers=[{**server, "verify_name": "c.test"} for server in servers])
    until(lambda: set(haproxy.states().values()) == {"DOWN"}, 20, "no certificate has the name")
    haproxy.converge()
    haproxy.all_up()


def test_a_killed_server_costs_no_request(haproxy: HAProxy) -> None:
    haproxy.load(12)
    for server in ("a", "b"):
        haproxy.shell(f"systemctl kill -s KILL lab-{server}")
        time.sleep(3)
        haproxy.serve(server)
        until(lambda: set(haproxy.states().values()) == {"UP"}, 10, "both are up again")
    result = haproxy.loaded()
    print(result)
    assert result["failed"] == []
    assert result["requests"] > 500
    assert set(result["servers"]) == {"a", "b"}


def test_a_frozen_server_costs_only_what_it_had(haproxy: HAProxy) -> None:
    haproxy.shell("systemctl kill -s STOP lab-a")
    try:
        haproxy.load(10)
        result = haproxy.loaded()
    finally:
        haproxy.shell("systemctl kill -s CONT lab-a")
    print(result)
    # One connection for each of the four clients may still be open to it.
    assert len(result["failed"]) <= 4
    assert set(result["servers"]) <= {"b", "none"}
    haproxy.all_up()


def test_no_answer_is_asked_again_elsewhere(haproxy: HAProxy) -> None:
    for method in ("GET", "POST"):
        haproxy.shell(f"touch {TLS}/a.die {TLS}/b.die; rm -f {TLS}/b.die")
        assert [haproxy.ask(method=method)[0] for _ in range(4)] == [200] * 4
        assert haproxy.shell(f"ls {TLS}/a.die", check=False) == "", "the request did reach the server that gave no answer"
    haproxy.converge(replay="safe")
    haproxy.all_up()
    for method, expected in (("GET", []), ("POST", [502])):
        haproxy.shell(f"touch {TLS}/a.die")
        assert [status for status in (haproxy.ask(method=method)[0] for _ in range(4)) if status != 200] == expected
    haproxy.converge()
    haproxy.all_up()


def test_without_any_server_the_answer_is_quick(haproxy: HAProxy) -> None:
    haproxy.shell("systemctl stop lab-a lab-b")
    until(lambda: haproxy.ask()[0] == 503 and haproxy.ask()[2] < 0.5, 20, "503 at once")
    for server in PORTS:
        haproxy.serve(server)
    haproxy.all_up()


def test_changes_under_load_cost_no_request(haproxy: HAProxy) -> None:
    before = haproxy.pid()
    haproxy.load(25)
    for number in (1, 2, 3):
        run = haproxy.converge(haproxy_maxconn=4096 + number)
        assert run.changed == 1
        assert "reload haproxy" in run.text
        assert not run.restarted
    # A new authority file with the same name is a change of what the process must have.
    haproxy.shell(f"cat {TLS}/other.pem >> {TLS}/ca.pem")
    assert "reload haproxy" in haproxy.converge().text
    assert haproxy.converge().changed == 0
    result = haproxy.loaded()
    print(result)
    assert result["failed"] == []
    assert haproxy.pid() == before


def test_a_run_that_died_before_the_reload_is_made_good(haproxy: HAProxy) -> None:
    haproxy.converge(haproxy_maxconn=5000)
    haproxy.shell(f"cp {CONF} {TLS}/saved")
    haproxy.converge()
    haproxy.shell(f"cp {TLS}/saved {CONF}")
    run = haproxy.converge(haproxy_maxconn=5000)
    assert run.changed == 1
    assert "reload haproxy" in run.text
    assert haproxy.converge(haproxy_maxconn=5000).changed == 0
    haproxy.converge()


@pytest.mark.parametrize(
    "harm",
    [
        "systemctl stop haproxy",
        "systemctl disable haproxy",
        "systemctl kill -s KILL haproxy",
        f"systemctl stop haproxy; echo nonsense > {CONF}; systemctl start haproxy; true",
        f"echo '# by hand' >> {CONF}",
        "rm /etc/systemd/system/haproxy.service.d/90-ansible.conf; systemctl daemon-reload; systemctl restart haproxy",
    ],
    ids=["stopped", "disabled", "killed", "failed", "edited", "unconfined"],
)
def test_harm_is_healed(haproxy: HAProxy, harm: str) -> None:
    haproxy.shell(harm)
    replace = "nonsense" in harm
    haproxy.converge(haproxy_replace=replace)
    haproxy.all_up()
    assert haproxy.converge().changed == 0
    assert haproxy.shell("systemctl is-active haproxy; systemctl is-enabled haproxy").split() == ["active", "enabled"]


def test_a_masked_unit_is_named(haproxy: HAProxy) -> None:
    haproxy.shell("systemctl mask --now haproxy")
    assert "haproxy is masked on this host" in haproxy.converge(ok=False).message
    haproxy.shell("systemctl unmask haproxy")
    haproxy.converge()
    haproxy.all_up()


def test_somebodys_own_file_is_refused_and_kept(haproxy: HAProxy) -> None:
    haproxy.shell(f"printf 'defaults\\n mode http\\n timeout client 1s\\n' > {CONF}")
    run = haproxy.converge(ok=False)
    assert "somebody's own configuration" in run.message
    assert "haproxy_replace" in run.message
    assert "timeout client 1s" in haproxy.shell(f"cat {CONF}")
    haproxy.converge(haproxy_replace=True)
    assert "timeout client 1s" in haproxy.shell(f"cat {CONF}.replaced")
    haproxy.all_up()


def test_a_port_that_is_taken_leaves_the_old_one_running(haproxy: HAProxy) -> None:
    haproxy.shell("systemd-run -q --unit lab-taken python3 -m http.server -b 127.0.0.1 8078")
    try:
        run = haproxy.converge(ok=False, bind="127.0.0.1:8078", haproxy_start_timeout=5)
        assert "the previous /etc/haproxy/haproxy.cfg is back" in run.message
        assert "8078" in run.message
        haproxy.all_up()
        assert haproxy.ask()[0] == 200
    finally:
        haproxy.shell("systemctl stop lab-taken")
    assert haproxy.converge().changed <= 1
    assert haproxy.converge().changed == 0


def test_a_name_that_nobody_knows_is_left_out(haproxy: HAProxy) -> None:
    servers = [*haproxy.listener()["servers"], {"name": "c", "address": "nowhere.invalid", "port": 9445}]
    run = haproxy.converge(servers=servers)
    assert "cannot resolve 'nowhere.invalid'" in run.text
    assert set(haproxy.states()) == {"a", "b"}
    haproxy.all_up()
    run = haproxy.converge(ok=False, servers=servers[-1:])
    assert "cannot resolve any of its servers' names" in run.message


def test_tls_for_clients(haproxy: HAProxy) -> None:
    entry = haproxy.listener(name="entry", bind="127.0.0.1:8443", certificate=f"{TLS}/a.both")
    haproxy.run(haproxy_listeners=[haproxy.listener(), entry])
    script = (
        "import ssl, http.client; context = ssl.create_default_context(cafile='/run/lab-tls/ca.pem'); {limit}"
        "link = http.client.HTTPSConnection('127.0.0.1', 8443, timeout=9, context=context); "
        "link.request('GET', '/x'); print(link.getresponse().read().decode())"
    )
    answer = json.loads(haproxy.shell(f'python3 -c "{script.format(limit="")}"'))
    headers = {key.title(): value for key, value in answer["headers"].items()}
    assert (headers["X-Forwarded-Proto"], headers["X-Forwarded-For"]) == ("https", "127.0.0.1")
    old = "context.maximum_version = ssl.TLSVersion.TLSv1; context.set_ciphers('ALL:@SECLEVEL=0'); "
    assert haproxy.shell(f'python3 -c "{script.format(limit=old)}" 2>/dev/null', check=False) == ""
    haproxy.converge()


def test_a_key_of_its_own_and_plain_http_that_leads_there(haproxy: HAProxy) -> None:
    entry = haproxy.listener(name="entry", bind="127.0.0.1:8443", certificate=f"{TLS}/b.crt", certificate_key=f"{TLS}/b.key")
    plain = {"name": "plain", "bind": "127.0.0.1:8081", "redirect": "https://b.test:8443"}
    haproxy.run(haproxy_listeners=[haproxy.listener(), entry, plain])
    shown = haproxy.shell("echo | openssl s_client -connect 127.0.0.1:8443 2>/dev/null | openssl x509 -noout -text")
    assert "DNS:b.test" in shown
    script = (
        "import http.client; link = http.client.HTTPConnection('127.0.0.1', 8081, timeout=9); "
        "link.request('POST', '/a?b=c', headers={'Host': 'c.test'}); answer = link.getresponse(); "
        "print(answer.status, answer.getheader('Location'))"
    )
    assert haproxy.shell(f'python3 -c "{script}"') == "308 https://b.test:8443/a?b=c"
    assert haproxy.run(haproxy_listeners=[haproxy.listener(), entry, plain]).changed == 0
    haproxy.converge()


def test_several_paths_must_answer(haproxy: HAProxy) -> None:
    haproxy.converge(check_path=["/api/v2/version", "/execution/health"])
    haproxy.all_up()
    # The test's server gives no answer to this one as long as the file is there, once each time.
    haproxy.shell("while :; do touch /run/lab-tls/b.die; sleep 0.05; done >/dev/null 2>&1 & echo $! > /run/lab-tls/pid")
    try:
        until(lambda: haproxy.states()["b"] == "DOWN", 40, "b is out of service")
        assert haproxy.states()["a"] == "UP"
    finally:
        haproxy.shell("kill $(cat /run/lab-tls/pid); rm -f /run/lab-tls/b.die")
    haproxy.converge()
    haproxy.all_up()


def test_without_listeners_it_goes_and_comes_back(haproxy: HAProxy) -> None:
    haproxy.shell("systemd-run -q --unit lab-needed sleep 600")
    assert haproxy.run(haproxy_listeners=[], haproxy_keep_while="lab-need*.service").changed == 0
    haproxy.shell("systemctl stop lab-needed")
    assert haproxy.run("--check", haproxy_listeners=[], haproxy_keep_while="lab-need*.service").changed == 1
    assert haproxy.run(haproxy_listeners=[], haproxy_keep_while="lab-need*.service").changed == 1
    assert haproxy.shell("systemctl is-active haproxy", check=False) == "inactive"
    assert haproxy.run(haproxy_listeners=[]).changed == 0
    haproxy.converge()
    haproxy.all_up()
    assert haproxy.shell("systemctl is-enabled haproxy") == "enabled"


def test_the_sandbox_holds(haproxy: HAProxy) -> None:
    line = haproxy.shell("systemd-analyze security --no-pager haproxy | tail -n 1")
    assert float(line.split(":")[1].split()[0]) <= 2.5, line
    assert haproxy.shell(f"journalctl -u haproxy -o cat --since @{haproxy.begin} | grep -c 'Bad system call'", check=False) == "0"
