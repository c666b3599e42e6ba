# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long the collection takes, on fresh lab hosts: from bare to a finished DAG run, and a second run.

bench.py [single] [lab] [security] [--floor SCRIPT]
single: one Debian 12 host that runs everything, after the floor (a shell script that does the same without any care,
given a lock) on a host like it. lab: the four hosts of inventories/lab, which are made anew.
security (only when named): what TLS and the firewall cost a single host, by one installed with and one without.
Only ratios from one run count: these machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "lab"))

from fresh import BIN, LAB, Fresh, lab
from inventory import ROOT

PODMAN = str(LAB / "podman")
LOCK = ROOT / "roles/airflow/files/locks"
# What is read is Ansible's own output, not the checkout's.
os.environ["ANSIBLE_STDOUT_CALLBACK"] = "default"
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")
SLOWEST = 8
FLOOR_NAME, OURS_NAME = "bench-floor", "bench-single"
# What the floor's own pip and uv need behind a proxy that inspects TLS.
TRUST = ["PIP_CERT=/etc/ssl/certs/ca-certificates.crt", "UV_SYSTEM_CERTS=1"]
CORES = os.cpu_count()


class Failed(SystemExit):
    """A command of the measurement did not succeed; bench.py ends with its line unless it can try again."""


@dataclass
class Run:
    seconds: float
    steps: list[tuple[float, str]] = field(default_factory=list)
    recap: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        return sum(changed for _, changed in self.recap.values())

    @property
    def tasks(self) -> str:
        return ", ".join(f"{host} {ok}" for host, (ok, _) in sorted(self.recap.items()))


def stream(argv: list[str]) -> Run:
    """Run a command, print what it says with a clock, and time each play and task of it."""
    print(f"$ {' '.join(argv)}", flush=True)
    start = time.monotonic()
    run, current, since = Run(0), "start", start
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            now = time.monotonic()
            print(f"{now - start:7.1f} {line}", end="", flush=True)
            if line.startswith(("PLAY ", "TASK ")):
                run.steps.append((now - since, current))
                current, since = line.strip(" *\n"), now
            found = RECAP.match(line)
            if found:
                run.recap[found[1]] = (int(found[2]), int(found[3]))
    run.seconds = time.monotonic() - start
    run.steps.append((start + run.seconds - since, current))
    if process.returncode:
        raise Failed(f"bench: rc {process.returncode} from {' '.join(argv)}")
    return run


def playbook(inventory: Path, name: str) -> Run:
    return stream([str(BIN / "ansible-playbook"), "-i", str(inventory), f"playbooks/{name}.yml"])


def deploy(inventory: Path) -> tuple[Run, Run, Run]:
    secrets = playbook(inventory, "secrets")
    first = playbook(inventory, "site")
    first.seconds += secrets.seconds
    smoke = stream([sys.executable, "tests/lab/smoke.py", "--inventory", str(inventory)])
    return first, smoke, playbook(inventory, "site")


def report(title: str, first: Run, smoke: Run, second: Run, floor: float | None, factor: float, most: float) -> list[str]:
    total = first.seconds + smoke.seconds
    beside = f", {total / floor:.2f} times the floor of {floor:.1f} s (aim {factor})" if floor else ""
    timeline = [f"  {title}, first run {seconds:6.1f} s  {step}" for seconds, step in first.steps if seconds >= 0.1]
    lines = [
        f"{title}: bare to DAG success {total:.1f} s (site {first.seconds:.1f}, DAG {smoke.seconds:.1f}){beside}",
        f"{title}: second run {second.seconds:.1f} s (aim {most:.0f}), changed {second.changed}, tasks: {second.tasks}",
    ]
    slowest = sorted(second.steps, reverse=True)[:SLOWEST]
    return lines + timeline + [f"  {title}, second run {seconds:5.1f} s  {step}" for seconds, step in slowest]


def plain_lock(folder: Path) -> Path:
    """The newest shipped lock for Debian 12's Python as the floor wants it: without hashes."""
    newest = sorted(LOCK.glob("airflow-*-py3.11.txt"))[-1]
    names = re.findall(r"^([A-Za-z0-9][^\s;\\]*==[^\s;\\]+(?:\s*;[^\\\n]*)?)", newest.read_text(), re.M)
    plain = folder / "lock.txt"
    plain.write_text("\n".join(names) + "\n")
    return plain


def run_floor(host: Fresh, script: Path, folder: Path) -> float:
    for path in (script.resolve(), plain_lock(folder)):
        subprocess.run([PODMAN, "cp", str(path), f"{host.container}:/srv/{path.name}"], check=True)
    index = os.environ.get("PIP_INDEX_URL")
    settings = TRUST + ([f"PIP_INDEX_URL={index}", f"UV_DEFAULT_INDEX={index}"] if index else [])
    run = stream([PODMAN, "exec", host.container, "env", *settings, "bash", f"/srv/{script.name}", "/srv/lock.txt"])
    return run.seconds


# Shares of shared pages counted once, by systemd unit.
MEMORY = r"""
import glob, json, re
units = {}
for path in glob.glob("/proc/[0-9]*/cgroup"):
    try:
        unit = re.search(r"/([^/]+\.service)", open(path).read())
        pss = re.search(r"^Pss: +(\d+)", open(path.replace("cgroup", "smaps_rollup")).read(), re.M)
    except OSError:
        continue
    if unit and pss:
        units[unit[1]] = units.get(unit[1], 0) + int(pss[1])
print(json.dumps(units))
"""


def memory(host: Fresh) -> list[str]:
    """What the host's services hold while nothing runs."""
    held = {unit: size / 1024 for unit, size in json.loads(host.run("python3", "-c", MEMORY)).items()}
    airflow = {unit: size for unit, size in held.items() if unit.startswith("airflow-")}
    parts = ", ".join(f"{unit.removesuffix('.service')} {size:.0f}" for unit, size in sorted(airflow.items()))
    return [
        f"single host: memory idle {sum(airflow.values()):.0f} MiB for Airflow ({parts})",
        f"single host: memory idle {sum(held.values()):.0f} MiB for all services",
    ]


def measure_floor(script: Path) -> float | None:
    """The floor's script gives up when one request takes 5 s, so it gets a second fresh host."""
    for _attempt in range(2):
        with tempfile.TemporaryDirectory() as name:
            try:
                with Fresh(Path(name) / "inventory", FLOOR_NAME, "10.89.77.62") as host:
                    return run_floor(host, script, Path(name))
            except Failed as error:
                print(error, flush=True)
    return None


def single(floor: float | None) -> list[str]:
    with tempfile.TemporaryDirectory() as name, Fresh(Path(name) / "inventory", OURS_NAME, "10.89.77.61") as host:
        runs = deploy(host.path)
        time.sleep(10)
        return [*report("single host", *runs, floor, 1.5, 8), *memory(host)]


def four(floor: float | None) -> list[str]:
    inventory = ROOT / "inventories/lab"
    lab("down", str(inventory))
    lab("up", str(inventory))
    return report("lab of four", *deploy(inventory), floor, 2, 20)


@dataclass
class Cost:
    first: float
    second: float
    tasks_per_second: float


def cost(name: str, address: str, **settings: Any) -> Cost:
    """One single host: its first and second run, and how fast it works off 200 tasks that do nothing."""
    with tempfile.TemporaryDirectory() as folder:
        dags = Path(folder) / "dags"
        shutil.copytree(ROOT / "dags", dags)
        shutil.copy(ROOT / "tests/lab/dags/throughput.py", dags)
        with Fresh(Path(folder) / "inventory", name, address, airflow_dags_source=str(dags), **settings) as host:
            first, _smoke, second = deploy(host.path)
            airflow = host.api()
            airflow.wait_for_dag("throughput", 60)
            rates = []
            for _time in range(3):
                run = airflow.trigger("throughput")
                if airflow.wait_for_run("throughput", run, 300) != "success":
                    raise Failed(f"bench: {run} of throughput did not succeed on {name}")
                tasks = airflow.get(f"dags/throughput/dagRuns/{run}/taskInstances?limit=1000")["task_instances"]
                begin = min(datetime.fromisoformat(task["queued_when"]) for task in tasks)
                end = max(datetime.fromisoformat(task["end_date"]) for task in tasks)
                rates.append(len(tasks) / (end - begin).total_seconds())
            return Cost(first.seconds, second.seconds, sorted(rates)[1])


def security(_floor: float | None) -> list[str]:
    plain = cost("bench-plain", "10.89.77.63", airflow_tls=False, airflow_firewall=False)
    secure = cost("bench-secure", "10.89.77.64")
    lines = [
        f"{name}: first run {found.first:.1f} s, second {found.second:.1f} s, {found.tasks_per_second:.1f} tasks a second"
        for name, found in (("without TLS and firewall", plain), ("with TLS and firewall", secure))
    ]
    more = [f"{one / other - 1:+.0%}" for one, other in zip(vars(secure).values(), vars(plain).values())]
    return [*lines, f"TLS and firewall: first run {more[0]} (aim: at most +15%), second {more[1]}, tasks a second {more[2]}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", default=["single", "lab"], help="single, lab, security (default: single lab)")
    parser.add_argument("--floor", type=Path, help="the floor's script; without it no ratio is printed")
    options = parser.parse_args()
    floor, why = None, "no floor script given"
    if options.floor:
        there = options.floor.exists()
        floor = measure_floor(options.floor) if there else None
        why = f"the floor failed, {options.floor}" if there else f"there is no {options.floor}"
    known = {"single": single, "lab": four, "security": security}
    results = [line for name, measure in known.items() if name in options.which for line in measure(floor)]
    print("\n===== bench" + ("" if floor else f" (no ratios: {why})") + f", {CORES} processors")
    print("\n".join(results))


if __name__ == "__main__":
    main()
