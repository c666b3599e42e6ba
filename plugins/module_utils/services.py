# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The systemd services of one host, converged from what runs, not from what just changed. Runs on the host.

A service is converged when it was started with the hash that is on disk. One with an instance exists in two colours: a change
starts the idle colour, proves it healthy and only then lets the other finish its tasks, for as long as they take.
"""

from __future__ import annotations

import calendar
import concurrent.futures
import glob
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.windfarm.airflow.plugins.module_utils.host_files import ensure_directory, write
from ansible_collections.windfarm.airflow.plugins.module_utils.last_good import LastGood, unit_hash, unit_release
from ansible_collections.windfarm.airflow.plugins.module_utils.release import read_manifest, remember

UNITS = "/etc/systemd/system"
# Operators' and playbooks' files: while one is there, workers or the scheduler do not start, not even at boot.
DRAINED = "/etc/airflow/drained"
PAUSED = "/etc/airflow/paused"
# The health timer's: while it is there, this host's disk is full or its clock is off.
WITHDRAWN = "/run/airflow/withdrawn"
HELD = "held.conf"
PROBE = "/usr/local/lib/airflow/probe.py"
MARKER = "# windfarm.airflow: "
RUNNING = "/run/airflow"
COLOURS = ("a", "b")
PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "MainPID",
    "NeedDaemonReload",
    "NRestarts",
    "ControlGroup",
    "ExecMainStartTimestamp",
)
# A unit that systemd has restarted this often since it was started will not come up by waiting.
CRASHES = 3
_ENVIRONMENT = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="(.*)"$')


class ServicesError(Exception):
    """What could not be done, with the cure."""


def read_environment(path: str) -> dict[str, str]:
    """An EnvironmentFile as this collection writes it; empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = [_ENVIRONMENT.match(line.rstrip("\n")) for line in file]
    except FileNotFoundError:
        return {}
    return {match[1]: re.sub(r'\\(["\\`$])', r"\1", match[2]) for match in found if match}


def running_hash(unit: str) -> str:
    """The hash that a unit was last started with, which it notes itself; empty when it has not been since boot."""
    try:
        with open(f"{RUNNING}/{unit}", encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def since(timestamp: str) -> float:
    """systemd's timestamp, in UTC (systemctl is run with TZ=UTC), as seconds; 0 when there is none."""
    try:
        return float(calendar.timegm(time.strptime(timestamp, "%a %Y-%m-%d %H:%M:%S UTC")))
    except ValueError:
        return 0.0


def systemctl(*arguments: str) -> str:
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        ["systemctl", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        raise ServicesError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def show(units: Sequence[str]) -> dict[str, dict[str, str]]:
    """Properties of each unit, by its name."""
    if not units:
        return {}
    text = systemctl("show", f"--property={','.join(PROPERTIES)}", *units)
    found = (dict(line.partition("=")[::2] for line in part.splitlines()) for part in text.split("\n\n") if part)
    return {properties["Id"]: properties for properties in found}


def of_processes(control_group: str, name: str) -> list[str]:
    """One file of /proc/PID of each process in a control group."""
    texts = []
    for path in glob.glob(f"/sys/fs/cgroup{glob.escape(control_group)}/**/cgroup.procs", recursive=True) if control_group else []:
        # Both may end while they are looked at.
        try:
            with open(path, encoding="ascii") as file:
                pids = file.read().split()
        except OSError:
            continue
        for pid in pids:
            try:
                with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
                    texts.append(file.read())
            except OSError:
                continue
    return texts


def running_tasks(control_group: str) -> list[str]:
    """Ids of the task instances that run, from the titles of their processes. A supervisor's title outlives its task."""
    titles = (text.replace("\0", " ").strip() for text in of_processes(control_group, "cmdline"))
    return sorted(title.rpartition(" ")[2] for title in titles if title.startswith("airflow worker -- "))


def journal(unit: str, lines: int = 12) -> str:
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        ["journalctl", "--unit", unit, "--lines", str(lines), "--output", "cat", "--no-pager"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


class _Verified(http.client.HTTPSConnection):
    """HTTPS to one address, with the certificate of another name: a certificate need not hold 127.0.0.1."""

    def __init__(self, address: str, port: int, name: str, ca: str) -> None:
        super().__init__(address, port, timeout=5)
        self._name = name
        self._verifying = ssl.create_default_context(cafile=ca)

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._verifying.wrap_socket(plain, server_hostname=self._name)


def ask_http(health: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the path gives the expected status, and `first_requests` any answer but a server's error."""
    for path in health.get("first_requests", []):
        status, detail = _status_of(health, path)
        if not 0 < status < 500:
            return False, detail
    status, detail = _status_of(health, health["path"])
    return status == int(health["status"]), detail


def _status_of(health: Mapping[str, Any], path: str) -> tuple[int, str]:
    """HTTP status, 0 where there is none, and what to say of it."""
    address, port = str(health["address"]), int(health["port"])
    connection: http.client.HTTPConnection
    try:
        if health.get("ca"):
            connection = _Verified(address, port, str(health["name"]), str(health["ca"]))
        else:
            connection = http.client.HTTPConnection(address, port, timeout=5)
    except OSError as error:
        return 0, f"{health['ca']}: {error}"
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return 0, f"port {port}: {error}"
    finally:
        connection.close()
    return status, f"port {port}: HTTP status {status}"


def ask_probe(python: str, question: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[bool, str]:
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            [python, "-I", PROBE],
            input=json.dumps(question),
            env={"PATH": "/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return False, f"the probe gave no answer: {error}"
    return answer["ok"], answer["detail"]


class Host:
    """The services that this host should run, those that it runs, and the way from one to the other."""

    def __init__(
        self,
        services: Sequence[Mapping[str, Any]],
        hashes: Mapping[str, str],
        python: str,
        health_timeout: float,
        drain_timeout: float,
        restart: str,
        check: bool,
        fall_back: bool = False,
        backup: str = "",
    ) -> None:
        self.services = services
        self.hashes = hashes
        self.python = python
        self.health_timeout = health_timeout
        self.drain_timeout = drain_timeout
        self.restart = restart
        self.check = check
        self.falls_back = fall_back
        self.backup = backup
        self.actions: list[str] = []
        self.notes: list[str] = []
        self._enable: list[str] = []
        self._disable: list[str] = []

    # What is wanted --------------------------------------------------------

    def wanted_hash(self, service: Mapping[str, Any]) -> str:
        """What entry prepare has rendered, or in check mode would write; where it has not run, what is on disk."""
        if service["service"] in self.hashes:
            return self.hashes[service["service"]]
        return unit_hash(f"{service['config']}/unit" if service["instance"] else f"{UNITS}/{service['service']}.service")

    def units(self, service: Mapping[str, Any]) -> list[str]:
        if service["instance"]:
            return [f"{service['service']}-{colour}.service" for colour in COLOURS]
        return [f"{service['service']}.service"]

    # Doing ------------------------------------------------------------------

    def act(self, action: str, *command: str) -> None:
        self.actions.append(action)
        if command and not self.check:
            systemctl(*command)

    def reload_if_stale(self) -> None:
        """Also after a run that died between writing the units and this."""
        units = [unit for service in self.services for unit in self.units(service)]
        found = show(units)
        stale = any(
            properties["NeedDaemonReload"] == "yes"
            or (properties["LoadState"] == "not-found" and os.path.exists(f"{UNITS}/{unit}"))
            for unit, properties in found.items()
        )
        if stale and not self.check:
            systemctl("daemon-reload")

    def converge(self) -> None:
        if not self.check:
            self.reload_if_stale()
        state = show([unit for service in self.services for unit in self.units(service)])
        plain = [service for service in self.services if not service["instance"]]
        coloured = [service for service in self.services if service["instance"]]
        started = [self.start_plain(service, state) for service in plain]
        problems: list[str] = []
        chosen = []
        for service in coloured:
            try:
                chosen.append((service, self.start_colour(service, state)))
            except ServicesError as error:
                problems.append(str(error))
        waiting = [(service, unit) for service, unit in [*zip(plain, started), *chosen] if unit and not self.check]
        failed = self.wait_healthy(waiting)
        for service, unit in chosen:
            if unit:
                self.finish_colours(service, unit, state, failed.get(unit))
        for service, unit in waiting:
            if unit not in failed:
                self.keep_good(service)
            elif self.falls_back and not service["instance"]:
                failed[unit] += self.return_to_good(service, unit)
        self.apply_enablement()
        problems += failed.values()
        if problems:
            raise ServicesError("\n".join(problems))

    def keep_good(self, service: Mapping[str, Any]) -> None:
        """What it is proven to run with, to come back to. A worker's other colour is its own way back."""
        release = unit_release(f"{service['config']}/unit" if service["instance"] else f"{UNITS}/{service['service']}.service")
        remember(release)
        if not service["instance"]:
            LastGood(service["service"], service["config"]).keep()

    def return_to_good(self, service: Mapping[str, Any], unit: str) -> str:
        """The files that it was last healthy with, where their release still fits the database; what came of it."""
        good = LastGood(service["service"], service["config"])
        if not good.there() or good.hash() == self.wanted_hash(service):
            return ""
        before, now = (read_manifest(path) for path in (good.release(), unit_release(f"{UNITS}/{unit}")))
        if service["database"] and (not before or not now or before["migrations"] != now["migrations"]):
            self.act(f"stop {unit}", "stop", unit)
            named = f"-e rollback_backup={self.backup}" if self.backup else "with the backup that was made before the migration"
            return (
                f"\n{unit} was stopped, since the release before cannot run on the migrated database. Two ways out: mend the "
                f"cause and run upgrade.yml again; or set airflow_version back and run rollback.yml {named}"
            )
        good.put_back()
        systemctl("daemon-reload")
        self.act(f"restart {unit} with its last healthy files", "restart", "--no-block", unit)
        self.hashes = {**self.hashes, service["service"]: good.hash()}
        failure = self.wait_healthy([(service, unit)]).get(unit)
        return f"\nWith its last healthy files: {failure}" if failure else f"\n{unit} runs with its last healthy files again"

    def restart_stale(self) -> None:
        """Only what runs, and with something else than what is on disk."""
        state = show([unit for service in self.services for unit in self.units(service)])

        def stale(service: Mapping[str, Any]) -> bool:
            return any(
                state[unit]["ActiveState"] in ("active", "activating", "reloading")
                and running_hash(unit) != self.wanted_hash(service)
                for unit in self.units(service)
            )

        self.services = [service for service in self.services if stale(service)]
        self.converge()

    # Stopping ---------------------------------------------------------------

    def hold(self) -> None:
        """What ends from now on stays down: after a migration, an old release would be started again and again in vain."""
        for service in self.services:
            (unit,) = self.units(service)
            path = f"{UNITS}/{unit}.d/{HELD}"
            if service["database"] and os.path.exists(f"{UNITS}/{unit}") and not os.path.exists(path):
                self.actions.append(f"hold {unit}")
                if not self.check:
                    ensure_directory({"path": os.path.dirname(path), "mode": "0755"}, False)
                    write(path, "[Service]\nRestart=no\n", {"mode": "0644"})
        if self.actions and not self.check:
            systemctl("daemon-reload")

    def release_hold(self, unit: str) -> None:
        path = f"{UNITS}/{unit}.d/{HELD}"
        if os.path.exists(path):
            self.actions.append(f"release {unit}")
            if not self.check:
                os.unlink(path)
                os.rmdir(os.path.dirname(path)) if not os.listdir(os.path.dirname(path)) else None
                systemctl("daemon-reload")

    def stop(self, workers: str) -> None:
        """Down until something starts it: workers first, which need the others to finish their tasks."""
        state = show([unit for service in self.services for unit in self.units(service)])
        up = ("active", "activating", "reloading", "deactivating")

        def running(coloured: bool) -> list[str]:
            return [
                unit
                for service in self.services
                if bool(service["instance"]) == coloured
                for unit in self.units(service)
                if state[unit]["ActiveState"] in up
            ]

        ending = running(coloured=True)
        for unit in ending:
            if state[unit]["ActiveState"] != "deactivating":
                self.act(f"let {unit} finish its tasks and stop", "stop", "--no-block", unit)
            if workers == "kill":
                self.act(f"kill {unit} and its tasks", "kill", "--signal=SIGKILL", unit)
        if ending and not self.check:
            self.wait_inactive(ending, True)
        plain = running(coloured=False)
        for unit in plain:
            self.act(f"stop {unit}")
        if plain and not self.check:
            systemctl("stop", *plain)

    def start_plain(self, service: Mapping[str, Any], state: Mapping[str, Mapping[str, str]]) -> str:
        (unit,) = self.units(service)
        properties = state.get(unit, {})
        wanted = self.wanted_hash(service)
        active = properties.get("ActiveState") in ("active", "activating", "reloading")
        current = running_hash(unit) == wanted
        self.release_hold(unit)
        if self.is_kept_down(service):
            return ""
        if not active:
            self.act(f"start {unit}", "start", "--no-block", unit)
        elif not current:
            self.act(f"restart {unit}", "restart", "--no-block", unit)
        self.enable(unit, properties)
        return unit

    def is_kept_down(self, service: Mapping[str, Any]) -> bool:
        path = service["unless"]
        if not path or not os.path.exists(path):
            withdrawn = bool(service["instance"]) and os.path.exists(WITHDRAWN)
            if withdrawn:
                self.notes.append(f"{service['service']} stays stopped while {WITHDRAWN} is there, which says why")
            return withdrawn
        word = "drained" if path == DRAINED else "paused"
        self.notes.append(f"{service['service']} is {word} ({path}) and is left so")
        return True

    def enable(self, unit: str, properties: Mapping[str, str]) -> None:
        if properties.get("UnitFileState") != "enabled":
            self.actions.append(f"enable {unit}")
            self._enable.append(unit)

    def disable(self, unit: str, properties: Mapping[str, str]) -> None:
        if properties.get("UnitFileState") == "enabled":
            self.actions.append(f"disable {unit}")
            self._disable.append(unit)

    def apply_enablement(self) -> None:
        """In two calls for all units: each makes systemd read all its files again."""
        if self.check:
            return
        # First, since a target that starts also starts every unit that is enabled for it.
        if self._disable:
            systemctl("--quiet", "disable", *self._disable)
        if self._enable:
            systemctl("--quiet", "enable", *self._enable)
            targets = [unit for unit in self._enable if unit.endswith(".target")]
            if targets:
                systemctl("start", *targets)

    # Colours ----------------------------------------------------------------

    def start_colour(self, service: Mapping[str, Any], state: Mapping[str, Mapping[str, str]]) -> str:
        """The unit that is to serve: the one that already has this hash, else the idle one, started."""
        wanted = self.wanted_hash(service)
        unit_of = dict(zip(COLOURS, self.units(service)))
        found = {colour: state.get(unit, {}) for colour, unit in unit_of.items()}
        for colour, properties in found.items():
            if properties.get("ActiveState") == "deactivating":
                self.note_draining(unit_of[colour], properties)
        if self.is_kept_down(service):
            return ""
        choice = choose_colour(
            {colour: properties.get("ActiveState", "inactive") for colour, properties in found.items()},
            {colour: running_hash(unit_of[colour]) == wanted for colour in COLOURS},
            {colour: properties.get("UnitFileState") == "enabled" for colour, properties in found.items()},
            self.restart,
        )
        if choice.serves:
            return unit_of[choice.colour]
        for colour in choice.stop:
            self.act(f"let {unit_of[colour]} finish its tasks and stop, first", "stop", "--no-block", unit_of[colour])
        if choice.wait:
            self.actions.append(f"wait for {' and '.join(unit_of[colour] for colour in choice.wait)} to finish")
        colour = choice.colour
        if choice.wait and not self.check:
            ended = self.wait_inactive([unit_of[one] for one in choice.wait], choice.wait_for_all)
            colour = colour if unit_of[colour] in ended else split_unit(ended[0])[1]
        self.materialise(service, colour)
        self.act(f"start {unit_of[colour]}", "start", "--no-block", unit_of[colour])
        return unit_of[colour]

    def note_draining(self, unit: str, properties: Mapping[str, str]) -> None:
        tasks = running_tasks(properties.get("ControlGroup", ""))
        named = f": {', '.join(tasks)}" if tasks else ""
        self.notes.append(f"{unit} finishes {len(tasks)} running tasks{named}")

    def wait_inactive(self, units: Sequence[str], all_of_them: bool) -> list[str]:
        """Until one of the units, or all of them, have ended; which have."""
        deadline = time.monotonic() + self.drain_timeout
        while True:
            found = show(units)
            ended = [unit for unit in units if found[unit]["ActiveState"] in ("inactive", "failed")]
            if ended and (len(ended) == len(units) or not all_of_them):
                return ended
            if time.monotonic() > deadline:
                tasks = [task for one in found.values() for task in running_tasks(one["ControlGroup"])]
                raise ServicesError(
                    f"{', '.join(units)} still runs {len(tasks)} tasks after airflow_drain_timeout ({self.drain_timeout:.0f} s): "
                    f"{', '.join(tasks) or 'none named'}. Nothing was stopped by force; run again later, or raise the time-out"
                )
            time.sleep(2)

    def materialise(self, service: Mapping[str, Any], colour: str) -> None:
        """The colour's own unit, configuration and environment: the other colour keeps the ones that it runs with."""
        if self.check:
            return
        ensure_directory({"path": f"{service['config']}-{colour}", "mode": "0755"}, False)
        for name, mode in (("airflow.cfg", "0644"), ("environment", "0600"), ("unit", "0644")):
            with open(f"{service['config']}/{name}", encoding="utf-8") as file:
                content = (
                    file.read()
                    .replace("@COLOUR@", colour)
                    .replace(f'"{service["config"]}/airflow.cfg"', f'"{service["config"]}-{colour}/airflow.cfg"')
                )
            target = f"{service['config']}-{colour}/{name}"
            if name == "unit":
                target = f"{UNITS}/{service['service']}-{colour}.service"
            write(target, content, {"mode": mode})
        systemctl("daemon-reload")

    def finish_colours(
        self, service: Mapping[str, Any], serving: str, state: Mapping[str, Mapping[str, str]], failure: str | None
    ) -> None:
        others = [unit for unit in self.units(service) if unit != serving]
        if failure:
            before = state.get(serving, {}).get("ActiveState")
            # The new colour never worked: the old one goes on serving as if nothing had been tried.
            if before not in ("active", "activating") and any(
                state.get(unit, {}).get("ActiveState") == "active" for unit in others
            ):
                self.act(f"stop {serving}", "stop", "--no-block", serving)
                self.notes.append(f"{serving} finishes what it may have taken")
            return
        self.enable(serving, state.get(serving, {}))
        target = target_of(service["service"])
        if not self.check and target not in self._enable:
            self.enable(target, show([target])[target])
        for unit in others:
            properties = state.get(unit, {})
            if properties.get("ActiveState") in ("active", "activating"):
                # SIGTERM to the main process: no new tasks, the running ones finish, however long that takes.
                self.act(f"let {unit} finish its tasks and stop", "stop", "--no-block", unit)
            self.disable(unit, properties)

    # Health -----------------------------------------------------------------

    def wait_healthy(self, waiting: Sequence[tuple[Mapping[str, Any], str]]) -> dict[str, str]:
        """Proof that each serves, all side by side; the failures by unit."""
        if not waiting:
            return {}
        deadline = time.monotonic() + self.health_timeout
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(waiting)) as pool:
            outcomes = pool.map(lambda pair: self.wait_one(pair[0], pair[1], deadline), waiting)
            return {unit: failure for (_service, unit), failure in zip(waiting, outcomes) if failure}

    def wait_one(self, service: Mapping[str, Any], unit: str, deadline: float) -> str:
        wanted = self.wanted_hash(service)
        detail = ""
        # systemd counts on over the stop of a restart, and begins anew only with the next start.
        fewest = None
        while True:
            properties = show([unit])[unit]
            running = properties["ActiveState"] == "active" and running_hash(unit) == wanted
            if running:
                healthy, detail = self.ask(service, unit, properties)
                if healthy:
                    return ""
            else:
                detail = f"{properties['ActiveState']} ({properties['SubState']})"
            restarts = int(properties["NRestarts"] or 0)
            fewest = restarts if fewest is None else min(fewest, restarts)
            crashed = not running and restarts - fewest >= CRASHES
            if crashed or time.monotonic() > deadline:
                slow = f"is not healthy after {self.health_timeout:.0f} s (airflow_health_timeout)"
                why = f"was restarted {restarts - fewest} times" if crashed else slow
                return f"{unit} {why}: {detail}. Its journal ends:\n{journal(unit)}"
            time.sleep(0.5)

    def ask(self, service: Mapping[str, Any], unit: str, properties: Mapping[str, str]) -> tuple[bool, str]:
        health = service["health"]
        if health["kind"] == "http":
            return ask_http(health)
        colour = unit.rpartition(".")[0][-1]
        config = f"{service['config']}-{colour}" if service["instance"] else service["config"]
        question = {**health, "since": since(properties["ExecMainStartTimestamp"])}
        if "name" in health:
            question["name"] = health["name"].replace("@COLOUR@", colour)
        environment = read_environment(f"{config}/environment")
        # Its own release: the one that it goes back to may be another than the run's.
        python = f"{environment['AIRFLOW_RELEASE']}/bin/python" if "AIRFLOW_RELEASE" in environment else self.python
        answer = ask_probe(python, question, environment)
        # A worker that reaches no webserver takes tasks and loses each of them.
        if answer[0] and "webserver" in health:
            reached, detail = ask_http(health["webserver"])
            return reached, f"no webserver answers through HAProxy, {detail}"
        return answer

    # Leaving ----------------------------------------------------------------

    def leaving(self) -> list[str]:
        """Units of ours on this host that no group of it asks for any more."""
        wanted = {unit for service in self.services for unit in self.units(service)}
        return [unit for unit in own_units() if unit not in wanted]

    def remove(self, catalog: Mapping[str, Mapping[str, Any]], peers: Mapping[str, Sequence[str]], proven: Sequence[str]) -> None:
        """Take away what is leaving; `proven` names the components that this run has seen healthy on another host."""
        state = show(self.leaving())
        # The log server goes last: while a worker finishes its tasks, their logs stay readable.
        for unit in sorted(state, key=lambda one: one == "airflow-logs.service"):
            self.remove_unit(unit, state[unit], catalog, peers, proven)
        self.apply_enablement()
        if state and not self.check:
            systemctl("daemon-reload")
            # A component that was cut off, or still starting, ends with an error: what is gone must not be told of as failed.
            failed = [unit for unit, found in show(list(state)).items() if found["ActiveState"] == "failed"]
            if failed:
                systemctl("reset-failed", *failed)

    def remove_unit(
        self,
        unit: str,
        properties: Mapping[str, str],
        catalog: Mapping[str, Mapping[str, Any]],
        peers: Mapping[str, Sequence[str]],
        proven: Sequence[str],
    ) -> None:
        stem, colour = split_unit(unit)
        name = stem.partition("@")[0].replace("airflow-", "", 1).replace("-", "_")
        config = f"/etc/airflow/{stem.replace('airflow-', '', 1)}"
        own = f"{config}-{colour}" if colour else config
        active = properties["ActiveState"] in ("active", "activating")
        stays = any(service["name"] == name for service in self.services)
        # The database may have closed its door to this host already, so what the run has seen counts first.
        if active and not stays and name not in proven:
            health = dict(catalog.get(name, {}).get("health", {}))
            if "name" in health:
                health["name"] = health["name"].replace("@INSTANCE@", stem.partition("@")[2]).replace("@COLOUR@", colour)
            problem = last_of_its_kind(self.python, name, health, peers.get(name, []), own)
            if problem and self.check and peers.get(name):
                self.notes.append(f"{unit} leaves when the one on {', '.join(peers[name])} answers")
            elif problem:
                raise ServicesError(f"{unit} is to leave this host, but {problem}. It was left as it is")
        self.disable(unit, properties)
        waits = name == "logs" and any("finishes" in note or "removed by a later run" in note for note in self.notes)
        if waits or (colour and (active or properties["ActiveState"] == "deactivating")):
            if colour and active:
                self.act(f"let {unit} finish its tasks and stop", "stop", "--no-block", unit)
            elif colour:
                self.note_draining(unit, properties)
            self.notes.append(f"{unit} is removed by a later run, when its host's tasks have ended")
            return
        self.act(f"stop and remove {unit}", "stop", unit)
        if self.check:
            return
        # The unit goes last: by it the next run sees that there is something left to remove.
        paths = [own]
        if not any(split_unit(other)[0] == stem for other in own_units() if other != unit):
            paths.append(config)
            # Another instance of it may be left, that runs or that goes later.
            shared = stays or any(target_of(split_unit(other)[0]) == target_of(stem) for other in own_units() if other != unit)
            if not shared and os.path.exists(f"{UNITS}/{target_of(stem)}"):
                self._disable.append(target_of(stem))
                # Without its file it would stay active, and status would show a unit that is nowhere.
                systemctl("stop", target_of(stem), needs_of(stem))
                paths += [f"{UNITS}/{target_of(stem)}", f"{UNITS}/{needs_of(stem)}"]
        self.apply_enablement()
        self._disable = []
        LastGood(stem, config).forget()
        for path in [*paths, f"{UNITS}/{unit}.d", f"{UNITS}/{unit}"]:
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.unlink(path)


class Choice(NamedTuple):
    """Which colour is to serve, and what comes before it may start."""

    colour: str
    serves: bool = False
    stop: Sequence[str] = ()
    wait: Sequence[str] = ()
    wait_for_all: bool = True


def choose_colour(states: Mapping[str, str], current: Mapping[str, bool], enabled: Mapping[str, bool], restart: str) -> Choice:
    """From the states of both colours, whether each was started with what is wanted now, and which one boot would start."""
    up = [colour for colour in COLOURS if states[colour] in ("active", "activating", "reloading")]
    busy = [colour for colour in COLOURS if states[colour] == "deactivating"]
    free = [colour for colour in COLOURS if colour not in up and colour not in busy]
    served = sorted((colour for colour in up if current[colour]), key=lambda colour: not enabled[colour])
    if served:
        return Choice(served[0], serves=True)
    if restart == "wait":
        colour = (up or busy or sorted(free, key=lambda one: not enabled[one]))[0]
        return Choice(colour, stop=up, wait=[*up, *busy])
    if len(up) == 2:
        # An interrupted run left both: the enabled one has served, the other was on trial.
        trial = sorted(up, key=lambda colour: enabled[colour])[0]
        return Choice(trial, stop=[trial], wait=[trial])
    if free:
        return Choice(sorted(free, key=lambda colour: not enabled[colour])[0])
    # A third generation waits for one before it to end.
    return Choice(busy[0], wait=busy, wait_for_all=False)


def target_of(service: str) -> str:
    """The target that people stop and start instead of a colour."""
    return f"{service.partition('@')[0]}.target"


def needs_of(service: str) -> str:
    """The target that comes before all colours, and goes by itself when none of them runs."""
    return f"{service.partition('@')[0]}-needs.target"


def own_units() -> list[str]:
    """Unit files that this collection wrote for components."""
    units = []
    for path in sorted(glob.glob(f"{UNITS}/airflow-*.service")):
        with open(path, encoding="utf-8") as file:
            if any(line.startswith(MARKER) for line in file):
                units.append(os.path.basename(path))
    return units


def split_unit(unit: str) -> tuple[str, str]:
    """Name without colour, and the colour, of a unit."""
    found = re.fullmatch(r"(airflow-.+@.+)-([ab])\.service", unit)
    return (found[1], found[2]) if found else (unit.rpartition(".")[0], "")


def last_of_its_kind(
    python: str,
    name: str,
    health: Mapping[str, Any],
    peers: Iterable[str],
    config: str,
    probe: Callable[[str, Mapping[str, Any], Mapping[str, str]], tuple[bool, str]] = ask_probe,
) -> str:
    """Why a component may not leave: no other host is seen to run it. Empty when one is, or when none is needed."""
    if name in ("flower", "logs"):
        return ""
    if health.get("kind") == "http":
        asked = [ask_http({**health, "address": peer, "name": peer}) for peer in peers]
        alive = any(ok for ok, _detail in asked)
    else:
        alive, _detail = probe(python, {**health, "others": True}, read_environment(f"{config}/environment"))
    return "" if alive else f"no other host runs a {name.replace('_', ' ')} that answers; let the new one start first"
