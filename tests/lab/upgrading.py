# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the proofs of upgrades share: an inventory to edit, runs of Ansible timed and killed, a watch over all hosts."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from api import Airflow, wait
from fresh import BIN, LAB, changed, lab, smoke
from inventory import ROOT, Inventory
from ledger import Ledger, Report, assert_clean
from processes import kill

OLD, NEW = "3.2.2", "3.3.2"
# Job type in the database: group of the hosts that run it.
JOBS = {"SchedulerJob": "scheduler", "DagProcessorJob": "dag_processor", "TriggererJob": "triggerer"}
UNITS = {name: f"airflow-{name.replace('_', '-')}.service" for name in ("scheduler", "dag_processor", "triggerer", "webserver")}
WORKERS = tuple(f"airflow-worker@default-{colour}.service" for colour in "ab")
RELEASES = "/opt/airflow/releases"
UPGRADE, ROLLBACK, SITE = (f"playbooks/{name}.yml" for name in ("upgrade", "rollback", "site"))


# ---------------------------------------------------------------------------------------------------- a run of Ansible
@dataclass
class Run:
    """What a playbook said, and when."""

    rc: int = 0
    seconds: float = 0.0
    lines: list[tuple[float, str]] = field(default_factory=list)
    killed_in: str = ""

    @property
    def output(self) -> str:
        return "".join(line for _, line in self.lines)

    @property
    def said(self) -> str:
        """As one line: YAML breaks messages anywhere."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> int:
        return sum(changed(self.output).values())

    @property
    def tasks(self) -> int:
        return sum(line.startswith("TASK [") for _, line in self.lines)

    @property
    def phases(self) -> list[tuple[str, float]]:
        """Plays that took a second or more; a play of several batches is one."""
        starts = [(at, line.strip().removeprefix("PLAY [").rstrip("*] ")) for at, line in self.lines if line.startswith("PLAY [")]
        found: dict[str, float] = {}
        for (at, name), end in zip(starts, [at for at, _ in starts[1:]] + [self.seconds]):
            found[name] = found.get(name, 0.0) + end - at
        return [(name, seconds) for name, seconds in found.items() if seconds >= 1]

    def table(self) -> str:
        rows = "".join(f"  {seconds:6.1f} s  {name}\n" for name, seconds in self.phases)
        return f"{rows}  {self.seconds:6.1f} s  in all, {self.tasks} tasks, changed={self.changed}, rc {self.rc}"


def stream(
    command: Sequence[str],
    log: Path,
    kill_after: int = 0,
    delay: float = 0,
    at: Mapping[str, Callable[[], None]] | None = None,
) -> Run:
    """Run a command to its end, or until so many seconds after so many tasks have begun.

    `at`: what is done when a line with that text comes."""
    run, start = Run(), time.monotonic()
    todo = dict(at or {})
    process = subprocess.Popen(
        [*command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    try:
        for line in process.stdout:
            run.lines.append((time.monotonic() - start, line))
            with log.open("a") as file:
                file.write(f"{run.lines[-1][0]:7.1f} {line}")
            for text in [text for text in todo if text in line]:
                todo.pop(text)()
            if kill_after and run.tasks >= kill_after:
                time.sleep(delay)
                kill(process)
                run.killed_in = line.strip("* \n")
                break
    except BaseException:
        kill(process)
        raise
    run.rc = process.wait()
    run.seconds = time.monotonic() - start
    assert not todo or run.rc or run.killed_in, f"never said: {list(todo)}\n{run.output[-4000:]}"
    return run


# -------------------------------------------------------------------------------------------------------- the cluster
class Cluster:
    """A deployed cluster, addressed through a copy of its inventory that may be edited."""

    def __init__(self, source: str, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(source, folder)
        self._everywhere = folder / "group_vars" / "all"
        # There relative to the inventory; what ships DAG files shall leave ours.
        self._dags = folder.with_name("dags")
        shutil.copytree(ROOT / "dags", self._dags)
        shutil.copy(ROOT / "tests/lab/dags/patient.py", self._dags)
        self._write(self._everywhere / "airflow.yml", airflow_dags_source=str(self._dags))
        self.read()

    def read(self) -> None:
        """Again, after hosts or secrets have changed."""
        self.inventory = Inventory(str(self.folder))
        self.members = self.inventory.members
        self.hosts = sorted({host for hosts in self.members.values() for host in hosts})

    @staticmethod
    def _write(path: Path, **settings: Any) -> None:
        content = yaml.safe_load(path.read_text()) if path.exists() else {}
        content.update(settings)
        path.write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not None}))

    def authority(self) -> str:
        """Certificates of the cluster's authority, as its file says them now."""
        return str(yaml.safe_load((self.folder / "group_vars/all/vault.yml").read_text())["airflow_ca_certificate"])

    def edit(self, **settings: Any) -> None:
        """Edit the inventory; None takes a variable out of it."""
        self._write(self._everywhere / "version.yml", **settings)

    @contextlib.contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger on this cluster; as long as it stands every playbook ships its DAG files too."""
        with Ledger(self.inventory) as ledger:
            ledger.prepare()
            self._write(self._everywhere / "airflow.yml", airflow_dags_source=ledger.dags)
            try:
                yield ledger
            finally:
                self._write(self._everywhere / "airflow.yml", airflow_dags_source=str(self._dags))

    def smoke(self) -> None:
        smoke(self.folder)

    def play(
        self,
        playbook: str,
        *arguments: str,
        kill_after: int = 0,
        delay: float = 0,
        at: Mapping[str, Callable[[], None]] | None = None,
        **extra: Any,
    ) -> Run:
        command = [str(BIN / "ansible-playbook"), "-i", str(self.folder), playbook, *arguments]
        return stream(
            [*command, *(["-e", json.dumps(extra)] if extra else [])], self.folder.with_name("log"), kill_after, delay, at
        )

    def must(self, playbook: str, *arguments: str, at: Mapping[str, Callable[[], None]] | None = None, **extra: Any) -> Run:
        run = self.play(playbook, *arguments, at=at, **extra)
        assert run.rc == 0, f"{playbook}: rc {run.rc}: {run.output[-8000:]}"
        return run

    def settled(self, playbook: str = UPGRADE) -> Run:
        """A run that finds nothing to do."""
        run = self.must(playbook)
        assert run.changed == 0, run.output[-8000:]
        return run

    def run(self, host: str, *command: str, **options: Any) -> str:
        return self.inventory.run(host, *command, **options)

    def sql(self, statement: str) -> list[list[str]]:
        return self.inventory.sql(statement)

    def airflow(self, host: str = "") -> Airflow:
        inventory = self.inventory
        url = (
            f"https://{inventory.reach(host or self.members['webserver'][0])}:{inventory.common('airflow_webserver_port', 8080)}"
        )
        return Airflow(url, "admin", str(inventory.common("airflow_admin_password")), inventory.ca)

    def versions(self) -> dict[str, str]:
        """What each webserver says that it is."""
        return {host: str(self.airflow(host).get("version")["version"]) for host in self.members["webserver"]}

    def version(self) -> str:
        """What all webservers say."""
        (version,) = set(self.versions().values())
        return version

    def releases(self, host: str) -> dict[str, set[str]]:
        """Unit -> releases whose files its processes have in memory. A draining worker is among them."""
        script = (
            "words='--plain --no-legend --state=active,deactivating';"
            " for unit in $(systemctl list-units $words 'airflow-*.service' | cut -d' ' -f1); do"
            " group=$(systemctl show -P ControlGroup $unit);"
            " for pid in $(cat /sys/fs/cgroup$group/cgroup.procs); do"
            f" grep -Eo '{RELEASES}/[^/ ]+' /proc/$pid/maps 2>/dev/null | sort -u | sed \"s|^|$unit |\"; done; done"
        )
        found: dict[str, set[str]] = {}
        for line in self.run(host, "sh", "-c", script, check=False).splitlines():
            unit, path = line.split()
            found.setdefault(unit, set()).add(os.path.basename(path))
        return found

    def running(self) -> set[str]:
        """Every release that a process on any host runs from."""
        return {name for host in self.hosts for names in self.releases(host).values() for name in names}

    def installed(self, host: str) -> list[str]:
        out = self.run(host, "sh", "-c", f"ls {RELEASES}/*/release.json 2>/dev/null", check=False)
        return sorted(Path(line).parent.name for line in out.splitlines())

    def units(self) -> dict[str, str]:
        """What systemd says of each Airflow unit of each host: enough to see that nothing was touched."""
        words = ("-p", "Id,ActiveState,InvocationID,ExecStart,NRestarts,FragmentPath,NeedDaemonReload,DropInPaths")
        names = [*UNITS.values(), *WORKERS, "airflow-logs.service"]
        return {host: self.run(host, "systemctl", "show", *words, *names) for host in self.hosts}

    def failed_units(self) -> dict[str, str]:
        listed = ("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        return {host: found for host in self.hosts if (found := self.run(host, *listed))}

    def state(self, host: str, unit: str) -> str:
        return self.run(host, "systemctl", "show", "-P", "ActiveState", unit)

    def revision(self) -> str:
        return self.sql("select version_num from alembic_version")[0][0]

    def break_staged(self, host: str, component: str) -> Callable[[], None]:
        """One component does not start on one host in any release that nothing runs from yet; the answer mends it."""
        file = {
            "webserver": "airflow/cli/commands/api_server_command.py",
            "scheduler": "airflow/cli/commands/scheduler_command.py",
            "worker": "airflow/providers/celery/cli/celery_command.py",
        }[component]
        used = {name for names in self.releases(host).values() for name in names}
        staged = [f"{RELEASES}/{name}" for name in self.installed(host) if name not in used]
        assert staged, f"{host}: no release is staged"
        paths = self.run(
            host, "sh", "-c", f"ls {' '.join(f'{path}/lib/python3*/site-packages/{file}' for path in staged)}"
        ).split()
        for path in paths:
            # As another file: uv links equal files of all releases to one.
            spoil = f"cp -p {path} {path}.broken; echo 'raise RuntimeError(\"broken on purpose\")' >> {path}.broken"
            self.run(host, "sh", "-c", f"{spoil}; mv {path} {path}.whole; mv {path}.broken {path}")
        return lambda: void([self.run(host, "mv", f"{path}.whole", path) for path in paths])


@contextlib.contextmanager
def deployed(cluster: Cluster) -> Iterator[Cluster]:
    """On hosts of its own, which are removed in the end."""
    path = str(cluster.folder)
    lab("down", path)
    lab("up", path)
    try:
        cluster.must("playbooks/secrets.yml")
        cluster.read()
        cluster.must(SITE)
        yield cluster
    finally:
        lab("down", path)


class Patients:
    """Tasks of 150 s or more, begun before something is done to the cluster, that end after it."""

    GO = "/run/patient-may-end"

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        # What a test that failed has left behind.
        self._let_end(True)
        before = "select count(*) from task_instance where dag_id = 'patient' and state in ('queued', 'running', 'scheduled')"
        wait("earlier long tasks end", 200, lambda: cluster.sql(before) == [["0"]], interval=2)
        self._let_end(False)
        airflow = cluster.airflow()
        wait("DAG patient is known", 60, lambda: airflow.dag("patient"))
        self.runs = [airflow.trigger("patient") for _ in range(number)]
        self._of = f"from task_instance where dag_id = 'patient' and run_id in ({str(self.runs)[1:-1]})"
        query = f"select count(*) {self._of} and state = 'running'"
        wait("the long tasks run", 120, lambda: cluster.sql(query) == [[str(number)]])

    def still_on(self, version: str) -> None:
        """Each runs where it began, in a worker of that release that takes nothing new."""
        for host, state in self.cluster.sql(f"select hostname, state {self._of}"):
            assert state == "running"
            name = next(name for name, address in self.cluster.inventory.plan["addresses"].items() if address == host)
            draining = [unit for unit in WORKERS if self.cluster.state(name, unit) == "deactivating"]
            assert len(draining) == 1
            assert {release.split("-")[0] for release in self.cluster.releases(name)[draining[0]]} == {version}

    def _let_end(self, may: bool) -> None:
        """Past ssh: a host that waits for its tasks before it reboots lets nobody in any more."""
        for host in self.cluster.members["worker"]:
            words = ("touch",) if may else ("rm", "-f")
            subprocess.run([str(LAB / "podman"), "exec", f"windfarm-{host}", *words, self.GO], check=True, capture_output=True)

    def end_well(self) -> None:
        self._let_end(True)
        query = f"select state, try_number, extract(epoch from duration * interval '1 s') >= 150 {self._of}"
        wait("the long tasks end", 200, lambda: all(row[0] != "running" for row in self.cluster.sql(query)), interval=2)
        assert self.cluster.sql(query) == [["success", "1", "t"]] * len(self.runs)


def settle(ledger: Ledger, timeout: float = 600) -> Report:
    """What the ledger says, which must be that nothing happened to any task."""
    report = ledger.settle(timeout)
    print(f"\n{report.table()}\n{report.remarks()}")
    assert_clean(report)
    return report


def void(_value: object) -> None:
    """For what is done without an answer."""


@contextlib.contextmanager
def read_only(cluster: Cluster, host: str, folder: str = RELEASES) -> Iterator[None]:
    """Nothing can be written there, as on a file system that the kernel has given up."""
    cluster.run(host, "sh", "-c", f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}")
    try:
        yield
    finally:
        cluster.run(host, "umount", folder)


@contextlib.contextmanager
def cut_off(cluster: Cluster, host: str) -> Iterator[None]:
    """The host reaches nothing but the lab's own hosts, so no package index."""
    inside = "ip daddr { 10.89.77.0/24, 127.0.0.0/8 } accept; reject with tcp reset"
    rules = f"table inet cut {{ chain output {{ type filter hook output priority 0; meta l4proto != tcp accept; {inside}; }}; }}"
    cluster.run(host, "nft", "-f", "-", stdin=rules)
    try:
        yield
    finally:
        cluster.run(host, "nft", "delete", "table", "inet", "cut")


@contextlib.contextmanager
def full(cluster: Cluster, host: str, folder: str) -> Iterator[None]:
    """A file system of its own for that folder, with no room left on it."""
    cluster.run(host, "sh", "-c", f"mkdir -p {folder} && mount -t tmpfs -o size=1m,mode=0700 none {folder}")
    cluster.run(host, "sh", "-c", f"chown postgres: {folder}; head -c 1100000 /dev/zero > {folder}/x; true")
    try:
        yield
    finally:
        cluster.run(host, "umount", folder)


# ---------------------------------------------------------------------------------------------------------- the watch
@dataclass
class Outage:
    """A time (of the monotonic clock, which all hosts of the lab share) in which one host of a group did not serve."""

    group: str
    host: str
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


class Watch:
    """Looks at every host each second, as `with Watch(cluster) as watch`.

    Down is: a webserver, from the first to the last question that it did not answer; a scheduler, dag processor or triggerer,
    from the end of its process to the entry of the next one in the database; a worker, while neither colour is active.
    """

    INTERVAL = 1.0
    PROPERTIES = "Id,ActiveState,ActiveEnterTimestampMonotonic,ActiveExitTimestampMonotonic"

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.outages: list[Outage] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        # (host, unit) -> when it ended, for what has not come back yet.
        self._ended: dict[tuple[str, str], float] = {}
        # (component, address) -> when its newest process said in the database that it runs.
        self._began: dict[tuple[str, str], float] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._api: list[tuple[float, float, str, bool]] = []

    def __enter__(self) -> Watch:
        self.begin = time.monotonic()
        inventory = self.cluster.inventory
        for host in self.cluster.hosts:
            self._start(self._units, host)
        for host in self.cluster.members["webserver"]:
            self._start(self._webserver, host)
        self._start(self._jobs, inventory.members["postgresql"][0])
        return self

    def _start(self, target: Callable[[str], None], host: str) -> None:
        thread = threading.Thread(target=target, args=(host,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def __exit__(self, *_error: object) -> None:
        # What came back last is to be seen as back.
        time.sleep(3 * self.INTERVAL)
        self.end = time.monotonic()
        self._stop.set()
        for process in self._processes:
            process.kill()
        for thread in self._threads:
            thread.join(20)
        for (host, unit), ended in self._ended.items():
            self.outages.append(Outage(self._group(unit), host, ended, self.end))
        for host in self.cluster.members["webserver"]:
            probes = [(begin, end, good) for begin, end, name, good in self._api if name == host]
            self.outages += [Outage("webserver", host, *gap) for gap in gaps(probes)]

    @staticmethod
    def _group(unit: str) -> str:
        return next((name for name, known in UNITS.items() if known == unit), "worker")

    def _lines(self, host: str, script: str) -> Iterator[str]:
        """What a loop on the host says; a host that is rebooted is asked again."""
        while not self._stop.is_set():
            process = subprocess.Popen(
                [*self.cluster.inventory.ssh(host), shlex.join(["sh", "-c", script])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._processes.append(process)
            assert process.stdout
            yield from process.stdout
            process.wait()
            self._stop.wait(1)

    def _units(self, host: str) -> None:
        mine = [UNITS[group] for group in JOBS.values() if host in self.cluster.members[group]]
        workers = [*WORKERS] if host in self.cluster.members["worker"] else []
        show = f"systemctl show -p {self.PROPERTIES} {shlex.join([*mine, *workers])}"
        if not mine and not workers:
            return
        found: dict[str, dict[str, str]] = {}
        current: dict[str, str] = {}
        for line in self._lines(host, f"while :; do {show}; echo; echo END; sleep {self.INTERVAL}; done"):
            name, _, value = line.strip().partition("=")
            if name == "END":
                self._judge(host, mine, workers, found)
                found = {}
            elif name:
                current[name] = value
            elif current:
                found[current["Id"]] = current
                current = {}

    def _judge(self, host: str, mine: list[str], workers: list[str], found: dict[str, dict[str, str]]) -> None:
        address = self.cluster.inventory.plan["addresses"][host]
        with self._lock:
            for unit in mine:
                if unit not in found:
                    continue
                ended = int(found[unit]["ActiveExitTimestampMonotonic"] or 0) / 1e6
                began = self._began.get((self._group(unit), address), 0.0)
                key = (host, unit)
                if ended > self.begin and key not in self._ended and not self._known(key, ended):
                    self._ended[key] = ended
                if key in self._ended and found[unit]["ActiveState"] == "active" and began > ended:
                    # A unit that flaps is one outage, from its first end.
                    self.outages.append(Outage(self._group(unit), host, self._ended.pop(key), began))
            if workers:
                key = (host, "worker")
                if any(found.get(unit, {}).get("ActiveState") == "active" for unit in workers):
                    if key in self._ended:
                        self.outages.append(Outage("worker", host, self._ended.pop(key), time.monotonic()))
                else:
                    self._ended.setdefault(key, time.monotonic())

    def _known(self, key: tuple[str, str], ended: float) -> bool:
        """An end that lies in an outage already told."""
        host, unit = key
        return any(o.host == host and o.group == self._group(unit) and o.begin <= ended <= o.end for o in self.outages)

    def _jobs(self, host: str) -> None:
        database = self.cluster.inventory.plan["database"]["name"]
        query = "select job_type, hostname, extract(epoch from max(start_date)) from job where state = 'running' group by 1, 2"
        ask = f"runuser -u postgres -- psql -XAtq -F ' ' -d {database} -c \"{query}\""
        shift = time.time() - time.monotonic()
        for line in self._lines(host, f"cd /; while :; do {ask} 2>/dev/null; sleep {self.INTERVAL}; done"):
            words = line.split()
            if len(words) == 3 and words[0] in JOBS:
                with self._lock:
                    self._began[JOBS[words[0]], words[1]] = float(words[2]) - shift

    def _webserver(self, host: str) -> None:
        inventory = self.cluster.inventory
        url = f"https://{inventory.reach(host)}:{inventory.common('airflow_webserver_port', 8080)}/api/v2/version"
        authority = inventory.ca
        trust = ssl.create_default_context(cadata=authority)
        while not self._stop.is_set():
            begin = time.monotonic()
            try:
                with urllib.request.urlopen(url, timeout=5, context=trust) as answer:
                    good = answer.status == 200
            except (urllib.error.URLError, OSError) as error:
                good = False
                # A rotation replaces it. Whoever has what the file says now is served without a gap.
                refused = isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError)
                if refused and self.cluster.authority() != authority:
                    authority = self.cluster.authority()
                    trust = ssl.create_default_context(cadata=authority)
                    continue
            self._api.append((begin, time.monotonic(), host, good))
            self._stop.wait(0.5)

    # ------------------------------------------------------------------------------------------------------- results
    def of(self, group: str) -> list[Outage]:
        return sorted((outage for outage in self.outages if outage.group == group), key=lambda outage: outage.begin)

    def together(self, groups: Sequence[str]) -> list[str]:
        """Times at which two hosts of a group were down at once."""
        found = []
        for group in groups:
            outages = self.of(group)
            for number, one in enumerate(outages):
                for other in outages[number + 1 :]:
                    shared = min(one.end, other.end) - max(one.begin, other.begin)
                    if one.host != other.host and shared > 0:
                        found.append(f"{group}: {one.host} and {other.host} down together for {shared:.1f} s")
        return found

    @property
    def api_seconds(self) -> float:
        """Seconds in which no webserver at all answered."""
        hosts = self.cluster.members["webserver"]
        total, last = 0.0, None
        down = {host: [(o.begin, o.end) for o in self.of("webserver") if o.host == host] for host in hosts}
        edges = sorted({edge for spans in down.values() for span in spans for edge in span})
        for edge in edges:
            if last is not None:
                middle = (last + edge) / 2
                if all(any(begin <= middle <= end for begin, end in spans) for spans in down.values()):
                    total += edge - last
            last = edge
        return total

    def table(self) -> str:
        rows = [
            f"  {outage.begin - self.begin:6.1f} s  {outage.host:5} {outage.group:14} away {outage.seconds:6.1f} s"
            for outage in sorted(self.outages, key=lambda outage: outage.begin)
        ]
        return "\n".join(
            ["what was away, from when and for how long", *rows, f"  {self.api_seconds:.1f} s  without any webserver"]
        )


def gaps(probes: Sequence[tuple[float, float, bool]]) -> list[tuple[float, float]]:
    """From the begin of the first question without an answer to the end of the last, for each row of such questions."""
    found: list[tuple[float, float]] = []
    bad: tuple[float, float] | None = None
    for begin, end, good in probes:
        if not good:
            bad = (bad[0] if bad else begin, end)
        elif bad:
            found.append(bad)
            bad = None
    return [*found, *([bad] if bad else [])]
