# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asks each component of this host whether it works, restarts one that does not, and keeps a worker from taking tasks while
its disk is full, its clock is off or no webserver can be reached.

Run by airflow-health.timer with the system's Python, as root, since systemd lets nobody else kill a unit. Starts no Airflow:
HTTP, one SQL for all jobs of the host, one connection to Redis, one to HAProxy's socket. What to ask stands in
/etc/airflow/health.json, what was found in /run/airflow/health.json, without any secret.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from urllib.parse import unquote, urlsplit

SETTINGS = "/etc/airflow/health.json"
STATE = "/run/airflow/health.json"
RUNNING = "/run/airflow"
# A unit condition of the workers.
WITHDRAWN = "/run/airflow/withdrawn"
DRAINED = "/etc/airflow/drained"
# A playbook changes the database, or a restored one waits for somebody to look at it.
HANDS_OFF = ("/etc/airflow/upgrading", "/etc/airflow/paused")
# Of the collection's modules that change a host.
LOCK = "/run/windfarm-airflow.lock"
UNITS = "/etc/systemd/system"
HELD = "held.conf"
PROBE = "/usr/local/lib/airflow/probe.py"
CA = "/etc/airflow/ca.pem"
COLOURS = "ab"
# [scheduler] scheduler_health_check_threshold and its like.
HEARTBEAT_SECONDS = 30
# Celery sends a worker's heartbeat every 2 s.
ANSWER_SECONDS = 10
# What was away is back: others need to notice (Celery asks anew after 30 s at the latest).
SETTLE_SECONDS = 60
# A component that a restart does not mend is not restarted all day.
RESTARTS, WITHIN_SECONDS = 3, 3600
FEWEST_INODES = 5000
# Who has run a task asks the webservers for so long to note how it ended; killed before, the task would run again.
REPORT_SECONDS = 150
DATABASE_URL = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
BROKER_URL = "AIRFLOW__CELERY__BROKER_URL"
PROPERTIES = ("Id", "ActiveState", "MainPID", "ControlGroup", "ExecMainStartTimestampMonotonic", "UnitFileState")
_ENVIRONMENT = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="(.*)"$')
_HASH = re.compile(r"^ExecStartPre=.*\becho ([0-9a-f]+) > ", re.M)


# --- decisions, from what was seen ---------------------------------------------------------------------------------------
class Component:
    """What is known of one component: what everybody may read, and what the next run must remember."""

    def __init__(self, shown: dict, memory: dict) -> None:
        # None: that is not known just now.
        self.healthy: bool | None = None
        self.why = ""
        self.strikes = int(shown.get("strikes", 0))
        self.restarts = int(memory.get("restarts", 0))
        self.last_restart = int(memory.get("last_restart", 0))
        self.away = float(memory.get("away", -math.inf)) if memory.get("away") is not None else -math.inf
        self.times = [float(one) for one in memory.get("times", [])]
        self.progress = memory.get("progress")
        # Of a worker: that its heartbeats can be heard at all, whatever its own settings of the broker are.
        self.heard = bool(memory.get("heard"))

    def found_healthy(self) -> None:
        self.healthy, self.why, self.strikes = True, "", 0

    def not_judged(self, why: str, healthy: bool | None = None) -> None:
        self.healthy, self.why, self.strikes = healthy, why, 0

    def dependency_away(self, why: str, now: float) -> None:
        self.not_judged(why, healthy=False)
        self.away = now

    def failed(self, why: str, now: float) -> None:
        """A strike, unless what it needs has only just come back."""
        if now - self.away < SETTLE_SECONDS:
            self.not_judged(f"{why}; what it needs was away until just now")
            return
        self.healthy, self.why = False, why
        self.strikes += 1

    def may_restart(self, now: float) -> bool:
        self.times = [one for one in self.times if now - one < WITHIN_SECONDS]
        return len(self.times) < RESTARTS

    def restarted(self, now: float, date: float) -> None:
        self.times.append(now)
        self.restarts += 1
        self.last_restart = int(date)
        self.strikes = 0
        self.progress = None

    def shown(self) -> dict:
        return {
            "healthy": self.healthy,
            "strikes": self.strikes,
            "restarts": self.restarts,
            "last_restart": self.last_restart,
            "why": self.why,
        }

    def memory(self) -> dict:
        away = None if math.isinf(self.away) else self.away
        return {
            "away": away,
            "times": self.times,
            "progress": self.progress,
            "heard": self.heard,
            "restarts": self.restarts,
            "last_restart": self.last_restart,
        }


def consumes(waiting: int, tasks: list, slots: int, ended: int, before: list | None) -> tuple[bool, list | None]:
    """Whether a worker takes what waits for it, and what to compare with next time.

    One that has lost its consumers answers every ping. Short tasks leave nothing to be seen but the time that their processes
    have used, which those that started them count when they end.
    """
    if not waiting or len(tasks) >= slots:
        return True, None
    progress = [sorted(tasks), ended]
    if before is None:
        return True, progress
    return bool(set(tasks) - set(before[0])) or ended != before[1], progress


def too_full(size: int, free: int, needed: int, withdrawn: bool) -> bool:
    """Small file systems need a tenth only. Who has left comes back when there is a quarter more, not at the first byte."""
    wanted = min(needed, size // 10)
    return free < wanted * (1.25 if withdrawn else 1)


def clock_is_off(witnesses: dict, limit: float, was_off: bool) -> bool | None:
    """From (offset, error) of each witness; None when it cannot be told. All of them must agree, for one may be off itself."""
    if len(witnesses) < 2:
        return None
    border = limit / 2 if was_off else limit
    least = [math.copysign(max(0.0, abs(offset) - error), offset) for offset, error in witnesses.values()]
    return all(one > border for one in least) or all(one < -border for one in least)


# --- asking --------------------------------------------------------------------------------------------------------------
def read_environment(path: str) -> dict:
    """An EnvironmentFile as the collection writes it."""
    try:
        with open(path, encoding="utf-8") as file:
            found = [_ENVIRONMENT.match(line.rstrip("\n")) for line in file]
    except FileNotFoundError:
        return {}
    return {match[1]: re.sub(r'\\(["\\`$])', r"\1", match[2]) for match in found if match}


def connect(address: str, port: int, ca: str, name: str) -> socket.socket:
    plain = socket.create_connection((address, port), ANSWER_SECONDS)
    return ssl.create_default_context(cafile=ca).wrap_socket(plain, server_hostname=name) if ca else plain


def ask_http(health: dict) -> tuple[bool | None, str, tuple | None]:
    """Whether it has the expected status, what to say of it, and by how much this host's clock differs.

    No restart mends a certificate: who shows a wrong one is neither well nor stuck.
    """
    address, port, name = str(health["address"]), int(health["port"]), str(health.get("name") or health["address"])
    try:
        with connect(address, port, str(health.get("ca") or ""), name) as opened:
            begun = time.time()
            opened.sendall(f"GET {health['path']} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            text = b""
            while b"\r\n\r\n" not in text and len(text) < 65536:
                part = opened.recv(16384)
                if not part:
                    break
                text += part
            ended = time.time()
    except (FileNotFoundError, ssl.SSLCertVerificationError) as error:
        return None, f"port {port}: {error}", None
    except OSError as error:
        return False, f"port {port}: {error}", None
    lines = text.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    found = re.match(r"HTTP/1\.[01] (\d{3})\b", lines[0])
    if not found:
        return False, f"port {port}: no HTTP", None
    dates = [line[5:].strip() for line in lines if line[:5].lower() == "date:"]
    return int(found[1]) == int(health["status"]), f"port {port}: HTTP status {found[1]}", difference(dates, begun, ended)


def difference(dates: list, begun: float, ended: float) -> tuple | None:
    """A Date header is cut to seconds, and servers make it once a second."""
    try:
        theirs = ssl.cert_time_to_seconds(re.sub(r"^\w+, (\d+) (\w+) (\d+) ([\d:]+) GMT$", r"\2 \1 \4 \3 GMT", dates[0])) + 1
    except (IndexError, ValueError):
        return None
    return (begun + ended) / 2 - theirs, 1 + (ended - begun) / 2


def ask_haproxy(path: str) -> tuple[bool | None, str]:
    """By its own socket: over HTTP one could not tell it from a webserver that hangs, and the kernel connects to any of them."""
    text = b""
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.settimeout(ANSWER_SECONDS)
            opened.connect(path)
            opened.sendall(b"show info\n")
            text = opened.recv(4096)
    except FileNotFoundError as error:
        return None, f"{path}: {error.strerror}"
    except OSError as error:
        return False, f"{path}: {error}"
    return text.startswith(b"Name:"), f"{path}: no answer"


class Redis:
    """As much of a client as it takes to ask."""

    def __init__(self, environment: dict) -> None:
        found, authority = urlsplit(environment[BROKER_URL]), environment.get("AIRFLOW__CELERY__SSL_CACERT", CA)
        host = found.hostname or "localhost"
        self.database = int(found.path.strip("/") or 0)
        self._socket = connect(host, found.port or 6379, authority if found.scheme == "rediss" else "", host)
        self._file = self._socket.makefile("rb")
        if found.password:
            self.call("AUTH", *([unquote(found.username)] if found.username else []), unquote(found.password))
        if self.database:
            self.call("SELECT", str(self.database))

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def call(self, *words: str) -> object:
        parts = [word.encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return self._read()

    def _read(self) -> object:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("Redis has hung up")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise OSError(f"Redis: {rest.decode('utf-8', 'replace')}")
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._file.read(size + 2)[:-2]
        if kind == b"*":
            return [self._read() for _element in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def clock(self) -> tuple:
        begun = time.time()
        seconds, micro = (int(part) for part in self.call("TIME"))  # type: ignore[attr-defined]
        ended = time.time()
        return (begun + ended) / 2 - seconds - micro / 1e6, (ended - begun) / 2

    def waiting(self, queues: list) -> int:
        # Kombu keeps a list of its own for each priority but the first.
        names = [f"{queue}{suffix}" for queue in queues for suffix in ("", "\x06\x163", "\x06\x166", "\x06\x169")]
        return sum(int(self.call("LLEN", name)) for name in names)  # type: ignore[call-overload]

    def hear(self, names: set) -> set:
        """Which of these workers send a heartbeat: more than an answer to a ping would tell, for less work on all workers."""
        heard: set = set()
        deadline = time.monotonic() + ANSWER_SECONDS
        self.call("SUBSCRIBE", f"/{self.database}.celeryev/worker.heartbeat")
        try:
            while not names <= heard and (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                message = self._read()
                heard.add(json.loads(message[2])["headers"]["hostname"])  # type: ignore[index]
        except TimeoutError:
            pass
        return heard & names


def ask_jobs(config: str) -> tuple[dict | None, str]:
    """Last heartbeats of this host's jobs, by type; None where the database does not answer."""
    environment = read_environment(f"{config}/environment")
    # Its own Python has the client for PostgreSQL; that is all of the release that is loaded.
    command = [f"{environment.get('AIRFLOW_RELEASE', '')}/bin/python", "-I", PROBE]
    try:
        done = subprocess.run(
            command,
            input=json.dumps({"kind": "jobs"}),
            # libpq would look for a certificate in root's home, which is closed to this unit.
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
            capture_output=True,
            text=True,
            timeout=2 * ANSWER_SECONDS,
            check=False,
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return None, f"no answer: {type(error).__name__}"
    return answer.get("jobs"), answer["detail"]


# --- systemd and processes -----------------------------------------------------------------------------------------------
def systemctl(*arguments: str) -> str:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def show(units: list) -> dict:
    text = systemctl("show", f"--property={','.join(PROPERTIES)}", *units) if units else ""
    parts = [dict(line.partition("=")[::2] for line in part.splitlines()) for part in text.split("\n\n") if part.strip()]
    return {part["Id"]: {**dict.fromkeys(PROPERTIES, ""), **part} for part in parts}


def age(properties: dict) -> float:
    """Seconds since its process was started."""
    return time.monotonic() - int(properties["ExecMainStartTimestampMonotonic"] or 0) / 1e6


def processes(control_group: str) -> list:
    """(state, seconds that its children had used when they ended, command line) of each process."""
    found = []
    for folder, _folders, _files in os.walk(f"/sys/fs/cgroup{control_group}") if control_group else []:
        try:
            with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
                pids = file.read().split()
        except OSError:
            continue
        for pid in pids:
            # It may end while it is looked at.
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    words = file.read().rpartition(")")[2].split()
                with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                    found.append((words[0], int(words[13]) + int(words[14]), file.read().replace("\0", " ").strip()))
            except OSError:
                continue
    return found


def tasks_of(found: list) -> list:
    """Task instances by the titles of their processes. One that is stopped or traced does not run."""
    title = "airflow worker -- "
    return [line.rpartition(" ")[2] for state, _ended, line in found if line.startswith(title) and state not in "TtZX"]


def say(text: str) -> None:
    print(text, flush=True)


def unit_hash(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            found = _HASH.search(file.read())
    except FileNotFoundError:
        return ""
    return found[1] if found else ""


def materialise(config: str, unit: str) -> None:
    """Give a colour that does not run the unit, settings and environment that a playbook has prepared."""
    colour = unit.removesuffix(".service")[-1]
    own = f"{config}-{colour}"
    os.makedirs(own, exist_ok=True)
    # The service's UMask= closes what it makes, and the worker's user must get through.
    os.chmod(own, 0o755)  # noqa: S103
    for name, mode in (("airflow.cfg", 0o644), ("environment", 0o600), ("unit", 0o644)):
        with open(f"{config}/{name}", encoding="utf-8") as file:
            text = file.read().replace("@COLOUR@", colour).replace(f'"{config}/airflow.cfg"', f'"{own}/airflow.cfg"')
        write(f"{UNITS}/{unit}" if name == "unit" else f"{own}/{name}", text, mode)
    systemctl("daemon-reload")


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def write(path: str, text: str, mode: int) -> None:
    """At once or not at all, with its mode from the start."""
    new = f"{path}.new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    os.replace(new, path)


class Busy(Exception):
    """A playbook changes this host just now."""


class Alone:
    """As the collection's modules do, but without waiting for them."""

    def __enter__(self) -> None:
        self.lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.lock)
            raise Busy from None

    def __exit__(self, *_error: object) -> None:
        os.close(self.lock)


# --- one run -------------------------------------------------------------------------------------------------------------
class Asked:
    """One component whose unit runs, and the answer to how it is."""

    def __init__(self, service: dict, unit: str, properties: dict) -> None:
        self.service = service
        self.health = service["health"]
        self.unit = unit
        self.properties = properties
        self.key = service["service"].removeprefix("airflow-")
        colour = unit.rpartition(".")[0][-1] if service["instance"] else ""
        self.config = f"{service['config']}-{colour}" if colour else service["config"]
        self.name = str(self.health.get("name", "")).replace("@COLOUR@", colour)
        self.environment = read_environment(f"{self.config}/environment")
        # None: that cannot be told.
        self.ok: bool | None = None
        self.why = "it could not be asked"


class Run:
    def __init__(self, settings: dict, before: dict) -> None:
        self.settings = settings
        self.before = before
        self.memory = before.get("memory", {})
        self.now = time.monotonic()
        self.state: dict[str, dict] = {}
        self.components: dict[str, Component] = {}
        # What could be reached, with what to say of it; asked once, some only when it matters.
        self.reached: dict[str, tuple[bool, str]] = {}
        self.witnesses: dict[str, tuple] = {}
        self.waiting: dict[str, int] = {}
        # Worker units that are to end, with when that was asked for and since when no task of them runs; and the services that
        # are still to come back since their host is well.
        self.ending: dict[str, list] = dict(self.memory.get("ending", {}))
        self.stopped: list[str] = list(self.memory.get("stopped", []))
        # How many times in a row no webserver could be reached, and what to say of it when that is too many.
        self.webservers: dict = {"missed": 0, "why": "", **before.get("webservers", {})}

    def units(self, service: dict) -> list:
        if service["instance"]:
            return [f"{service['service']}-{colour}.service" for colour in COLOURS]
        return [f"{service['service']}.service"]

    def go(self) -> dict:
        services = self.settings["services"]
        self.state = show([unit for service in services for unit in self.units(service)])
        asked = [
            Asked(service, unit, self.state[unit])
            for service in services
            for unit in self.units(service)
            if self.state.get(unit, {}).get("ActiveState") == "active"
        ]
        # Both colours for as long as a change takes: which one is to stay is not decided here.
        keys = [one.key for one in asked]
        asked = [one for one in asked if keys.count(one.key) == 1]
        known = self.before.get("components", {})
        for one in asked:
            self.components[one.key] = Component(known.get(one.key, {}), self.memory.get("components", {}).get(one.key, {}))
        hands_off = next((path for path in HANDS_OFF if os.path.exists(path)), "")
        if hands_off:
            for component in self.components.values():
                component.not_judged(f"not asked while {hands_off} is there")
            return self.result(self.before.get("disk", {}), self.before.get("clock", {}))
        self.ask(asked)
        disk, clock = self.look_at_host([one for one in asked if one.health["kind"] == "celery"])
        self.end_what_should_have_ended()
        for one in asked:
            self.judge(one)
        return self.result(disk, clock)

    def result(self, disk: dict, clock: dict) -> dict:
        return {
            "checked": int(time.time()),
            "components": {key: component.shown() for key, component in self.components.items()},
            "disk": disk,
            "clock": clock,
            "webservers": self.webservers,
            "withdrawn": text_of(WITHDRAWN),
            "memory": {
                # What does not run just now, or in both colours, is not forgotten: a storm of restarts would have no end.
                "components": {**self.absent(), **{key: component.memory() for key, component in self.components.items()}},
                "ending": self.ending,
                "stopped": self.stopped,
            },
        }

    def absent(self) -> dict:
        keys = [service["service"].removeprefix("airflow-") for service in self.settings["services"]]
        known = self.memory.get("components", {})
        return {key: {**known[key], "progress": None} for key in keys if key in known}

    # Asking -----------------------------------------------------------------

    def ask(self, asked: list) -> None:
        """All side by side: what hangs costs its own time-out, not the sum of all."""
        jobs = [one for one in asked if one.health["kind"] == "job"]
        workers = [one for one in asked if one.health["kind"] == "celery"]
        questions = [threading.Thread(target=self.ask_by_http, args=(one,)) for one in asked if one.health["kind"] == "http"]
        if jobs:
            questions.append(threading.Thread(target=self.ask_for_jobs, args=(jobs,)))
        questions += [
            threading.Thread(target=self.ask_for_haproxy, args=(one,)) for one in asked if one.health["kind"] == "haproxy"
        ]
        absent = next((one for one in self.settings["services"] if one["instance"]), None) if os.path.exists(WITHDRAWN) else None
        if workers:
            questions.append(threading.Thread(target=self.ask_for_workers, args=(workers,)))
            questions.append(threading.Thread(target=self.ask_for_webservers, args=(workers[0].health,)))
        elif absent:
            # Whoever has left must learn that it may come back.
            questions.append(threading.Thread(target=self.ask_for_broker, args=(absent,)))
            questions.append(threading.Thread(target=self.ask_for_webservers, args=(absent["health"],)))
        for question in questions:
            question.start()
        for question in questions:
            question.join()

    def ask_by_http(self, one: Asked) -> None:
        one.ok, one.why, _clock = ask_http(one.health)

    def ask_for_jobs(self, jobs: list) -> None:
        found, detail = ask_jobs(jobs[0].config)
        self.reached["database"] = found is not None, f"the database does not answer ({detail})"
        for one in jobs:
            last = (found or {}).get(one.health["job_type"])
            # Against this host's own clock, which wrote it.
            passed = time.time() - last if last else math.inf
            one.ok = passed < HEARTBEAT_SECONDS
            one.why = f"its last heartbeat is {passed:.0f} s old" if last else "it has no heartbeat in the database"

    def ask_for_workers(self, workers: list) -> None:
        names = {one.name for one in workers}
        try:
            redis = Redis(workers[0].environment)
            self.witnesses["redis"] = redis.clock()
            self.waiting = {one.key: redis.waiting(one.health["queues"].split(",")) for one in workers}
            heard = redis.hear(names)
            redis.close()
        except (OSError, KeyError, ValueError, TypeError) as error:
            self.reached["broker"] = False, f"Redis does not answer ({error})"
            for one in workers:
                one.ok = False
            return
        self.reached["broker"] = True, ""
        for one in workers:
            one.ok, one.why = one.name in heard, f"it sends no heartbeat, {ANSWER_SECONDS} s long"

    def ask_for_haproxy(self, one: Asked) -> None:
        one.ok, one.why = ask_haproxy(one.health["socket"])

    def ask_for_broker(self, service: dict) -> None:
        try:
            redis = Redis(read_environment(f"{service['config']}/environment"))
            self.witnesses["redis"] = redis.clock()
            redis.close()
        except (OSError, KeyError, ValueError, TypeError) as error:
            self.reached["broker"] = False, f"Redis does not answer ({error})"
            return
        self.reached["broker"] = True, ""

    def ask_for_webservers(self, health: dict) -> None:
        ok, detail, clock = ask_http(health["webserver"])
        self.reached["webservers"] = bool(ok), f"no webserver answers ({detail})"
        if ok and clock:
            self.witnesses["webserver"] = clock

    def away(self, one: Asked) -> str:
        """What does not answer of all that it needs; empty when it is its own fault."""
        if DATABASE_URL in one.environment and "database" not in self.reached:
            found, detail = ask_jobs(one.config)
            self.reached["database"] = found is not None, f"the database does not answer ({detail})"
        if BROKER_URL in one.environment and "broker" not in self.reached:
            try:
                Redis(one.environment).close()
                self.reached["broker"] = True, ""
            except OSError as error:
                self.reached["broker"] = False, f"Redis does not answer ({error})"
        needed = {
            "database": DATABASE_URL in one.environment,
            "broker": BROKER_URL in one.environment,
            "webservers": "webserver" in one.health,
        }
        return next((self.reached[what][1] for what, needs in needed.items() if needs and not self.reached[what][0]), "")

    # Judging ----------------------------------------------------------------

    def judge(self, one: Asked) -> None:
        component = self.components[one.key]
        if one.unit in self.ending:
            component.not_judged("is to end")
            return
        component.heard = component.heard or bool(one.ok)
        if one.ok and self.waiting.get(one.key):
            found = processes(one.properties["ControlGroup"])
            tasks, slots, waiting = tasks_of(found), int(one.health["slots"]), self.waiting[one.key]
            ended = sum(seconds for _state, seconds, _words in found)
            one.ok, component.progress = consumes(waiting, tasks, slots, ended, component.progress)
            one.why = f"it starts none of the {waiting} messages in its queues, with {len(tasks)} of {slots} slots in use"
        else:
            component.progress = None
        if one.ok and "webserver" in one.health and not self.reached["webservers"][0]:
            component.dependency_away(self.reached["webservers"][1], self.now)
        elif one.ok:
            component.found_healthy()
        elif one.ok is None:
            component.not_judged(one.why, healthy=False)
        elif age(one.properties) < self.settings["start_seconds"]:
            component.not_judged(f"starting: {one.why}")
        elif os.path.exists(f"{UNITS}/{one.unit}.d/{HELD}"):
            component.not_judged(f"held by an upgrade: {one.why}")
        elif problem := self.away(one):
            component.dependency_away(problem, self.now)
        elif one.health["kind"] == "celery" and not component.heard:
            component.not_judged("it has sent no heartbeat since the host's boot", healthy=False)
        else:
            component.failed(one.why, self.now)
            if component.strikes >= self.settings["strikes"]:
                self.restart(one, component)

    def restart(self, one: Asked, component: Component) -> None:
        limit = self.settings["strikes"]
        found = f"{one.unit} does not work, {component.strikes} times in a row: {one.why}"
        if not self.settings["restart"] or not component.may_restart(self.now):
            because = "airflow_health_restart is false" if not self.settings["restart"] else f"{RESTARTS} restarts in an hour"
            # Once, and again from time to time.
            if component.strikes == limit or component.strikes % 60 == 0:
                say(f"{found}. It is left as it is ({because})")
            return
        try:
            with Alone():
                properties = show([one.unit])[one.unit]
                if (properties["ActiveState"], properties["MainPID"]) != ("active", one.properties["MainPID"]):
                    return
                done = self.restart_worker(one) if one.service["instance"] else self.kill(one)
        except Busy:
            component.why += "; left to the playbook that changes this host now"
            return
        component.restarted(self.now, time.time())
        say(f"{found}. {done}")

    def kill(self, one: Asked) -> str:
        # What hangs would have its whole time to stop; systemd starts what was killed.
        systemctl("kill", "--signal=SIGKILL", one.unit)
        return "Killed; systemd starts it again"

    def restart_worker(self, one: Asked) -> str:
        """Never killed while a task runs: that one would be lost, or run again beside what it had already done.

        systemd's SIGTERM comes with a SIGCONT, for the main process alone. One that was merely stopped thus gives back what it
        has fetched and waits for its tasks; of one that does not, the tasks go on by themselves, as they report to the
        webservers. What is left after them is killed by a later run.
        """
        self.ending[one.unit] = [self.now, None]
        tasks = tasks_of(processes(one.properties["ControlGroup"]))
        other = self.other(one.unit)
        if tasks and self.may_overlap() and self.swap(one.service, one.unit, other):
            systemctl("stop", "--no-block", one.unit)
            return f"{other} takes its place while it finishes {len(tasks)} running tasks"
        systemctl("restart", "--no-block", one.unit)
        return f"Restarted, after {len(tasks)} running tasks" if tasks else "Restarted; no task was running"

    def may_overlap(self) -> bool:
        return bool(self.settings["worker_restart"] == "overlap")

    def other(self, unit: str) -> str:
        stem, colour = unit.removesuffix(".service")[:-1], unit.removesuffix(".service")[-1]
        return f"{stem}{COLOURS.replace(colour, '')}.service"

    def swap(self, service: dict, unit: str, other: str) -> bool:
        """Start the idle colour with what the other was started with; not with what a playbook has prepared but not proven."""
        config = service["config"]
        idle = self.state.get(other, {}).get("ActiveState") in ("inactive", "failed")
        if not idle or unit_hash(f"{config}/unit") != text_of(f"{RUNNING}/{unit}"):
            return False
        materialise(config, other)
        systemctl("start", "--no-block", other)
        systemctl("--quiet", "disable", unit)
        systemctl("--quiet", "enable", other)
        return True

    def end_what_should_have_ended(self) -> None:
        for unit, (since, idle) in list(self.ending.items()):
            properties = self.state.get(unit, {})
            if properties.get("ActiveState") != "deactivating":
                # Started anew, gone, or not stopped at all.
                late = self.now - since > self.settings["start_seconds"]
                if properties.get("ActiveState") != "active" or age(properties) < self.now - since or late:
                    del self.ending[unit]
                continue
            found = processes(properties["ControlGroup"])
            # But for the main process, which systemd has let go on.
            frozen = sum(state not in "TtZX" for state, _ended, _line in found) <= 1
            idle = None if tasks_of(found) else idle or self.now
            self.ending[unit] = [since, idle]
            if idle and (frozen or self.now - idle > REPORT_SECONDS):
                say(f"{unit} has not ended, and no task of it runs: killed")
                systemctl("kill", "--signal=SIGKILL", unit)

    # The host ---------------------------------------------------------------

    def look_at_host(self, workers: list) -> tuple[dict, dict]:
        """Keep workers away from their queues while what they run would fail; state of the disk and of the clock."""
        if not any(service["instance"] for service in self.settings["services"]):
            return {}, {}
        was = os.path.exists(WITHDRAWN)
        disk, clock = self.disk(was), self.clock()
        self.count_webservers(workers)
        reasons = [one["why"] for one in (disk, clock, self.webservers) if one["why"]]
        try:
            if reasons:
                self.withdraw(workers, "; ".join(reasons), was)
            elif was or self.stopped:
                self.come_back()
        except Busy:
            pass
        return disk, clock

    def disk(self, was: bool) -> dict:
        needed = int(self.settings["disk_free_mb"]) * 2**20
        shown: dict = {"free_mb": None, "path": "", "why": ""}
        for path in self.settings["disk_paths"] if needed else []:
            found = os.statvfs(path)
            free = found.f_bavail * found.f_frsize
            if shown["free_mb"] is None or free < shown["free_mb"] * 2**20:
                shown.update(free_mb=free // 2**20, path=path)
            if too_full(found.f_blocks * found.f_frsize, free, needed, was):
                shown["why"] = f"the disk is full: {free // 2**20} MB are free in {path}"
            elif found.f_files and too_full(found.f_files, found.f_favail, FEWEST_INODES, was):
                shown["why"] = f"the disk is full: {found.f_favail} files are free in {path}"
        return shown

    def clock(self) -> dict:
        before = self.before.get("clock", {})
        limit = float(self.settings["clock_seconds"])
        offset = round(self.witnesses["redis"][0], 3) if "redis" in self.witnesses else None
        if not limit:
            return {"offset": offset, "why": ""}
        off = clock_is_off(self.witnesses, limit, bool(before.get("why")))
        if off is None:
            # Nobody to ask: what was true stays so.
            return {"offset": offset, "why": str(before.get("why", ""))}
        shown = {name: round(seconds, 3) for name, (seconds, _error) in self.witnesses.items()}
        ahead = "ahead of" if offset and offset > 0 else "behind"
        why = f"the clock is {abs(offset or 0):.1f} s {ahead} Redis' and the webserver's" if off else ""
        return {"offset": offset, "why": why, "offsets": shown}

    def count_webservers(self, workers: list) -> None:
        """Without one, each task that is taken fails after a minute, and the queue is eaten up: it waits better.

        One time more than it takes until an HAProxy that hangs is restarted. While Redis is away too nothing can be taken.
        """
        ok, why = self.reached.get("webservers", (None, ""))
        if ok:
            self.webservers = {"missed": 0, "why": ""}
        elif ok is False and self.reached.get("broker", (False, ""))[0]:
            missed = int(self.webservers["missed"]) + 1
            # After a boot everything is awaited for as long.
            ready = bool(self.webservers["why"]) or any(age(one.properties) >= self.settings["start_seconds"] for one in workers)
            self.webservers = {"missed": missed, "why": why if ready and missed > self.settings["strikes"] else ""}

    def withdraw(self, workers: list, why: str, was: bool) -> None:
        serving = [one.unit for one in workers]
        if was and not serving:
            write(WITHDRAWN, f"{why}\n", 0o644)
            return
        with Alone():
            write(WITHDRAWN, f"{why}\n", 0o644)
            if serving:
                systemctl("stop", "--no-block", *serving)
        say(f"No worker takes tasks here any more: {why}. Running tasks go on; {', '.join(serving) or 'none'} stopped")

    def come_back(self) -> None:
        services = {service["service"]: service for service in self.settings["services"] if service["instance"]}
        with Alone():
            # Looking took its time.
            self.state.update(show([unit for service in services.values() for unit in self.units(service)]))
            if os.path.exists(WITHDRAWN):
                os.unlink(WITHDRAWN)
                # All, not only those stopped here: whoever put a drained host back meanwhile could start none.
                self.stopped = list(services)
                say(f"Nothing keeps the workers from their tasks any more: {', '.join(self.stopped)} to start, unless drained")
            for name in list(self.stopped):
                if name not in services or os.path.exists(DRAINED) or self.serves_again(services[name]):
                    self.stopped.remove(name)

    def serves_again(self, service: dict) -> bool:
        """Whether nothing is left to do; False while its enabled colour still finishes its tasks and the other cannot start."""
        states = {unit: self.state.get(unit, {}) for unit in self.units(service)}
        if any(properties.get("ActiveState") in ("active", "activating", "reloading") for properties in states.values()):
            return True
        unit = next((unit for unit, properties in states.items() if properties.get("UnitFileState") == "enabled"), "")
        if not unit:
            return True
        if states[unit]["ActiveState"] in ("inactive", "failed"):
            # Playbooks start nothing of a worker that is withdrawn: meanwhile its passwords or its release may have changed.
            if unit_hash(f"{service['config']}/unit") not in ("", unit_hash(f"{UNITS}/{unit}")):
                materialise(service["config"], unit)
            systemctl("start", "--no-block", unit)
            return True
        return self.may_overlap() and self.swap(service, unit, self.other(unit))


def main() -> None:
    with open(SETTINGS, encoding="utf-8") as file:
        settings = json.load(file)
    os.makedirs(RUNNING, mode=0o700, exist_ok=True)
    try:
        before = json.loads(text_of(STATE) or "{}")
    except ValueError:
        before = {}
    write(STATE, json.dumps(Run(settings, before).go(), indent=1) + "\n", 0o644)


if __name__ == "__main__":
    main()
