# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ledger: what an operation costs the tasks that run meanwhile.

A load of tasks of every kind (dags/ledger.py) notes each start and each end in a PostgreSQL outside of the cluster.
Afterwards these rows are held against what the cluster's database says of the same tasks:

    with Ledger(inventory) as ledger:
        with ledger.load("restart of Redis"):
            operation()                         # shipping DAG files: with ledger.variables
        report = ledger.settle()
    print(report.table())
    assert_clean(report)

LOST        a task that the cluster accepted and then forgot, or counts as done though it was not: (1) a run whose trigger was
            answered, or a task with rows, that the database no longer knows; (2) a task that its ended run lacks; (3) a
            success whose try has no end row; (4) a task without an end in a run that has ended: nobody will run it.
DUPLICATED  work done more than once: a try with two start rows, two end rows of one task (also of different tries: it had
            been done before it was done again), or a try that started before an earlier one had ended.
FAILED      state failed or upstream_failed. No task of the load fails by itself, so the cluster failed it.
RETRIED     needed more than one try, for the same reason the cluster's doing, however it ended.
STUCK       still without an end when the bound of settle() is reached, in a run without an end.

API         seconds in which a task on a worker would have been without an answer, of the worker that had most: each second
            its HAProxy is asked for /api/v2/monitor/health, and an answer within 5 s that calls the database healthy counts;
            from the first question without one to the next question with one. Less than a second may pass unseen.
SCHEDULING  the longest time without any task's start although one was due: DAG ledger_pulse is due each 5 s by itself, so
            that is the longest time between two starts, less 5 s. What is due just waits when workers have no slot.

ledger.py --inventory INV [--seconds N] [-- COMMAND...]   runs COMMAND (else: waits) under load and prints the table
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fcntl
import http.client
import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import yaml
from ansible.errors import AnsibleError
from api import FINISHED, Airflow, ApiError, TimedOut, wait
from inventory import DEFAULT, ROOT, Inventory

DAGS = ROOT / "tests" / "lab" / "dags"
LAB = ROOT / "molecule" / "lab"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windfarm-airflow"
PULSE_SECONDS = 5
LONG_SECONDS = 150
# What a short task holds a slot for, its start and end included.
SLOT_SECONDS = 5
# Of each DAG: every task that a run must have, with its map indexes.
TASKS: dict[str, frozenset[tuple[str, int]]] = {
    "ledger": frozenset(
        [("short", index) for index in range(12)]
        + [("gather", -1)]
        + [(f"{kind}_{number}", -1) for kind in ("once", "again", "bash", "wait") for number in range(3)]
    ),
    "ledger_long": frozenset({("long", -1), ("bash", -1), ("wait", -1)}),
    "ledger_pulse": frozenset({("pulse", -1)}),
    "ledger_controls": frozenset((name, -1) for name in ("stuck", "lost", "twice", "failed", "retried")),
}
PULSE = "ledger_pulse"
TABLE = """
create table if not exists ledger (
  id uuid primary key, dag_id text, run text, task text, map_index int, try int, phase text, host text, pid int,
  at timestamptz default clock_timestamp()
);
alter table ledger owner to ledger;
"""
# Ends with the connection: nobody reads what it prints.
ASK = """
import json, sys, time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while True:
    begin = time.monotonic()
    try:
        with opener.open(sys.argv[1], timeout=5) as answer:
            good = json.load(answer)["metadatabase"]["status"] == "healthy"
    except Exception:
        good = False
    took = time.monotonic() - begin
    print(f"{took:.3f} {int(good)}", flush=True)
    time.sleep(max(0, 1 - took))
"""
# What Inventory raises for a host that SSH does not reach, or whose database is away.
UNASKED = (AssertionError, subprocess.TimeoutExpired)
# What an API's client passes on: a connection that breaks in an answer, an answer that is not Airflow's.
AWAY = (ApiError, OSError, http.client.HTTPException, ValueError, KeyError)


# ------------------------------------------------------------------------------------------------------- judgement
@dataclass(frozen=True, order=True)
class Task:
    """Task instance of a run; without a name the run itself."""

    dag_id: str
    run: str
    name: str = ""
    index: int = -1

    def __str__(self) -> str:
        part = self.name + (f"[{self.index}]" if self.index >= 0 else "")
        return "/".join(filter(None, (self.dag_id, self.run, part)))


@dataclass(frozen=True)
class Row:
    """What a task noted."""

    task: Task
    number: int
    phase: str
    at: float
    host: str = ""
    pid: int = 0


@dataclass(frozen=True)
class Instance:
    """What the cluster says of a task."""

    task: Task
    number: int
    state: str


@dataclass
class Report:
    case: str
    tasks: int = 0
    succeeded: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    api_seconds: float = 0
    scheduling_seconds: float = 0
    # Longest time from asking for a run until it was accepted.
    trigger_seconds: float = 0
    # Seconds without an answer to this machine, by webserver; to each worker; in which a worker could not be asked.
    webservers: dict[str, float] = field(default_factory=dict)
    workers: dict[str, float] = field(default_factory=dict)
    blind: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        return table([self])

    def remarks(self) -> str:
        """Which tasks, and the figures that the table has no room for."""
        lines = [f"{name}: {', '.join(found)}" for name in KINDS if (found := getattr(self, name))]
        for title, figures in (("webservers without answer", self.webservers), ("workers not asked", self.blind)):
            if any(figures.values()):
                lines.append(f"{title}: " + ", ".join(f"{host} {seconds:.1f} s" for host, seconds in figures.items()))
        return "\n".join([*lines, f"longest wait for a trigger: {self.trigger_seconds:.1f} s"])


KINDS = ("lost", "duplicated", "failed", "retried", "stuck")


def table(reports: Iterable[Report]) -> str:
    """One line for each."""
    rows = [("CASE", "TASKS", "SUCCEEDED", *map(str.upper, KINDS), "API s", "SCHEDULING s")]
    for report in reports:
        counts = [len(getattr(report, name)) for name in KINDS]
        figures = (report.tasks, report.succeeded, *counts, f"{report.api_seconds:.1f}", f"{report.scheduling_seconds:.1f}")
        rows.append((report.case, *map(str, figures)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))] for row in rows]
    return "\n".join("  ".join(line) for line in lines)


def assert_clean(report: Report, retried: bool = False) -> None:
    """Nothing lost, duplicated, failed or stuck, and unless `retried` allows it no second try."""
    bad = [name for name in KINDS if getattr(report, name) and not (retried and name == "retried")]
    assert not bad, f"{', '.join(bad)}\n{report.table()}\n{report.remarks()}"
    assert report.succeeded == report.tasks > 0, f"{report.table()}\n{report.remarks()}"


def judge(
    case: str, rows: Iterable[Row], instances: Iterable[Instance], runs: Mapping[Task, str], accepted: Iterable[Task]
) -> Report:
    """What became of every task: `runs` are the runs that the cluster knows, with their states; `accepted` those that it must."""
    noted: dict[Task, list[Row]] = defaultdict(list)
    for row in rows:
        noted[row.task].append(row)
    known = {instance.task: instance for instance in instances}
    report = Report(case)
    lost = {run for run in accepted if run not in runs}
    # A run that is forgotten is told of once.
    lost |= {task for task in noted if task not in known and Task(task.dag_id, task.run) not in lost}
    for run, state in runs.items():
        wanted = {Task(run.dag_id, run.run, name, index) for name, index in TASKS[run.dag_id]}
        if state in FINISHED:
            lost |= wanted - set(known)
        report.tasks += len(wanted)
    report.tasks += sum(len(TASKS[run.dag_id]) for run in lost if not run.name)
    for task, instance in known.items():
        over = runs.get(Task(task.dag_id, task.run)) in FINISHED
        if instance.state == "success":
            if any(row.phase == "end" and row.number == instance.number for row in noted[task]):
                report.succeeded += 1
            else:
                lost.add(task)
        elif instance.state in ("failed", "upstream_failed"):
            report.failed.append(str(task))
        elif over:
            lost.add(task)
        else:
            report.stuck.append(str(task))
        if instance.number > 1:
            report.retried.append(str(task))
    # A run without an end that has no task at all yet.
    begun = {Task(task.dag_id, task.run) for task in known}
    report.stuck += [str(run) for run, state in runs.items() if state not in FINISHED and run not in begun]
    report.lost = [str(task) for task in sorted(lost)]
    report.duplicated = [str(task) for task in sorted(noted) if is_duplicated(noted[task])]
    report.failed.sort()
    report.retried.sort()
    report.stuck.sort()
    return report


def is_duplicated(rows: Sequence[Row]) -> bool:
    starts = [row for row in rows if row.phase == "start"]
    ends = [row for row in rows if row.phase == "end"]
    overlap = any(end.number < start.number and end.at > start.at for end in ends for start in starts)
    return len({row.number for row in starts}) < len(starts) or len(ends) > 1 or overlap


def silence(samples: Sequence[tuple[float, bool]]) -> float:
    """Seconds without an answer, of (when it was asked, whether it answered)."""
    total, since = 0.0, None
    for begin, good in samples:
        if not good:
            since = begin if since is None else since
        elif since is not None:
            total += begin - since
            since = None
    return total + (samples[-1][0] - since if since is not None else 0)


def unseen(samples: Sequence[tuple[float, bool]], begin: float, end: float) -> float:
    """Seconds in which nobody could ask; a question may take its 5 s."""
    moments = [begin, *(moment for moment, _good in samples), end]
    return sum(later - earlier for earlier, later in zip(moments, moments[1:]) if later - earlier > 8)


def longest_gap(starts: Iterable[float], begin: float, end: float) -> float:
    """Longest time between two starts from `begin` on, up to the first one after `end`, less what the pulse takes."""
    moments = sorted(start for start in starts if start >= begin)
    within = [moment for moment in moments if moment <= end]
    after = [moment for moment in moments if moment > end][:1] or [end]
    edges = [begin, *within, *after]
    return max(0.0, max(later - earlier for earlier, later in zip(edges, edges[1:])) - PULSE_SECONDS)


def due(run: str) -> datetime:
    """When a run that nobody triggered was due: its name says so."""
    return datetime.fromisoformat(run.removeprefix("scheduled__"))


# ----------------------------------------------------------------------------------------------------------- store
def lab(*argv: str) -> None:
    subprocess.run([sys.executable, str(LAB / "lab.py"), *argv], check=True, stdout=sys.stderr)


def play(inventory: str, playbook: str, *arguments: str, **environment: str) -> None:
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        str(Path(inventory).resolve()),
        playbook,
        *arguments,
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise SystemExit(f"ledger: {playbook}: rc {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-2000:]}")


class Store:
    """PostgreSQL on the first host of the inventory's group `ledger`, else on a lab host of its own until `close`."""

    def __init__(self, inventory: Inventory) -> None:
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._lock: IO[str] | None = None
        self._inventory = inventory
        self.host = next(iter(inventory.groups.get("ledger", [])), "")
        if not self.host:
            self._inventory = self._boot()
        elif inventory.get(self.host, "lab_image"):
            lab("up", inventory.path, "--only", self.host)
        password = secrets.token_urlsafe(24)
        play(self._inventory.path, "tests/lab/ledger.yml", LEDGER_PASSWORD=password)
        self.sql(TABLE)
        self.address = {
            "host": self._inventory.reach(self.host), "port": "5432", "dbname": "ledger", "user": "ledger", "password": password,
        }  # fmt: skip

    def _boot(self) -> Inventory:
        """Several ledgers may run on one machine: each takes the first name and address that are free."""
        CACHE.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run(
            [str(LAB / "podman"), "ps", "--all", "--format", "json"], capture_output=True, text=True, check=True
        ).stdout
        taken = {
            row["Labels"].get("windfarm.airflow.lab"): row["Names"][0] for row in json.loads(listed or "[]") if row["Labels"]
        }
        for number in range(1, 10):
            name, address = f"ledger{number}", f"10.89.77.{100 + number}"
            if taken.get(address, f"windfarm-{name}") != f"windfarm-{name}":
                continue
            lock = open(CACHE / f"{name}.lock", "w", encoding="utf-8")  # noqa: SIM115
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            self._lock, self.host = lock, name
            break
        else:
            raise SystemExit("ledger: no address left for its host, 10.89.77.101 to 109 are taken: lab.py status, lab.py down")
        self._own = tempfile.TemporaryDirectory(prefix="ledger-")
        atexit.register(self.close)
        folder = Path(self._own.name)
        (folder / "group_vars" / "all").mkdir(parents=True)
        (folder / "group_vars" / "all" / "lab.yml").symlink_to(ROOT / "inventories/lab/group_vars/all/lab.yml")
        host = {"ansible_host": address, "lab_image": "bookworm"}
        (folder / "hosts.yml").write_text(yaml.safe_dump({"ledger": {"hosts": {name: host}}}))
        lab("down", str(folder))
        lab("up", str(folder))
        return Inventory(str(folder))

    def sql(self, statement: str) -> list[list[str]]:
        words = ("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", "ledger")
        return [line.split("\t") for line in self._inventory.run(self.host, *words, stdin=statement).splitlines()]

    def rows(self, load: str, begin: float) -> list[Row]:
        """Of the runs that were triggered for this load, and of the pulse since it began."""
        found = self.sql(
            "select dag_id, run, task, map_index, try, phase, extract(epoch from at), host, pid from ledger"
            f" where starts_with(run, '{load}-') or dag_id = '{PULSE}' and at >= to_timestamp({begin}) order by at"
        )
        return [
            Row(Task(dag_id, run, task, int(index)), int(number), phase, float(at), host, int(pid))
            for dag_id, run, task, index, number, phase, at, host, pid in found
        ]

    def close(self) -> None:
        if self._own:
            lab("down", self._own.name)
            self._own.cleanup()
            self._own = None
            atexit.unregister(self.close)
        if self._lock:
            self._lock.close()
            self._lock = None


# -------------------------------------------------------------------------------------------------------- samples
class Asker(threading.Thread):
    """Asks the API each second, until `stop`."""

    def __init__(self, name: str, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.stop = stop
        self.samples: list[tuple[float, bool]] = []

    def since(self, begin: float) -> list[tuple[float, bool]]:
        return [sample for sample in self.samples if sample[0] >= begin]

    def answers(self) -> bool:
        return bool(self.samples) and self.samples[-1][1]


class WorkerAsker(Asker):
    """On a worker, through its HAProxy."""

    def __init__(self, host: str, inventory: Inventory, stop: threading.Event) -> None:
        super().__init__(host, stop)
        url = f"http://127.0.0.1:{inventory.get(host, 'airflow_execution_api_port', 8079)}/api/v2/monitor/health"
        options = ["-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2"]
        *words, target = inventory.ssh(host)
        self._command = [*words, *options, target, f"python3 - {url}"]

    def run(self) -> None:
        while not self.stop.is_set():
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            assert process.stdin and process.stdout
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(ASK)
                process.stdin.close()
            for line in process.stdout:
                took, good = line.split()
                self.samples.append((time.monotonic() - float(took), good == "1"))
                if self.stop.is_set():
                    break
            process.kill()
            process.wait()
            self.stop.wait(1)


class WebserverAsker(Asker):
    """From here, one webserver. Whose certificate it shows is not the question."""

    def __init__(self, host: str, url: str, stop: threading.Event) -> None:
        super().__init__(host, stop)
        self._url = f"{url}/api/v2/version"
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def run(self) -> None:
        while not self.stop.is_set():
            begin = time.monotonic()
            try:
                with urllib.request.urlopen(self._url, timeout=5, context=self._context) as answer:  # noqa: S310
                    good = answer.status == 200
            except (OSError, http.client.HTTPException):
                good = False
            self.samples.append((begin, good))
            self.stop.wait(max(0, 1 - (time.monotonic() - begin)))


# ----------------------------------------------------------------------------------------------------------- ledger
class Ledger:
    """The load's store, DAG files and runs on one cluster. Made once, it serves any number of loads, one after the other."""

    def __init__(self, inventory: Inventory | str) -> None:
        self.inventory = Inventory(inventory) if isinstance(inventory, str) else inventory
        self._store: Store | None = None
        self._ready = False
        self._folder = tempfile.TemporaryDirectory(prefix="ledger-dags-")
        self.dags = str(Path(self._folder.name) / "dags")
        # What a playbook that ships DAG files must be given, or it removes the ledger's.
        self.variables = {"airflow_dags_source": self.dags}
        self._clients: list[Airflow] = []
        self._read = 0.0
        self._lock = threading.RLock()
        self._load = self._case = self._fault = ""
        self._stop = threading.Event()
        self._count, self._waited, self._long = 0, 0.0, float(LONG_SECONDS)
        self._accepted: list[Task] = []
        self._since = self._until = datetime.max.replace(tzinfo=timezone.utc)
        slots = sum(map(self.inventory.slots, self.inventory.members["worker"]))
        # Short tasks fill half of the slots and long ones two fifths, so that what is due need not wait. Where processors are
        # slower than that, or nothing runs at all, only so many runs wait for their end.
        self._periods = {
            "ledger_long": max(60, 2 * LONG_SECONDS / (slots * 2 / 5)),
            "ledger": max(15, len(TASKS["ledger"]) * SLOT_SECONDS / (slots / 2)),
        }
        self._most = {"ledger_long": max(2, slots // 5), "ledger": 3}

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """The inventory's own DAG files are back, the store's host is gone."""
        if self._store:
            source = self.inventory.common("airflow_dags_source", "") or str(ROOT / "dags")
            try:
                play(self.inventory.path, "playbooks/dags.yml", "-e", json.dumps({"airflow_dags_source": source}))
            finally:
                self._store.close()
                self._store, self._ready = None, False
        self._folder.cleanup()

    # --- the cluster
    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Any webserver's answer; who does not answer is asked last the next time."""
        with self._lock:
            if not self._clients:
                self._clients = self._webservers(self.inventory)
            for _client in list(self._clients):
                try:
                    return self._clients[0].request(method, path, body)
                except AWAY as error:
                    if isinstance(error, ApiError) and error.status in (404, 409):
                        raise
                    last = error
                    self._clients.append(self._clients.pop(0))
            # Passwords and the authority may have been replaced.
            if time.monotonic() - self._read > 20:
                with contextlib.suppress(SystemExit, AnsibleError):
                    self._clients = self._webservers(Inventory(self.inventory.path))
            raise last

    def _webservers(self, inventory: Inventory) -> list[Airflow]:
        self._read = time.monotonic()
        first = inventory.airflow()
        password = str(inventory.common("airflow_admin_password"))
        return [Airflow(url, first.user, password, inventory.ca) for url in self._urls(inventory).values()]

    @staticmethod
    def _urls(inventory: Inventory) -> dict[str, str]:
        scheme = "https" if inventory.plan["tls"] else "http"
        return {
            host: f"{scheme}://{inventory.reach(host)}:{inventory.get(host, 'airflow_webserver_port', 8080)}"
            for host in inventory.members["webserver"]
        }

    def insist(self, what: str, seconds: float, method: str, path: str, body: Any = None) -> Any:
        """An answer, however often the API must be asked."""

        def answer() -> Any:
            try:
                return (self.request(method, path, body),)
            except AWAY as error:
                if isinstance(error, ApiError) and error.status in (404, 409):
                    raise
                return None

        return wait(what, seconds, answer, interval=1)[0]

    def prepare(self) -> None:
        """Store and DAG files; load() does it when nobody has."""
        if self._ready:
            return
        self._store = self._store or Store(self.inventory)
        folder, marker = Path(self.dags), f"ledger-{time.time_ns():x}"
        shutil.copytree(self.inventory.common("airflow_dags_source", "") or ROOT / "dags", folder, dirs_exist_ok=True)
        (folder / "ledger.py").write_text((DAGS / "ledger.py").read_text().replace('MARKER = "unset"', f'MARKER = "{marker}"'))
        store = (DAGS / "ledger_store.py").read_text()
        filled = store.replace("STORE: dict[str, str] = {}", f"STORE: dict[str, str] = {self._store.address!r}")
        assert filled != store, "dags/ledger_store.py has no place for the store's address"
        (folder / "ledger_store.py").write_text(filled)
        play(self.inventory.path, "playbooks/dags.yml", "-e", json.dumps(self.variables))

        def arrived() -> bool:
            try:
                sources = {dag_id: self.request("GET", f"dagSources/{dag_id}")["content"] for dag_id in TASKS}
            except AWAY:
                return False
            return all(marker in content for content in sources.values())

        wait("the ledger's DAGs are known", 180, arrived, interval=1)
        self._ready = True

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> Task:
        """A run of the load that runs now; its name makes a repeated question harmless."""
        assert self._load, "outside of load()"
        with self._lock:
            self._count += 1
            run = Task(dag_id, f"{self._load}-{self._count:04}")
        begin = time.monotonic()
        while not self._stop.is_set():
            try:
                self.request("POST", f"dags/{dag_id}/dagRuns", {"dag_run_id": run.run, "logical_date": None, "conf": conf or {}})
            except AWAY as error:
                status = error.status if isinstance(error, ApiError) else 0
                if status in (400, 404):
                    self._fault = f"{run}: {error}; what ships DAG files under the ledger must be given ledger.variables"
                if status != 409:
                    self._stop.wait(1)
                    continue
            self._accepted.append(run)
            self._fault = ""
            break
        self._waited = max(self._waited, time.monotonic() - begin)
        return run

    def _keep_triggering(self) -> None:
        next_at = dict.fromkeys(self._periods, 0.0)
        while not self._stop.is_set():
            for dag_id, period in self._periods.items():
                if time.monotonic() >= next_at[dag_id] and self._unfinished(dag_id) < self._most[dag_id]:
                    next_at[dag_id] = time.monotonic() + period
                    self.trigger(dag_id, {"seconds": self._long} if dag_id == "ledger_long" else None)
            self._stop.wait(2)

    def _unfinished(self, dag_id: str) -> int:
        """Runs without all their ends, by the store's word; too many while it cannot be asked."""
        ends: dict[Task, int] = defaultdict(int)
        try:
            rows = self._rows()
        except UNASKED:
            return sys.maxsize
        for row in rows:
            ends[Task(row.task.dag_id, row.task.run)] += row.phase == "end"
        return sum(ends[run] < len(TASKS[dag_id]) for run in self._accepted if run.dag_id == dag_id)

    @contextmanager
    def load(self, case: str = "load", long_seconds: float = LONG_SECONDS) -> Iterator[Ledger]:
        """Tasks of every kind run from before the body until it ends, and the API is watched. Long ones take `long_seconds`."""
        self.prepare()
        assert self._store
        self._case, self._long, self._load = case, long_seconds, f"ledger{time.time_ns():x}"
        self._count, self._waited, self._fault = 0, 0.0, ""
        self._accepted, self._stop = [], threading.Event()
        self._until = datetime.max.replace(tzinfo=timezone.utc)
        ((newest,),) = self.inventory.sql(f"select coalesce(max(run_after), '2026-01-01') from dag_run where dag_id = '{PULSE}'")
        self._since = datetime.fromisoformat(newest)
        self._pulse_begin = time.time()
        self._pulse(paused=False)
        self._workers = [WorkerAsker(host, self.inventory, self._stop) for host in self.inventory.members["worker"]]
        self._webs = [WebserverAsker(host, url, self._stop) for host, url in self._urls(self.inventory).items()]
        threads = [threading.Thread(target=self._keep_triggering, daemon=True), *self._workers, *self._webs]
        for thread in threads:
            thread.start()
        try:
            wait("the load has begun", 300, self._has_begun, interval=2)
            self._begin, self._asked_since = time.time(), time.monotonic()
            yield self
            self._end, self._asked_until = time.time(), time.monotonic()
            # What is still away is measured to its end.
            with contextlib.suppress(TimedOut):
                wait("a task starts and the API answers", 60, self._is_back, interval=1)
        except BaseException:
            with contextlib.suppress(TimedOut, *AWAY):
                self._pulse(paused=True)
            raise
        finally:
            self._stop.set()
            self._until = datetime.now(timezone.utc)
            for thread in threads:
                thread.join(10)

    def _pulse(self, paused: bool) -> None:
        self.insist(f"{PULSE} is {'' if paused else 'un'}paused", 180, "PATCH", f"dags/{PULSE}", {"is_paused": paused})

    def _rows(self) -> list[Row]:
        assert self._store
        return self._store.rows(self._load, self._pulse_begin)

    def starts(self) -> list[Row]:
        """What has started in the load so far."""
        return [row for row in self._rows() if row.phase == "start"]

    def _has_begun(self) -> bool:
        """Some of each DAG run, so the first of the long tasks has started."""
        return {row.task.dag_id for row in self.starts()} >= {"ledger", "ledger_long", PULSE}

    def _is_back(self) -> bool:
        return all(asker.answers() for asker in self._workers) and any(row.at > self._end for row in self.starts())

    def _cluster(self) -> tuple[dict[Task, str], list[Instance]]:
        """Runs and tasks of this load. From the database: what counts is what it holds, also while no webserver answers."""
        rows = self.inventory.sql(
            "select r.dag_id, r.run_id, r.state, t.task_id, t.map_index, t.try_number, coalesce(t.state, 'none')"
            " from dag_run r left join task_instance t on t.dag_id = r.dag_id and t.run_id = r.run_id"
            f" where starts_with(r.run_id, '{self._load}-') or r.dag_id = '{PULSE}' and r.run_after > '{self._since.isoformat()}'"
            f" and r.run_after <= '{self._until.isoformat()}'"
        )
        runs = {Task(dag_id, run): state for dag_id, run, state, *_rest in rows}
        instances = [
            Instance(Task(dag_id, run, task, int(index)), int(number), state)
            for dag_id, run, _run_state, task, index, number, state in rows
            if task
        ]
        return runs, instances

    def _cluster_if_there(self) -> tuple[dict[Task, str], list[Instance]] | None:
        try:
            return self._cluster()
        except UNASKED:
            return None

    def unended(self) -> list[str]:
        """Runs and tasks of the load without an end so far."""
        found = self._cluster_if_there()
        if found is None:
            return ["the database does not answer"]
        runs, instances = found
        tasks = [str(each.task) for each in instances if each.state not in (*FINISHED, "upstream_failed")]
        return [str(run) for run, state in runs.items() if state not in FINISHED] + tasks

    def settle(self, timeout: float = 600) -> Report:
        """Wait until all runs have ended, `timeout` seconds at most, and judge."""
        with contextlib.suppress(TimedOut):
            wait("all runs have ended", timeout, lambda: not self.unended(), interval=2)
        runs, instances = wait("the database answers", 120, self._cluster_if_there, interval=2)
        rows = self._rows()
        # Only now: the runs of a paused DAG go no further. What was due later is not judged.
        self._pulse(paused=True)
        ours = [row for row in rows if row.task.dag_id != PULSE or self._since < due(row.task.run) <= self._until]
        report = judge(self._case, ours, instances, runs, self._accepted)
        report.workers = {asker.name: silence(asker.since(self._asked_since)) for asker in self._workers}
        report.webservers = {asker.name: silence(asker.since(self._asked_since)) for asker in self._webs}
        report.blind = {asker.name: unseen(asker.samples, self._asked_since, self._asked_until) for asker in self._workers}
        report.api_seconds = max(report.workers.values())
        report.scheduling_seconds = longest_gap([row.at for row in rows if row.phase == "start"], self._begin, self._end)
        report.trigger_seconds = self._waited
        if self._fault:
            raise AssertionError(f"{self._fault}\n{report.table()}")
        return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run a command (else: wait) while tasks run, and print what that cost them.",
        epilog="After -- follows the command; an ansible-playbook is also given the ledger's DAG files to ship.",
    )
    parser.add_argument("-i", "--inventory", default=DEFAULT, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, help="of load without a command (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for all tasks to end (default: %(default)s)")
    parser.add_argument("--case", help="first column of the table (default: the command)")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    command: list[str] = options.command
    with Ledger(options.inventory) as ledger:
        if command and Path(command[0]).name == "ansible-playbook":
            command += ["-e", json.dumps(ledger.variables)]
        rc = 0
        with ledger.load(options.case or " ".join(map(os.path.basename, options.command[:4])) or "no operation"):
            if command:
                rc = subprocess.run(command, check=False).returncode
            else:
                time.sleep(options.seconds)
        report = ledger.settle(options.timeout)
    print(f"{report.table()}\n{report.remarks()}")
    if rc:
        print(f"ledger: the command ended with rc {rc}", file=sys.stderr)
        return rc
    return int(any(getattr(report, name) for name in KINDS))


if __name__ == "__main__":
    sys.exit(main())
