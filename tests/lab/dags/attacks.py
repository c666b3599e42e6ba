# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What code of users may try on a host of the cluster. A program: targets come as JSON on standard input, and for each
attack it says which of its targets were open, and why the others were not. It never prints what it has read.

Runs with the release's Python as whoever runs the DAG's code. Everything that it changes, it takes back."""

from __future__ import annotations

import base64
import collections
import contextlib
import ctypes
import fcntl
import glob
import hashlib
import hmac
import json
import os
import pwd
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

SECONDS = 3
PROBE = "hostile-probe"
# What Airflow itself puts in place of the database's URL before a task's code runs.
NO_DATABASE = "airflow-db-not-allowed:"
ME = os.geteuid()
Target = tuple[str, Callable[[], object]]


class Denied(Exception):
    """An attempt that did not succeed, other than by an OSError."""


# --- what an attempt is ------------------------------------------------------------------------------------------------
def read(path: str) -> object:
    with open(path, "rb") as file:
        return len(file.read(1 << 20))


def look(path: str) -> object:
    return os.listdir(path) if os.path.isdir(path) else read(path)


def may_open(path: str) -> object:
    os.close(os.open(path, os.O_RDONLY))
    return path


def write(path: str) -> object:
    """Into a file without changing it; in a folder a file of our own, which goes again."""
    if os.path.isdir(path):
        path = os.path.join(path, PROBE)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    return path


def replace(path: str) -> object:
    """Whether somebody who may not write a file may put another in its place."""
    folder = os.stat(os.path.dirname(path))
    sticky = folder.st_mode & stat.S_ISVTX and ME not in (folder.st_uid, os.stat(path).st_uid)
    if sticky or not os.access(os.path.dirname(path), os.W_OK):
        raise PermissionError(13, "folder not writable")
    return path


def command(*words: str) -> object:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise Denied("timeout") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Denied(f"exit code {done.returncode}: {lines[-1][:100] if lines else ''}")
    return done.stdout


def output(*words: str) -> object:
    text = str(command(*words)).strip()
    if not text:
        raise Denied("shows nothing")
    return text


def request(url: str, headers: dict[str, str] | None = None, ca: str = "", accepted: tuple[int, ...] = (200, 404, 422)) -> object:
    """An answer that only somebody who was let in gets."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_arguments: Any) -> None:
            return None

    handlers: list[urllib.request.BaseHandler] = [Stay(), urllib.request.ProxyHandler({})]
    if url.startswith("https"):
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca)))
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=SECONDS) as answer:  # noqa: S310
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    if status not in accepted:
        raise Denied(f"HTTP {status}")
    return status


def in_child(attempt: Callable[[], object]) -> Callable[[], object]:
    """In a process of its own: it may be killed for it, or be changed by it."""

    def run() -> object:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            try:
                text = json.dumps(["open", str(attempt())[:100]])
            except BaseException as error:
                text = json.dumps(["denied", reason(error)])
            os.write(write_end, text.encode())
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            text = pipe.read()
        status = os.waitpid(pid, 0)[1]
        if not text:
            raise Denied(f"killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "ended")
        what, detail = json.loads(text)
        if what == "denied":
            raise Denied(detail)
        return detail

    return run


def libc(name: str, *arguments: object) -> int:
    """A call of the C library; -1 is an error."""
    library = ctypes.CDLL(None, use_errno=True)
    result = int(getattr(library, name)(*arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def ptrace(pid: int) -> object:
    libc("ptrace", 16, pid, None, None)  # PTRACE_ATTACH
    os.waitpid(pid, 0x40000000)  # __WALL
    libc("ptrace", 17, pid, None, None)  # PTRACE_DETACH
    return pid


def reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return " ".join(str(error).split())[:140] or type(error).__name__


# --- targets -----------------------------------------------------------------------------------------------------------
def processes() -> Iterator[tuple[int, int]]:
    """Every process that is seen, and its user."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                yield int(name), os.stat(f"/proc/{name}").st_uid


def others() -> list[int]:
    """Other users' processes, as far as they are shown."""
    return [pid for pid, uid in processes() if uid != ME][:60]


def ancestors() -> list[int]:
    """Those of our own user that started us, the code under attack itself aside."""
    found: list[int] = []
    pid = os.getppid()
    while True:
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
        # The one that systemd started is the child of a process that may be hidden.
        if pid <= 1 or not os.path.exists(f"/proc/{pid}") or os.stat(f"/proc/{pid}").st_uid != ME:
            return found
        found.append(pid)


def component() -> str:
    return pwd.getpwuid(ME).pw_name.removeprefix("airflow-")


def own_texts() -> dict[str, str]:
    """Everything secret that our own process was given."""
    names = ("SQL_ALCHEMY_CONN", "FERNET", "JWT", "SECRET_KEY", "BROKER_URL", "RESULT_BACKEND")
    return {name: value for name, value in os.environ.items() if any(word in name for word in names)}


def passwords() -> list[str]:
    """Keys to try: our own secrets, and the passwords in the URLs among them."""
    found = list(own_texts().values())
    for value in list(found):
        if match := re.match(r"[a-z+0-9]+://[^:/]*:([^@]*)@", value):
            found.append(urllib.parse.unquote(match[1]))
    return found


def files_of_others(order: dict[str, Any]) -> Iterator[Target]:
    mine = component()
    patterns = ["/etc/airflow/*/environment", "/etc/airflow/*/jwt.pem", "/etc/airflow/tls/*.key", "/etc/airflow/*/tls/*.key"]
    patterns += ["/run/credentials/*/*", "/etc/postgresql/*/main/*.key", "/etc/redis/*", "/etc/shadow", "/root", "/etc/sudoers"]
    for path in [path for pattern in patterns for path in glob.glob(pattern)]:
        # The key that a component signs or serves with is its own.
        if f"/airflow-{mine}.service/" not in path:
            yield path, partial(look, path)


def folders_of_others(order: dict[str, Any]) -> Iterator[Target]:
    mine = component()
    for path in glob.glob("/var/lib/airflow/*") + glob.glob("/var/log/airflow/*") + ["/var/lib/postgresql", "/var/lib/redis"]:
        if os.path.basename(path) == mine or not os.path.exists(path):
            continue
        for folder in glob.glob(f"{path}/*/main") or [path]:
            yield folder, partial(os.listdir, folder)
            yield f"{folder} (write)", partial(write, folder)


def environments(order: dict[str, Any]) -> Iterator[Target]:
    for pid in others():
        yield f"/proc/{pid}/environ", partial(read, f"/proc/{pid}/environ")


def memory(order: dict[str, Any]) -> Iterator[Target]:
    for pid in others():
        yield f"/proc/{pid}/mem", partial(may_open, f"/proc/{pid}/mem")


def traces(order: dict[str, Any]) -> Iterator[Target]:
    for pid in [*others(), *ancestors()]:
        yield f"process {pid}", in_child(partial(ptrace, pid))


def inside(name: str, pid: int) -> Iterator[Target]:
    yield f"environment of {name}", partial(read, f"/proc/{pid}/environ")
    yield f"memory of {name}", partial(may_open, f"/proc/{pid}/mem")
    yield f"open files of {name}", partial(os.listdir, f"/proc/{pid}/fd")


def supervisors(order: dict[str, Any]) -> Iterator[Target]:
    """The process that holds the task's token is of our own user."""
    for pid in ancestors()[:1] if component() == "worker" else []:
        yield from inside("the supervisor", pid)


def own_worker(order: dict[str, Any]) -> Iterator[Target]:
    for pid in ancestors()[1:] if component() == "worker" else []:
        yield from inside(f"ancestor {pid}", pid)


def signals(order: dict[str, Any]) -> Iterator[Target]:
    for pid in others():
        yield f"process {pid}", partial(os.kill, pid, 0)


def installed_files(order: dict[str, Any]) -> Iterator[Target]:
    release = os.environ.get("AIRFLOW_RELEASE", sys.prefix)
    paths = [release, f"{release}/bin", f"{release}/bin/airflow", f"{release}/release.json", os.path.dirname(release)]
    for packages in glob.glob(f"{release}/lib/python3*/site-packages"):
        paths += [packages, f"{packages}/windfarm_airflow.py"]
    paths += [order["plugins"], order["dags"], os.path.realpath(order["dags"]), os.path.dirname(order["dags"]), __file__]
    paths += ["/usr/local/lib/airflow", *glob.glob("/usr/local/lib/airflow/*"), "/usr/local/bin", "/usr/local/bin/airflow"]
    paths += ["/etc/airflow", *glob.glob("/etc/airflow/*"), *glob.glob("/etc/airflow/*/*")]
    paths += ["/etc/systemd/system", "/run/systemd/system", *glob.glob("/etc/systemd/system/airflow*"), "/run/airflow"]
    paths += ["/etc/sudoers.d", "/etc/cron.d", "/etc/ansible/facts.d", "/etc/profile.d", "/etc/haproxy", "/etc/nftables.conf"]
    paths += ["/usr/lib/python3/dist-packages", "/usr/bin", "/etc/ld.so.preload", "/run", "/proc/sys/kernel/core_pattern"]
    for path in sorted({path for path in paths if os.path.exists(path)}):
        yield path, partial(write, path)
        yield f"{path} (replace)", partial(replace, path)


def locks(order: dict[str, Any]) -> Iterator[Target]:
    """Whoever holds one keeps everybody else from installing."""

    def hold(path: str) -> object:
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(handle)
        return path

    releases = os.path.dirname(os.environ.get("AIRFLOW_RELEASE", sys.prefix))
    paths = [f"{releases}/.lock", os.path.join(os.path.dirname(releases), "cache", ".lock"), *glob.glob(f"{releases}/*/.lock")]
    store = os.path.dirname(os.path.realpath(order["dags"]))
    for path in [*paths, f"{store}.lock", *glob.glob("/run/airflow/*")]:
        yield path, partial(hold, path)


def root(order: dict[str, Any]) -> Iterator[Target]:
    yield "setuid(0)", in_child(partial(os.setuid, 0))
    yield "a user namespace", in_child(partial(libc, "unshare", 0x10000000))
    yield "mount", in_child(partial(libc, "mount", b"none", b"/mnt", b"tmpfs", 0, None))
    yield "chroot", in_child(partial(os.chroot, "/tmp"))  # noqa: S108
    yield "sudo", partial(command, "sudo", "-n", "true")
    yield "sudo airflow", partial(command, "sudo", "-n", "/usr/local/bin/airflow", "users", "list")
    yield "airflow users list", partial(command, "/usr/local/bin/airflow", "users", "list")
    yield "su", partial(command, "su", "-c", "true", "root")
    yield "raw socket", in_child(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close())
    yield "nft", partial(output, "/usr/sbin/nft", "list", "ruleset")


def setuid_programs(order: dict[str, Any]) -> Iterator[Target]:
    """NoNewPrivileges makes them all harmless."""

    def privileges() -> object:
        with open("/proc/self/status") as file:
            if re.search(r"^NoNewPrivs:\s+1$", file.read(), re.M):
                raise Denied("NoNewPrivs")
        return "programs with the setuid bit gain privileges"

    yield "NoNewPrivs", privileges


def systemd(order: dict[str, Any]) -> Iterator[Target]:
    yield "daemon-reload", partial(command, "systemctl", "--no-ask-password", "daemon-reload")
    yield "start a unit", partial(command, "systemctl", "--no-ask-password", "start", "airflow-logs.service")
    yield "systemd-run", partial(command, "systemd-run", "--no-ask-password", "--quiet", "true")
    yield "linger", partial(command, "loginctl", "--no-ask-password", "enable-linger")
    for unit in ("airflow-scheduler", "airflow-flower", "airflow-logs", "ssh"):
        yield f"journal of {unit}", partial(output, "journalctl", "--quiet", "-n", "5", "-o", "cat", "-u", unit)


def sockets(order: dict[str, Any]) -> Iterator[Target]:
    def talk(path: str) -> object:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(SECONDS)
            link.connect(path)
        return path

    found = [path for pattern in ("/run/haproxy*", "/run/haproxy/*", "/var/lib/haproxy/*") for path in glob.glob(pattern)]
    for path in {path for path in [*found, "/run/haproxy/admin.sock"] if not os.path.isdir(path)}:
        yield path, partial(talk, path)


def metadata_database(order: dict[str, Any]) -> Iterator[Target]:
    target = order["database"]
    given = {*order.get("urls", []), *(value for name, value in own_texts().items() if "CONN" in name and "://" in value)}
    for number, url in enumerate(sorted(given)):
        yield f"URL {number} of its own settings", partial(sql, url, "select count(*) from dag")
    if results := os.environ.get("AIRFLOW__CELERY__RESULT_BACKEND", "").removeprefix("db+"):
        parts = urllib.parse.urlsplit(results)
        place = parts.netloc.rpartition("@")
        for user in (parts.username or "", target["user"], target["owner"], "postgres"):
            netloc = f"{user}:{place[0].partition(':')[2]}@{place[2]}"
            url = urllib.parse.urlunsplit(parts._replace(netloc=netloc, path=f"/{target['name']}"))
            yield f"as {user}, with the results' password", partial(sql, url, "select 1")
    for user in (target["user"], target["owner"], "postgres"):
        local = f"host=/var/run/postgresql dbname={target['name']} user={user}"
        yield f"as {user}, through the socket", partial(sql, local, "select 1")
        remote = f"host={target['host']} port={target['port']} dbname={target['name']} user={user} password="
        yield f"as {user}, without password", partial(sql, remote, "select 1")


def results_database(order: dict[str, Any]) -> Iterator[Target]:
    """More than its own tables, for somebody who may log in."""
    url = os.environ.get("AIRFLOW__CELERY__RESULT_BACKEND", "").removeprefix("db+")
    if not url:
        return
    target = order["database"]
    statements = {
        "act as the metadata's owner": f"set role {target['owner']}",
        "passwords of all": "select rolpassword from pg_authid",
        "run a program": "copy (select 1) to program 'true'",
        "read a file": "select pg_read_file('/etc/passwd')",
        "make a database": "create database hostile",
        "make a role": "create role hostile",
        "end other sessions": f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{target['user']}'",
    }
    for name, statement in statements.items():
        yield name, partial(sql, url, statement)

    def seen() -> object:
        rows = sql(url, f"select query from pg_stat_activity where usename = '{target['user']}' and query not like '<insuff%'")
        if not rows:
            raise Denied("no statement of others is shown")
        return rows

    yield "statements of others", seen


def results_of_others(order: dict[str, Any]) -> Iterator[Target]:
    if url := os.environ.get("AIRFLOW__CELERY__RESULT_BACKEND", "").removeprefix("db+"):
        yield "the table of results", partial(sql, url, "select count(*) from celery_taskmeta")


def sql(url: str, statement: str) -> list[Any]:
    import psycopg2

    url = re.sub(r"^postgresql\+\w+:", "postgresql:", url)
    try:
        link = psycopg2.connect(url, connect_timeout=SECONDS)
    except psycopg2.Error as error:
        raise Denied(str(error)) from None
    link.autocommit = True
    try:
        with link.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    except psycopg2.Error as error:
        raise Denied(str(error)) from None
    finally:
        link.close()


def broker(order: dict[str, Any]) -> Any:
    """A connection with our own credentials, or none where we have none."""
    url = os.environ.get("AIRFLOW__CELERY__BROKER_URL", "")
    if not url:
        return None
    import redis

    trust = {"ssl_ca_certs": order["ca"], "ssl_cert_reqs": "required"} if url.startswith("rediss") else {}
    return redis.Redis.from_url(url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS, **trust)


def ask(link: Any, *words: str) -> object:
    import redis

    try:
        return link.execute_command(*words)
    except redis.RedisError as error:
        raise Denied(str(error)) from None


def broker_commands(order: dict[str, Any]) -> Iterator[Target]:
    link = broker(order)
    if link is None:
        return
    for words in (
        "CONFIG GET *", "CONFIG SET dir /tmp", "ACL LIST", "ACL SETUSER hostile on nopass +@all ~*", "KEYS *", "DEBUG SLEEP 0",
        "MODULE LIST", "REPLICAOF 127.0.0.1 1", "SLAVEOF 127.0.0.1 1", "SAVE", "BGREWRITEAOF", "CLIENT KILL ID 999999999",
        "CLIENT PAUSE 1", "CLIENT LIST", "MONITOR", "SHUTDOWN NOSAVE", "EVAL return 0", "FUNCTION LIST", "SCRIPT FLUSH",
        "FLUSHDB", "FLUSHALL", "SWAPDB 0 1", "MIGRATE 127.0.0.1 1 x 0 1",
    ):  # fmt: skip
        parts = words.split()
        yield words, partial(ask, link, *parts)
    own = str(link.get_connection_kwargs().get("password"))
    for user, password in (("default", ""), ("default", own), ("admin", own)):
        yield f"AUTH {user}", partial(ask, link, "AUTH", user, password)


def queued_messages(order: dict[str, Any]) -> Iterator[Target]:
    """The token of a task that waits in a queue."""
    link = broker(order)

    def look() -> object:
        message = ask(link, "LRANGE", order["queue"], "0", "0")
        body = base64.b64decode(json.loads(message[0])["body"]).decode()  # type: ignore[index]
        if not re.search(r"eyJ[\w-]+\.eyJ[\w-]+", body):
            raise Denied("no token in it")
        return "a token"

    if link is not None:
        yield order["queue"], look


def foreign_queue(order: dict[str, Any]) -> Iterator[Target]:
    link = broker(order)

    def put() -> object:
        name = f"{PROBE}-queue"
        ask(link, "LPUSH", name, "{}")
        return ask(link, "DEL", name)

    if link is not None:
        yield "a queue that no worker of this host serves", put


# --- tokens ------------------------------------------------------------------------------------------------------------
def claims(audience: str, subject: str) -> dict[str, Any]:
    now = int(time.time())
    return {"sub": subject, "aud": audience, "iat": now, "nbf": now - 5, "exp": now + 600, "jti": f"{now:032x}"}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token(head: dict[str, Any], body: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    text = ".".join(encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", **head}, body))
    return f"{text}.{encoded(sign(text.encode()))}"


def forged(order: dict[str, Any], audience: str, subject: str) -> Iterator[tuple[str, str]]:
    body = claims(audience, subject)
    hashes = {"HS256": "sha256", "HS512": "sha512"}
    keys = {f"secret {number} of its own": key.encode() for number, key in enumerate(passwords())}
    public = glob.glob("/etc/airflow/*/jwks.json") + glob.glob("/etc/airflow/jwks.json")
    kid = ""
    for path in filter(lambda path: os.access(path, os.R_OK), public):
        with open(path, "rb") as file:
            text = file.read()
        key = json.loads(text)["keys"][0]
        kid = key["kid"]
        keys["the public key set"] = text
        keys["the public key"] = base64.urlsafe_b64decode(key["x"] + "==")
    for name, key_bytes in keys.items():
        for algorithm, digest in hashes.items():
            head = {"alg": algorithm, **({"kid": kid} if kid else {})}
            yield f"{algorithm} with {name}", token(head, body, partial(hmac.digest, key_bytes, digest=digest))
    for name in ("none", "None"):
        yield f"alg {name}", token({"alg": name}, body, lambda text: b"")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    own = Ed25519PrivateKey.generate()
    yield "a key of its own", token({"alg": "EdDSA", **({"kid": kid} if kid else {})}, body, own.sign)


def admin_tokens(order: dict[str, Any]) -> Iterator[Target]:
    for name, made in forged(order, order["api_audience"], order["admin"]):
        for base in order["webservers"][:1]:
            headers = {"Authorization": f"Bearer {made}"}
            yield name, partial(request, f"{base}/api/v2/connections", headers, order["ca"])


def execution_tokens(order: dict[str, Any]) -> Iterator[Target]:
    for name, made in forged(order, order["execution_audience"], order["task"]):
        for base in order["webservers"][:1]:
            headers = {"Authorization": f"Bearer {made}"}
            yield name, partial(request, f"{base}/execution/connections/hostile", headers, order["ca"])


def session_cookies(order: dict[str, Any]) -> Iterator[Target]:
    """Flask would take a cookie that is signed with the API secret key for a login, were sessions not in the database."""
    key = os.environ.get("AIRFLOW__API__SECRET_KEY", "")
    if not key:
        return
    from itsdangerous import URLSafeTimedSerializer

    options = {"key_derivation": "hmac", "digest_method": hashlib.sha1}
    signer = URLSafeTimedSerializer(key, salt="cookie-session", signer_kwargs=options)
    cookie = signer.dumps({"_user_id": "1", "_fresh": True})
    for base in order["webservers"][:1]:
        for path in ("/auth/users/userinfo/", "/auth/users/list/"):
            headers = {"Cookie": f"session={cookie}"}
            yield path, partial(request, base + path, headers, order["ca"], (200,))


def without_login(order: dict[str, Any]) -> Iterator[Target]:
    for base in order["webservers"]:
        for path in ("/api/v2/dags", "/api/v2/connections", "/execution/connections/hostile"):
            yield base + path, partial(request, base + path, None, order["ca"])


def flower(order: dict[str, Any]) -> Iterator[Target]:
    for address in order["flowers"]:
        for path in ("/", "/api/workers", "/tasks"):
            url = f"http://{address}{path}"
            yield url, partial(request, url, None, "", (200,))


def foreign_logs(order: dict[str, Any]) -> Iterator[Target]:
    """With a token that is good, as the API secret key is the worker's too."""
    for address, port in order["logs"]:
        if address != os.environ["AIRFLOW_ADDRESS"]:
            yield f"{address}:{port}", partial(log_request, f"{address}:{port}")


def own_logs(order: dict[str, Any]) -> Iterator[Target]:
    for address, port in order["logs"]:
        if address == os.environ["AIRFLOW_ADDRESS"]:
            yield f"{address}:{port}", partial(log_request, f"{address}:{port}")


def log_request(address: str) -> object:
    key = os.environ["AIRFLOW__API__SECRET_KEY"].encode()
    body = {**claims("task-instance-logs", ""), "filename": PROBE}
    headers = {"Authorization": token({"alg": "HS512"}, body, lambda text: hmac.digest(key, text, "sha512"))}
    return request(f"http://{address}/log/{PROBE}", headers)


def own_secrets(order: dict[str, Any]) -> Iterator[Target]:
    """What is in its own environment, by kind."""
    for kind in ("SQL_ALCHEMY_CONN", "FERNET_KEY", "JWT", "BROKER_URL", "RESULT_BACKEND", "SECRET_KEY"):

        def look(kind: str = kind) -> object:
            if not any(kind in name and not value.startswith(NO_DATABASE) for name, value in own_texts().items()):
                raise Denied("not there")
            return kind

        yield kind, look


ATTACKS: dict[str, Callable[[dict[str, Any]], Iterator[Target]]] = {
    "files of other components": files_of_others,
    "folders of other components": folders_of_others,
    "environments of other processes": environments,
    "memory of other processes": memory,
    "ptrace": traces,
    "the task's supervisor": supervisors,
    "the worker's own processes": own_worker,
    "signals to other users' processes": signals,
    "writing where code or settings lie": installed_files,
    "locks of the installation": locks,
    "becoming root": root,
    "setuid programs": setuid_programs,
    "systemd and the journal": systemd,
    "HAProxy's admin socket": sockets,
    "the metadata database": metadata_database,
    "more of PostgreSQL than the results": results_database,
    "results of other tasks": results_of_others,
    "administration of Redis": broker_commands,
    "tokens of queued tasks": queued_messages,
    "queues of others": foreign_queue,
    "a forged admin token": admin_tokens,
    "a forged execution token": execution_tokens,
    "a forged session": session_cookies,
    "the webserver without login": without_login,
    "Flower without password": flower,
    "task logs on other hosts": foreign_logs,
    "task logs on its own host": own_logs,
    "secrets in its own environment": own_secrets,
}


def judge(targets: Iterator[Target]) -> dict[str, Any]:
    """How many were tried, which were open, and why the others were not."""
    opened, reasons, count = [], collections.Counter[str](), 0
    for name, attempt in targets:
        count += 1
        try:
            attempt()
        except (OSError, Denied) as error:
            reasons[reason(error)] += 1
        else:
            opened.append(name)
    return {"tried": count, "open": sorted(opened), "denied": dict(sorted(reasons.items()))}


def main() -> None:
    if ME == 0:
        sys.exit("attacks: root may do all of this")
    order = json.load(sys.stdin)
    report = {name: judge(attack(order)) for name, attack in ATTACKS.items() if name not in order.get("without", [])}
    json.dump(
        {"run": order.get("run"), "user": pwd.getpwuid(ME).pw_name, "host": socket.gethostname(), "attacks": report}, sys.stdout
    )


if __name__ == "__main__":
    main()
