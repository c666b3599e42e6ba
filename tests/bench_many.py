# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What many hosts cost the controller: processor time and memory of site.yml by number of hosts, and how they grow.

bench_many.py simulated [--hosts 4,12,50,200]
    site.yml against hosts that are not there (tests/many/pretended.py). Real: Ansible itself, the inventory, preflight, the plan
    of the cluster, each file of each host rendered, each module packed with its arguments, a process per host and task. Not
    there: ssh, the modules' work on the hosts, and what is sent when something changes; hosts say at once that all is as it
    should be, as in a second run. Processor seconds are of all the controller's processes, which hardly depend on what else the
    machine does.

bench_many.py twelve
    site.yml, first and second run, on a lab of one control host and twelve small workers, made anew and removed at the end.
    Times of the controller and of all hosts on this machine: only for a quiet one.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent / "lab"))

from fresh import BIN, lab
from inventory import ROOT

HOSTS = (4, 12, 50, 200)
AIM = 1.3
# What is read is Ansible's own output, not the checkout's.
os.environ["ANSIBLE_STDOUT_CALLBACK"] = "default"
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Run:
    """One run of a playbook, as the controller feels it."""

    seconds: float
    processor: float
    memory: float
    """Most MiB of all its processes together, pages that they share counted once."""
    changed: int
    hosts: int


# Inventories ------------------------------------------------------------------


def groups(workers: list[str], control: list[str], server: str) -> dict[str, Any]:
    def members(names: list[str]) -> dict[str, Any]:
        return {"hosts": {name: {} for name in names}}

    components = ("scheduler", "webserver", "triggerer", "dag_processor")
    children = {f"airflow_{name}": members(control) for name in components}
    return {
        "postgresql": members([server]),
        "redis": members([server]),
        "airflow": {"children": {**children, "airflow_worker": members(workers)}},
    }


def write_inventory(folder: Path, hosts: dict[str, dict[str, Any]], grouped: dict[str, Any], **variables: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}, **grouped}, sort_keys=False))
    (folder / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
    (folder / "group_vars" / "all" / "bench.yml").write_text(yaml.safe_dump(variables))
    return folder


def simulated_inventory(folder: Path, count: int) -> Path:
    """A server, one control host (two from twelve hosts on), and workers, the way that a user writes them."""
    control = [f"control{at}" for at in range(1, 2 if count < 12 else 3)]
    workers = [f"worker{at:03}" for at in range(1, count - len(control))]
    names = ["db1", *control, *workers]
    hosts = {
        name: {"ansible_host": f"192.0.2.{at}" if at < 255 else f"198.51.100.{at - 254}"} for at, name in enumerate(names, 1)
    }
    return write_inventory(
        folder,
        hosts,
        groups(workers, control, "db1"),
        ansible_connection="pretended",
        ansible_user="root",
        airflow_dags_source=str(ROOT / "dags"),
        airflow_resource_check="warn",
    )


def lab_inventory(folder: Path, count: int) -> Path:
    """A control host that also holds the servers, and small workers."""
    names = ["many-control", *(f"many-worker{at:02}" for at in range(1, count + 1))]
    hosts = {name: {"ansible_host": f"10.89.77.{160 + at}", "lab_image": "bookworm"} for at, name in enumerate(names, 1)}
    made = write_inventory(
        folder,
        hosts,
        groups(names[1:], names[:1], names[0]),
        airflow_dags_source=str(ROOT / "dags"),
        airflow_worker_concurrency=1,
        airflow_resource_check="warn",
    )
    shutil.copy(ROOT / "inventories" / "lab" / "group_vars" / "all" / "lab.yml", made / "group_vars" / "all" / "lab.yml")
    return made


# Measuring --------------------------------------------------------------------


class Memory(threading.Thread):
    """Watches how much memory a process and its children hold together, counting once what they share."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(1.0):
            self.peak = max(self.peak, sum(map(shares, family(self.pid))))

    def end(self) -> float:
        self._ended.set()
        self.join()
        return self.peak / 1024


def family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        try:
            children = "".join(path.read_text() for path in Path(f"/proc/{one}/task").glob("*/children"))
        except OSError:
            continue
        found += map(int, children.split())
    return found


def shares(pid: int) -> int:
    """KiB."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+)", text, re.M)
    return int(found[1]) if found else 0


def processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def playbook(inventory: Path, name: str, **environment: str) -> Run:
    command = [str(BIN / "ansible-playbook"), "-i", str(inventory), f"playbooks/{name}.yml"]
    began, used = time.monotonic(), processor()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT, text=True
        )
        memory = Memory(process.pid)
        memory.start()
        status = process.wait()
        seconds, peak = time.monotonic() - began, memory.end()
        output.seek(0)
        text = output.read()
    recap = RECAP.findall(text)
    if status or not recap:
        raise SystemExit(f"{text[-6000:]}\nbench: rc {status} from {' '.join(command)}")
    return Run(seconds, processor() - used, peak, sum(int(row[2]) for row in recap), len(recap))


def exponent(first: tuple[int, float], second: tuple[int, float]) -> float:
    return math.log(second[1] / first[1]) / math.log(second[0] / first[0])


def fitted(points: list[tuple[int, float]]) -> float:
    """Slope of the straight line through the points' logarithms."""
    xs, ys = ([math.log(point[at]) for point in points] for at in (0, 1))
    middle, height = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - middle) * (y - height) for x, y in zip(xs, ys)) / sum((x - middle) ** 2 for x in xs)


# The two measurements ---------------------------------------------------------


def simulated(counts: list[int]) -> list[str]:
    lines, used, held = [], [], []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            inventory = simulated_inventory(Path(folder), count)
            playbook(inventory, "secrets", ANSIBLE_CONNECTION_PLUGINS=str(ROOT / "tests" / "many"))
            run = playbook(inventory, "site", ANSIBLE_CONNECTION_PLUGINS=str(ROOT / "tests" / "many"))
        if run.hosts != count or run.changed:
            raise SystemExit(f"bench: {run.hosts} of {count} hosts in the recap, {run.changed} changed")
        used.append((count, run.processor))
        held.append((count, run.memory))
        lines.append(
            f"{count:4} hosts: {run.processor:7.1f} processor seconds, {run.processor / count:5.2f} per host; "
            f"{run.seconds:6.1f} s by the clock; {run.memory:5.0f} MiB at most, {run.memory / count:5.1f} per host"
        )
        print(lines[-1], flush=True)
    if len(counts) > 1:
        for what, points in (("processor time", used), ("memory", held)):
            steps = ", ".join(f"{one[0]} to {two[0]} {exponent(one, two):.2f}" for one, two in zip(points, points[1:]))
            lines.append(f"{what} grows with the exponent {fitted(points):.2f} of the number of hosts (aim {AIM}); from {steps}")
    return lines


def twelve() -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        inventory = lab_inventory(Path(name), 12)
        lab("up", str(inventory))
        try:
            playbook(inventory, "secrets")
            runs = {"first": playbook(inventory, "site"), "second": playbook(inventory, "site")}
        finally:
            lab("down", str(inventory))
    return [
        f"12 small workers and a control host, {order} run: {run.seconds:.1f} s, {run.processor:.1f} processor seconds and "
        f"{run.memory:.0f} MiB of the controller, changed {run.changed}"
        for order, run in runs.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", default=["simulated"], help="simulated, twelve (default: simulated)")
    parser.add_argument("--hosts", default=",".join(map(str, HOSTS)), help="numbers of hosts to simulate (default: %(default)s)")
    options = parser.parse_args()
    measures = {"simulated": lambda: simulated([int(count) for count in options.hosts.split(",")]), "twelve": twelve}
    results = [line for name in options.which for line in measures[name]()]
    load = os.getloadavg()[0]
    print(f"\n===== bench-many, {os.cpu_count()} processors, load {load:.1f}")
    print("\n".join(results))


if __name__ == "__main__":
    main()
