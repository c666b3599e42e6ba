# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The trial of a worker's host: a worker like its own, but for its queue, and one task of Airflow's in that.

`start` and `stop` run on the worker's host, `send` on one with a scheduler.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import subprocess

from ansible_collections.windfarm.airflow.plugins.module_utils import canary_script
from ansible_collections.windfarm.airflow.plugins.module_utils.database import USER, Database
from ansible_collections.windfarm.airflow.plugins.module_utils.host_files import write
from ansible_collections.windfarm.airflow.plugins.module_utils.layout import SUPPORT, environment_file
from ansible_collections.windfarm.airflow.plugins.module_utils.queues import key_prefix
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import run_script
from ansible_collections.windfarm.airflow.plugins.module_utils.services import systemctl

FOLDER = f"{SUPPORT}/canary"
UNIT = "airflow-canary.service"
# Both are gone after a restart of the host, like the worker.
UNIT_FILE = f"/run/systemd/system/{UNIT}"
ENVIRONMENT = "/run/airflow/canary.environment"
LOGS = "/var/log/airflow/worker"
# What makes a unit the host's worker: it is kept running, stopped with the others, and takes days to stop.
_NOT_ITS = ("Description", "ConditionPathExists", "PartOf", "ExecStartPre", "Restart", "RestartSec", "TimeoutStopSec")
STOP_SECONDS = 15
# For what comes before and after the wait for the task, on another host.
SPARE_SECONDS = 120


class CanaryError(Exception):
    """What cannot be done, in one line that ends with the cure."""


def name_of(host: str) -> str:
    """DAG, pool, queue and bundle of a host's canary; Airflow takes letters, digits and `_.-` in names of DAGs."""
    return f"windfarm_canary.{re.sub(r'[^A-Za-z0-9_.-]', '_', host)}"


def lock_of(host: str) -> str:
    return f"/run/windfarm-airflow.{name_of(host)}.lock"


def unit(worker: str, config: str, host: str, seconds: int) -> str:
    """The trial's unit from the worker's: the same user, credentials, sandbox and limits of memory, with one slot.

    `seconds`: after how long systemd ends it, should nobody be there any more who does.
    """
    lines = []
    for line in worker.partition("[Install]")[0].splitlines():
        key, _equals, value = line.partition("=")
        if line.startswith("#") or key in _NOT_ITS:
            continue
        if key == "EnvironmentFile":
            # The later one counts.
            lines += [f"EnvironmentFile={config}/environment", f"EnvironmentFile={ENVIRONMENT}"]
        elif key == "ExecStart":
            command = value.split(" celery worker ", maxsplit=1)[0]
            lines += [
                f"ExecStart={command} celery worker --skip-serve-logs --without-gossip --without-mingle "
                f"-q {name_of(host)} -c 1 -H windfarm-canary@{host}",
                f"RuntimeMaxSec={seconds}",
                f"TimeoutStopSec={STOP_SECONDS}",
            ]
        else:
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


def environment(host: str) -> dict[str, str]:
    """Where the task finds its DAG; no other worker or dag processor knows of that bundle."""
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundle = {"name": name_of(host), "classpath": local, "kwargs": {"path": FOLDER}}
    return {"AIRFLOW_CANARY": name_of(host), "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle])}


def start(host: str, config: str, seconds: int) -> None:
    try:
        with open(f"{config}/unit", encoding="utf-8") as file:
            worker = file.read()
    except FileNotFoundError:
        raise CanaryError(f"{config}/unit is missing; run site.yml") from None
    os.makedirs(os.path.dirname(ENVIRONMENT), mode=0o700, exist_ok=True)
    write(ENVIRONMENT, environment_file(environment(host)), {"mode": "0600"})
    write(UNIT_FILE, unit(worker, config, host, seconds + SPARE_SECONDS), {"mode": "0644"})
    systemctl("daemon-reload")
    # Also one that an interrupted run has left.
    systemctl("restart", UNIT)


def send(host: str, seconds: int) -> str:
    """What became of the task: empty for success. ScriptError where it could not be sent."""
    database = Database(None)
    if not database.prepared():
        raise CanaryError("the first host of airflow_scheduler runs nothing yet; run site.yml for it")
    variables = {**database.environment, "AIRFLOW_CANARY": name_of(host), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    question = {"folder": FOLDER, "seconds": seconds, "prefix": key_prefix()}
    return str(run_script(database.release, USER, variables, canary_script, question)["problem"])


def look() -> dict[str, str]:
    shown = systemctl("show", "--property=ActiveState,Result,InvocationID", UNIT)
    return dict(line.partition("=")[::2] for line in shown.splitlines())


def journal(invocation: str) -> str:
    """What the trial's worker has said, and what Airflow says for a task that never came to a log of its own."""
    words = ["journalctl", "--output=cat", "--no-pager", f"_SYSTEMD_INVOCATION_ID={invocation}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout  # pylint: disable=ansible-bad-function


def clear() -> None:
    """The trial's worker is gone, also that of an interrupted run."""
    if os.path.exists(UNIT_FILE):
        systemctl("stop", UNIT)
        # One that had to be killed, for example.
        if look()["ActiveState"] == "failed":
            systemctl("reset-failed", UNIT)
        os.unlink(UNIT_FILE)
        systemctl("daemon-reload")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(ENVIRONMENT)


def stop(host: str, failed: bool) -> str:
    """Ends the trial; where it `failed`, what this host knows of it. Its log then stays."""
    known, said = [], ""
    before = look() if os.path.exists(UNIT_FILE) else {}
    clear()
    if failed and before:
        said = journal(before["InvocationID"])
        if before["ActiveState"] not in ("active", "activating"):
            known.append(f"its trial worker ended by itself ({before['Result']})")
    folder = f"{LOGS}/dag_id={name_of(host)}"
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
        return ""
    logs = [path for path in glob.glob(f"{glob.escape(folder)}/**/*.log", recursive=True) if os.path.getsize(path)]
    if logs:
        path = max(logs, key=os.path.getmtime)
        with open(path, encoding="utf-8", errors="replace") as file:
            known += [last_error(file.read()), f"see {path}"]
    else:
        known += [last_exception(said), f"see journalctl -u {UNIT}"]
    return "; ".join(filter(None, known))


def last_exception(text: str) -> str:
    """The line with which Python ended the last traceback."""
    found = re.findall(r"^[A-Za-z_][\w.]*(?:Error|Exception|Timeout|Interrupt|Exit)\b.*", text, re.MULTILINE)
    return found[-1][:300] if found else ""


def last_error(log: str) -> str:
    """The last error of a task's log, as Airflow writes it: a JSON object per line."""
    for line in reversed(log.splitlines()):
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("level") in ("error", "critical"):
                details = [f"{one.get('exc_type')}: {one.get('exc_value')}" for one in entry.get("error_detail") or []]
                return " ".join(" — ".join([str(entry.get("event", "")), *details[:1]]).split())[:300]
    return ""
