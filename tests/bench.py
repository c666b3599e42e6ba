# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long the collection takes, on fresh lab hosts: from bare to a finished DAG run, and a second run.

bench.py [single] [lab] [--floor SCRIPT]
single: one Debian 12 host that runs everything, after the floor (a shell script that does the same without any care,
given a lock) on a host like it. lab: the four hosts of inventories/lab, which are made anew.
Only ratios from one run count: these machines are noisy.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PODMAN = str(ROOT / "molecule/lab/podman")
LOCK = ROOT / "roles/airflow/files/locks"
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


def lab(*argv: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "molecule/lab/lab.py"), *argv], check=True)


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
    lines = [
        f"{title}: bare to DAG success {total:.1f} s (site {first.seconds:.1f}, DAG {smoke.seconds:.1f}){beside}",
        f"{title}: second run {second.seconds:.1f} s (aim {most:.0f}), changed {second.changed}, tasks: {second.tasks}",
    ]
    for name, run in (("first run", first), ("second run", second)):
        slowest = sorted(run.steps, reverse=True)[:SLOWEST]
        lines += [f"  {name:10} {seconds:6.1f} s  {step}" for seconds, step in slowest]
    return lines


def plain_lock(folder: Path) -> Path:
    """The newest shipped lock for Debian 12's Python as the floor wants it: without hashes."""
    newest = sorted(LOCK.glob("airflow-*-py3.11.txt"))[-1]
    names = re.findall(r"^([A-Za-z0-9][^\s;\\]*==[^\s;\\]+(?:\s*;[^\\\n]*)?)", newest.read_text(), re.M)
    plain = folder / "lock.txt"
    plain.write_text("\n".join(names) + "\n")
    return plain


def run_floor(inventory: Path, script: Path, folder: Path) -> float:
    lab("up", str(inventory))
    container = f"windfarm-{FLOOR_NAME}"
    for path in (script, plain_lock(folder)):
        subprocess.run([PODMAN, "cp", str(path), f"{container}:/root/{path.name}"], check=True)
    index = os.environ.get("PIP_INDEX_URL")
    settings = TRUST + ([f"PIP_INDEX_URL={index}", f"UV_DEFAULT_INDEX={index}"] if index else [])
    run = stream([PODMAN, "exec", container, "env", *settings, "bash", "/root/floor.sh", "/root/lock.txt"])
    return run.seconds


def memory(container: str) -> str:
    """The host's memory while nothing runs: shares of shared pages counted once."""
    count = "grep -h ^Pss: /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '{s+=$2} END {printf \"%.0f\", s/1024}'"
    done = subprocess.run([PODMAN, "exec", container, "sh", "-c", count], check=True, capture_output=True, text=True)
    return f"{done.stdout} MiB"


def measure_floor(script: Path) -> float | None:
    with tempfile.TemporaryDirectory() as name:
        inventory, patient = Path(name) / "floor.yml", Path(name) / "floor.sh"
        inventory.write_text(f"all: {{hosts: {{{FLOOR_NAME}: {{ansible_host: 10.89.77.62, lab_image: bookworm}}}}}}\n")
        # It gives up when one request takes 5 s, which happens on a busy machine; it measures the same when it waits.
        patient.write_text(script.read_text().replace("timeout=5", "timeout=60"))
        try:
            return run_floor(inventory, patient, Path(name))
        except Failed as error:
            print(error, flush=True)
            return None
        finally:
            lab("down", str(inventory))


def single(floor: float | None) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = (ROOT / "inventories/lab-single/hosts.yml").read_text().replace("lab_image: trixie", "lab_image: bookworm")
        (folder / "group_vars/all").mkdir(parents=True)
        (folder / "group_vars/all/lab.yml").symlink_to(ROOT / "inventories/lab/group_vars/all/lab.yml")
        settings = (ROOT / "inventories/lab-single/group_vars/all/airflow.yml").read_text()
        (folder / "group_vars/all/airflow.yml").write_text(settings.replace("{{ inventory_dir }}/../..", str(ROOT)))
        inventory = folder / "hosts.yml"
        inventory.write_text(text.replace("airflow1", OURS_NAME).replace("10.89.77.21", "10.89.77.61"))
        try:
            lab("up", str(inventory))
            runs = deploy(inventory)
            time.sleep(10)
            idle = memory(f"windfarm-{OURS_NAME}")
        finally:
            lab("down", str(inventory))
    return [*report("single host", *runs, floor, 1.5, 8), f"single host: memory of all processes, idle: {idle}"]


def four(floor: float | None) -> list[str]:
    inventory = ROOT / "inventories/lab"
    lab("down", str(inventory))
    lab("up", str(inventory))
    return report("lab of four", *deploy(inventory), floor, 2, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", default=["single", "lab"], help="single, lab (default: both)")
    parser.add_argument("--floor", type=Path, help="the floor's script; without it no ratio is printed")
    options = parser.parse_args()
    floor = measure_floor(options.floor) if options.floor and options.floor.exists() else None
    results = [line for name, measure in (("single", single), ("lab", four)) if name in options.which for line in measure(floor)]
    print("\n===== bench" + ("" if floor else " (no floor script given: no ratios)") + f", {CORES} processors")
    print("\n".join(results))


if __name__ == "__main__":
    main()
