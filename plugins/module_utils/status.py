# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host looks like now. Runs on the host; changes nothing, starts nothing of Airflow's, reads no secret.

A new part of the status is a function here, an entry in SECTIONS, and how it looks in plugin_utils/status_report.py.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_dags, status_entry, status_health
from ansible_collections.windfarm.airflow.plugins.module_utils import postgresql_backup as backups_of
from ansible_collections.windfarm.airflow.plugins.module_utils import queues as queues_of
from ansible_collections.windfarm.airflow.plugins.module_utils import services as units_of
from ansible_collections.windfarm.airflow.plugins.module_utils.database import DatabaseError

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "UnitFileState",
    "MainPID",
    "NRestarts",
    "MemoryCurrent",
    "ControlGroup",
    "StateChangeTimestamp",
    "ExecMainStartTimestamp",
    "ExecStart",
)
UP = ("active", "reloading")
READING = (
    OSError,
    ValueError,
    KeyError,
    subprocess.SubprocessError,
    units_of.ServicesError,
    DatabaseError,
    airflow_dags.DagsError,
)
# Shown where they are installed; a problem only where they are enabled and do not run.
COMPANIONS = ("haproxy.service", "keepalived.service", "airflow-firewall.service")
PACKAGES = ("postgresql-[0-9]*", "redis-server", "haproxy", "keepalived")
DPKG_LINE = "--showformat=${db:Status-Abbrev} ${Package} ${Version}\n"
SITE = "run site.yml"
BACKUP = "postgresql-backup"
CLEANING = "airflow-db-clean"
DAY = 86400
_HASH = re.compile(r"^ExecStartPre=.*\becho ([0-9a-f]+) > ", re.M)
_RELEASE = re.compile(r"^ExecStart=(/.+)/([^/]+)/bin/", re.M)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.S)
# The lines of the host's own time zone; those in UTC begin with "(in UTC)".
_DATE = re.compile(r"^ *(?:Next elapse|Iteration #\d+|Iter\. #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", re.M)
_POLICY = re.compile(r"^(\S+):\n  Installed: (\S+)\n  Candidate: (\S+)", re.M)
# A worker's own options: its queues, and how many tasks it runs at once.
_QUEUES = re.compile(r" -q (\S+)")
_SLOTS = re.compile(r" (?:-c |--concurrency[ =]|--autoscale[ =])(\d+)")
_NAME = re.compile(r"(?:DNS|IP Address):([^,\s]+)")


class Question(NamedTuple):
    """What is asked, and where the answer's problems and notes go."""

    services: Sequence[Mapping[str, Any]]
    servers: Sequence[str]
    tls_directory: str
    warn_days: int
    problem: Callable[[str], None]
    note: Callable[[str], None]
    dags_folder: str = ""


def read(
    services: Sequence[Mapping[str, Any]], servers: Sequence[str], tls_directory: str, warn_days: int, dags_folder: str = ""
) -> dict[str, Any]:
    """Every section; one that cannot be read is a problem, not the end of the others."""
    problems: list[str] = []
    notes: list[str] = []
    question = Question(services, servers, tls_directory, warn_days, problems.append, notes.append, dags_folder)
    status: dict[str, Any] = {}
    for name, (section, empty) in SECTIONS.items():
        try:
            status[name] = section(question)
        except READING as error:
            status[name] = empty
            problems.append(f"{name} cannot be read: {' '.join(str(error).split())}")
    for unit in status["units"]:
        unit["health"] = "ill" if status_health.unhealthy(status["health"], unit) else health_of(unit, problems)
    return {**status, "problems": problems, "notes": notes}


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _output(command: Sequence[str], stdin: str = "") -> str:
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        list(command),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )
    return done.stdout


# The host -------------------------------------------------------------------


def host(question: Question) -> dict[str, Any]:
    drained = os.path.exists(units_of.DRAINED)
    if drained:
        question.note(f"is drained: its workers take no tasks until {units_of.DRAINED} is removed")
    boot = re.search(r"^btime (\d+)", _text("/proc/stat"), re.M)
    installed = _output(["dpkg-query", "--show", DPKG_LINE, *PACKAGES])
    for name, version in waiting(installed).items():
        question.note(f"{name} {version} is out and waits, as apt does not restart servers; run upgrade_servers.yml")
    return {
        "debian": _text("/etc/debian_version").strip(),
        "python": platform.python_version(),
        "architecture": platform.machine(),
        "booted": iso(float(boot[1])) if boot else "",
        "packages": packages(installed),
        "drained": drained,
    }


def packages(text: str) -> dict[str, str]:
    """Versions of those that are installed, from dpkg-query's lines of status, name and version."""
    found = (line.split() for line in text.splitlines())
    return {words[1]: words[2] for words in found if len(words) == 3 and words[0][1:2] == "i"}


def waiting(text: str) -> dict[str, str]:
    """Newer versions, as far as the host's lists know, of packages that are on hold: nobody else tells of them."""
    held = [words[1] for words in map(str.split, text.splitlines()) if len(words) == 3 and words[0][:2] == "hi"]
    found = _POLICY.findall(_output(["apt-cache", "policy", *held])) if held else []
    return {name: candidate for name, version, candidate in found if candidate not in (version, "(none)")}


# Units ----------------------------------------------------------------------


def units(question: Question) -> list[dict[str, Any]]:
    """Those that the host's groups ask for, and those of ours that are there all the same."""
    asked = expected(question.services, question.servers)
    names = list(dict.fromkeys([*asked, *units_of.own_units(), *COMPANIONS]))
    found = properties(units_of.systemctl("show", f"--property={','.join(PROPERTIES)}", *names))
    shown = [
        describe(name, found[name], asked.get(name, ""))
        for name in names
        if name in asked or found.get(name, {}).get("LoadState") == "loaded"
    ]
    judge(question, shown)
    judge_cleaning(question)
    return shown


def expected(services: Sequence[Mapping[str, Any]], servers: Sequence[str]) -> dict[str, str]:
    """Unit -> component, of all that should be there."""
    asked: dict[str, str] = {}
    if "postgresql" in servers:
        clusters = sorted(path.split("/")[-2:] for path in glob.glob("/etc/postgresql/*/*"))
        asked.update({f"postgresql@{version}-{name}.service": "postgresql" for version, name in clusters})
        asked = asked or {"postgresql.service": "postgresql"}
    if "redis" in servers:
        asked["redis-server.service"] = "redis"
    for service in services:
        if service["instance"]:
            asked[units_of.target_of(service["service"])] = service["name"]
            asked.update({f"{service['service']}-{colour}.service": service["name"] for colour in units_of.COLOURS})
        else:
            asked[f"{service['service']}.service"] = service["name"]
    return asked


def properties(text: str) -> dict[str, dict[str, str]]:
    """Of each unit; a target or a unit without file has fewer, which are empty."""
    parts = (dict(line.partition("=")[::2] for line in part.splitlines()) for part in text.split("\n\n") if part.strip())
    return {part["Id"]: {**dict.fromkeys(PROPERTIES, ""), **part} for part in parts}


def describe(name: str, found: Mapping[str, str], component: str) -> dict[str, Any]:
    unit = f"{units_of.UNITS}/{name}"
    stem, colour = units_of.split_unit(name)
    # A colour keeps what it was started with; what is wanted now is written beside it.
    wanted = _HASH.search(_text(f"/etc/airflow/{stem.replace('airflow-', '', 1)}/unit" if colour else unit))
    pid = found["MainPID"] or "0"
    running = found["ActiveState"] in ("active", "reloading", "activating", "deactivating") and pid != "0"
    started = units_of.since(found["ExecMainStartTimestamp"])
    takes = (_QUEUES.search(found["ExecStart"]), _SLOTS.search(found["ExecStart"])) if colour else (None, None)
    installed = found["LoadState"] == "loaded"
    return {
        "name": name,
        "component": component,
        "instance": stem if colour else "",
        "state": found["ActiveState"] if installed else found["LoadState"],
        "substate": found["SubState"] if installed else "",
        "result": found["Result"] if installed else "",
        "since": iso(units_of.since(found["StateChangeTimestamp"])) if installed else "",
        # Of the process: a unit also changes its state when it is reloaded, or when it begins to stop.
        "uptime": max(0, int(time.time() - started)) if running and started else None,
        "enabled": found["UnitFileState"],
        "restarts": int(found["NRestarts"] or 0),
        "memory": memory(found) if running else None,
        "release": release(unit, pid) if running else "",
        "current": units_of.running_hash(name) == wanted[1] if wanted and running else None,
        "tasks": units_of.running_tasks(found["ControlGroup"]) if running and colour else [],
        "queues": takes[0][1].split(",") if takes[0] else [],
        "slots": int(takes[1][1]) if takes[1] else None,
    }


def release(unit: str, pid: str) -> str:
    """The release that a process has mapped; for one that maps nothing of it, the one that its unit names."""
    named = _RELEASE.search(_text(unit))
    if not named:
        return ""
    mapped = re.search(rf" {re.escape(named[1])}/([^/\n]+)/", _text(f"/proc/{pid}/maps"))
    return (mapped or named)[1 if mapped else 2]


def memory(found: Mapping[str, str]) -> int | None:
    """Bytes; where systemd does not count (a container without the memory controller), the processes' shares."""
    counted = found["MemoryCurrent"]
    # systemd's "not set" is also the largest number of 64 bits.
    if counted.isdigit() and int(counted) < 2**63:
        return int(counted)
    texts = units_of.of_processes(found["ControlGroup"], "smaps_rollup")
    shares = (re.search(r"^Pss:\s+(\d+)", text, re.M) for text in texts)
    return sum(int(share[1]) * 1024 for share in shares if share) or None


def judge(question: Question, shown: Sequence[Mapping[str, Any]]) -> None:
    drained = os.path.exists(units_of.DRAINED)
    for unit in shown:
        if unit["instance"] and unit["component"]:
            if unit["state"] == "deactivating":
                count = len(unit["tasks"])
                question.note(f"{unit['name']} finishes {count} running task{'' if count == 1 else 's'}")
        elif unit["name"] in COMPANIONS:
            if unit["enabled"] == "enabled":
                judge_one(question, unit)
        elif not unit["component"]:
            question.note(f"{unit['name']} ({unit['state']}) belongs to no group of this host; site.yml removes it")
        # A drained host's target may be stopped or not: its colours do not start either way.
        elif not (drained and unit["name"].endswith(".target")):
            judge_one(question, unit)
    for instance in sorted({unit["instance"] for unit in shown if unit["instance"] and unit["component"]}):
        if not drained:
            judge_colours(question, instance, [unit for unit in shown if unit["instance"] == instance])


def health_of(unit: Mapping[str, Any], problems: Sequence[str]) -> str:
    """One word for a unit, from what was said of it."""
    if unit["instance"] and unit["state"] == "deactivating":
        return "draining"
    # Of two colours one is idle, and an HAProxy that somebody has installed and not enabled is nobody's.
    idle = unit["state"] not in UP and (unit["instance"] or (unit["name"] in COMPANIONS and unit["enabled"] != "enabled"))
    if not idle and any(unit["name"] in problem for problem in problems):
        return "ill"
    if unit["instance"] and any(problem.startswith((f"{unit['instance']}: ", f"{unit['instance']} ")) for problem in problems):
        return "ill"
    if idle:
        return "idle"
    return "well" if unit["component"] or unit["name"] in COMPANIONS else "left"


def judge_one(question: Question, unit: Mapping[str, Any]) -> None:
    name = unit["name"]
    if unit["state"] == "not-found":
        question.problem(f"{name} is not installed; {SITE}")
        return
    if unit["state"] not in UP:
        why = ", ".join(part for part in (unit["substate"], unit["result"]) if part not in ("", "success", unit["state"]))
        times = f", restarted {unit['restarts']} times" if unit["restarts"] else ""
        since = f" since {unit['since']}" if unit["since"] else ""
        question.problem(f"{name} is {unit['state']}{f' ({why})' if why else ''}{since}{times}; see journalctl -u {name}")
    if unit["enabled"] == "disabled":
        question.problem(f"{name} is disabled, so it does not come back after a reboot; {SITE}")
    judge_hash(question, unit)


def judge_cleaning(question: Question) -> None:
    """Nobody else notices when old rows are not deleted any more."""
    if not os.path.exists(f"{units_of.UNITS}/{CLEANING}.timer"):
        return
    result = _output(["systemctl", "show", "--property=Result", "--value", f"{CLEANING}.service"]).strip()
    if result not in ("", "success"):
        why = f"ended with {result}; see journalctl -u {CLEANING}"
        question.problem(f"{CLEANING}.service, which deletes old rows from the databases, {why}")
    if _output(["systemctl", "is-active", f"{CLEANING}.timer"]).strip() != "active":
        question.problem(f"{CLEANING}.timer does not run, so old rows stay in the databases; {SITE}")


def judge_hash(question: Question, unit: Mapping[str, Any]) -> None:
    if unit["current"] is False:
        question.problem(f"{unit['name']} was started with other settings or another release than those on disk; {SITE}")


def judge_colours(question: Question, instance: str, colours: Sequence[Mapping[str, Any]]) -> None:
    """Exactly one takes tasks, with what is on disk, and the next boot starts that one."""
    serving = [unit for unit in colours if unit["state"] in UP]
    if len(serving) > 1:
        question.problem(f"{instance}: both colours take tasks, as in a run that was interrupted; {SITE}")
    elif not serving:
        states = ", ".join(f"{unit['name'].rpartition('.')[0][-1]} is {unit['state']}" for unit in colours)
        question.problem(f"{instance} takes no tasks ({states}); see journalctl -u '{instance}-*'")
    else:
        judge_one(question, serving[0])


# What the health timer says ----------------------------------------------------


def health(question: Question) -> dict[str, Any]:
    found = status_health.read(time.time())
    for problem in found.pop("problems", []):
        question.problem(problem)
    for note in found.pop("notes", []):
        question.note(note)
    return found


# DAG files and queues ---------------------------------------------------------


def dags(question: Question) -> dict[str, Any]:
    """Which shipment of DAG files this host reads; empty where it reads none, or they come another way."""
    if not question.dags_folder or not os.path.islink(question.dags_folder):
        return {}
    store = airflow_dags.Store(question.dags_folder, -1)
    record = store.recorded(store.current())
    return {"revision": str(record.get("revision", "")), "shipped": iso(float(record.get("shipped", 0)))} if record else {}


def queues(question: Question) -> dict[str, Any]:
    """What the database and the broker know, asked where a scheduler is."""
    if "scheduler" not in {service["name"] for service in question.services} or not os.path.exists(queues_of.ENVIRONMENT):
        return {}
    found = queues_of.read(broker=True, names=True)
    if found["broker_problem"]:
        question.problem(f"the broker does not tell how long its queues are: {found['broker_problem']}; see that Redis runs")
    return found


def entry(question: Question) -> dict[str, Any]:
    return status_entry.read(_text, _output, question.problem, question.note)


# Certificates ---------------------------------------------------------------


def certificates(question: Question) -> list[dict[str, Any]]:
    shown = []
    for path in sorted(glob.glob(os.path.join(glob.escape(question.tls_directory), "*.pem"))):
        own = [{"path": path, **certificate(block)} for block in _CERTIFICATE.findall(_text(path))]
        shown += own
        if not own:
            question.problem(f"{path} holds no certificate; {SITE}")
            continue
        # Authorities, old and new, are good for as long as one of them is; elsewhere the others are only the chain of the first.
        last = max(own, key=lambda one: one["days_left"]) if os.path.basename(path) == "ca.pem" else own[0]
        if last["days_left"] < 0:
            question.problem(f"{path} has expired on {last['not_after']}; {SITE}")
        elif last["days_left"] < question.warn_days:
            question.problem(f"{path} expires in {last['days_left']} days, on {last['not_after']}; {SITE}")
    return shown


def certificate(pem: str) -> dict[str, Any]:
    text = _output(["openssl", "x509", "-noout", "-subject", "-enddate", "-ext", "subjectAltName", "-nameopt", "RFC2253"], pem)
    subject = re.search(r"^subject=\s*(.*)$", text, re.M)
    end = re.search(r"^notAfter=(.*)$", text, re.M)
    if not end:
        raise ValueError("openssl cannot read a certificate")
    seconds = ssl.cert_time_to_seconds(end[1].strip())
    return {
        "subject": subject[1] if subject else "",
        "names": _NAME.findall(text),
        "not_after": iso(seconds),
        "days_left": int((seconds - time.time()) // DAY),
    }


# Backups --------------------------------------------------------------------


def backup(question: Question) -> dict[str, Any]:
    """The last good one, and whether there should be a newer one."""
    if "postgresql" not in question.servers or not os.path.exists(backups_of.CONFIG):
        return {}
    config = backups_of.read_config(backups_of.CONFIG)
    last = backups_of.last_good(config["directory"])
    run = json.loads(_text(backups_of.STATE) or "{}")
    shown = {
        "id": last["id"] if last else "",
        "time": last["time"] if last else "",
        "bytes": last["bytes"] if last else 0,
        "seconds": round(last["dump_seconds"] + last["verify_seconds"], 1) if last else 0.0,
        "fernet": last["fernet"] if last else "",
        "count": len(backups_of.ids(config["directory"])),
        "directory": config["directory"],
        "copied_to": (config.get("copy") or {}).get("target", ""),
        "schedule": config["schedule"],
    }
    result = _output(["systemctl", "show", "--property=Result", "--value", f"{BACKUP}.service"]).strip()
    judge_backup(question, shown, run.get("failure") or ("" if result == "success" else f"it ended with {result}"), run)
    if config["schedule"] and _output(["systemctl", "is-active", f"{BACKUP}.timer"]).strip() != "active":
        question.problem(f"{BACKUP}.timer does not run, so no backup is made on schedule; {SITE}")
    return shown


def judge_backup(question: Question, shown: Mapping[str, Any], failure: str, run: Mapping[str, Any]) -> None:
    if failure:
        when = f" of {run['started']}" if run.get("started") else ""
        question.problem(f"the last backup{when} failed: {failure}; see journalctl -u {BACKUP}")
    if not shown["schedule"]:
        last = f"the last is of {shown['time']}" if shown["id"] else "there is none yet"
        question.note(f"backups are made only by hand; {last}")
        return
    stamp = f"/var/lib/systemd/timers/stamp-{BACKUP}.timer"
    # Before there is one: since the timer knows the schedule.
    since = (
        backups_of.seconds_of(shown["time"]) if shown["id"] else os.stat(stamp).st_mtime if os.path.exists(stamp) else time.time()
    )
    allowed = allowed_age(_output(["systemd-analyze", "calendar", "--iterations=12", "--", shown["schedule"]]))
    if time.time() - since > allowed:
        last = f"the last good one is of {shown['time']}" if shown["id"] else "there is none at all"
        question.problem(
            f"a backup is overdue: {last} (postgresql_backup_schedule: {shown['schedule']}); see journalctl -u {BACKUP}"
        )
    elif not shown["id"]:
        question.note(f"there is no backup yet; the timer makes the first one ({shown['schedule']}), or playbooks/backup.yml now")


def allowed_age(text: str) -> float:
    """How old a backup may be, from what systemd says of the next dates: the longest pause between them, a quarter more, and
    half an hour for the timer's own delay and the work."""
    dates = [time.mktime(time.strptime(found, "%Y-%m-%d %H:%M:%S")) for found in _DATE.findall(text)]
    pauses = [later - earlier for earlier, later in zip(dates, dates[1:])]
    return 1.25 * max(pauses) + 1800 if pauses else float("inf")


# In the order in which they are shown; with what stands there when one cannot be read.
SECTIONS: dict[str, tuple[Callable[[Question], Any], Any]] = {
    "host": (host, {}),
    "units": (units, []),
    "health": (health, {}),
    "dags": (dags, {}),
    "queues": (queues, {}),
    "entry": (entry, {}),
    "certificates": (certificates, []),
    "backup": (backup, {}),
}
