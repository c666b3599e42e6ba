# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host is and what is on it, as raw facts, which are judged on the controller. Runs on hosts of any kind."""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

# What a running program of these is called, and what of its command line tells more.
SERVERS = {
    "postgresql": re.compile(r"^(?:\S*/)?(?:postgres|postmaster)\b"),
    "redis": re.compile(r"^(?:\S*/)?(?:redis-server|valkey-server|keydb-server)\b"),
    "airflow": re.compile(
        r"airflow[\w./-]* +"
        r"(?:scheduler|api[-_]server|webserver|triggerer|dag[-_]processor|standalone|celery +(?:worker|flower))\b"
        r"|^airflow (?:api_server|scheduler|worker) --|^gunicorn: \S+ \[airflow-"
    ),
}
# What our own roles write into what they make.
OUR_MARK = "windfarm.airflow"
FACT_FOLDER = "/etc/ansible/facts.d"
UNIT_FOLDERS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")


# What Ansible's own facts have by the same names.
KNOWN = ("distribution", "distribution_major_version", "architecture", "service_mgr", "python_version")


def read(path: str, limit: int = 1 << 20) -> str:
    """A file's text; empty where there is none or it is not for us."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def system() -> dict[str, Any]:
    release = dict(re.findall(r'^(\w+)="?(.*?)"?$', read("/etc/os-release"), re.M))
    names = {"debian": "Debian", "ubuntu": "Ubuntu", "fedora": "Fedora", "rhel": "RedHat", "alpine": "Alpine"}
    version = release.get("VERSION_ID", "")
    return {
        "distribution": names.get(release.get("ID", ""), release.get("NAME", platform.system())),
        "distribution_major_version": version.partition(".")[0],
        "architecture": platform.machine(),
        "service_mgr": "systemd" if os.path.isdir("/run/systemd/system") else read("/proc/1/comm").strip() or "nothing",
        "python_version": platform.python_version(),
        # Only the unified hierarchy has it at its root, and of the hybrid one systemd uses the first version.
        "cgroup": 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1,
        "hostname": socket.gethostname(),
        # Clones may share the first, hosts in containers of one machine the second.
        "machine_id": read("/etc/machine-id").strip(),
        "boot_id": read("/proc/sys/kernel/random/boot_id").strip(),
        "root": os.geteuid() == 0,
    }


def interpreter(program: str) -> str:
    """The version of the Python that builds the release; empty where there is none."""
    if not program:
        return ""
    question = "import platform; print(platform.python_version())"
    try:
        words = [program, "-I", "-c", question]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)  # pylint: disable=ansible-bad-function
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def memory() -> dict[str, int]:
    values = {name: int(kilobytes) for name, kilobytes in re.findall(r"^(\w+): +(\d+) kB", read("/proc/meminfo"), re.M)}
    return {
        "memory_mb": values.get("MemTotal", 0) // 1024,
        "swap_mb": values.get("SwapTotal", 0) // 1024,
        "processors": len(os.sched_getaffinity(0)),
        "open_files": open_files(read("/proc/1/limits")),
    }


def open_files(limits: str) -> int:
    """What systemd may give a service at most; 0 where it does not say."""
    found = re.search(r"^Max open files +\S+ +(\d+)", limits, re.M)
    return int(found[1]) if found else 0


def disk(path: str) -> dict[str, Any]:
    """Of the file system that the path is on, or will be."""
    found = path
    while not os.path.exists(found):
        found = os.path.dirname(found) or "/"
    try:
        about, device = os.statvfs(found), os.stat(found).st_dev
    except OSError:
        return {}
    return {
        "device": device,
        "free_mb": about.f_bavail * about.f_frsize >> 20,
        "total_mb": about.f_blocks * about.f_frsize >> 20,
        # File systems that make them as needed say 0.
        "inodes": about.f_files,
        "free_inodes": about.f_favail,
        "read_only": bool(about.f_flag & os.ST_RDONLY),
    }


def resolved(name: str) -> list[str]:
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError):
        return []


# Processes and ports


def _address(text: str) -> tuple[str, int]:
    """As /proc/net/tcp has it: groups of four bytes, each in the machine's order."""
    digits, _colon, port = text.partition(":")
    words = [struct.pack("=I", int(digits[start : start + 8], 16)) for start in range(0, len(digits), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words)), int(port, 16)


def listening() -> list[dict[str, Any]]:
    """TCP ports that somebody listens on: address, port, and the socket's number."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table, 1 << 24).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == "0A":
                address, port = _address(fields[1])
                found.append({"address": address, "port": port, "socket": fields[9]})
    return found


def owners(sockets: set[str]) -> dict[str, int]:
    """Socket -> a process that has it open. Only root sees those of others."""
    found: dict[str, int] = {}
    for path in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(path)
        except OSError:
            continue
        number = target[8:-1] if target.startswith("socket:[") else ""
        if number in sockets:
            # The parent has it too, and began earlier.
            pid = int(path.split("/")[2])
            found[number] = min(pid, found.get(number, pid))
    return found


def unit_of(pid: int) -> str:
    """The systemd unit that a process belongs to."""
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" or controllers == "name=systemd":
            units = [part for part in path.split("/") if part.endswith((".service", ".scope", ".socket"))]
            if units:
                return units[-1]
    return ""


def command_of(pid: int) -> str:
    words = [word for word in read(f"/proc/{pid}/cmdline", 4096).split("\0") if word]
    return " ".join(words) or read(f"/proc/{pid}/comm").strip()


def owner_of(pid: int) -> str:
    try:
        number = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return ""
    names = {int(user): name for name, user in re.findall(r"^([^:\n]+):[^:\n]*:(\d+):", read("/etc/passwd"), re.M)}
    return names.get(number, str(number))


def about(pid: int) -> dict[str, Any]:
    command = command_of(pid)
    # Its program is enough: arguments may hold what is not for us.
    return {
        "pid": pid,
        "program": os.path.basename(command.split(" ")[0].rstrip(":")),
        "unit": unit_of(pid),
        "user": owner_of(pid),
    }


def ports(wanted: Iterable[int]) -> list[dict[str, Any]]:
    """Who listens on these ports."""
    asked = set(wanted)
    found = [one for one in listening() if one["port"] in asked]
    processes = owners({one["socket"] for one in found}) if found else {}
    return [
        {
            "address": one["address"],
            "port": one["port"],
            **(about(processes[one["socket"]]) if one["socket"] in processes else {}),
        }
        for one in found
    ]


def processes() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def _parent(pid: int) -> int:
    found = re.search(r"^PPid:\s+(\d+)", read(f"/proc/{pid}/status", 4096), re.M)
    return int(found[1]) if found else 0


def servers() -> list[dict[str, Any]]:
    """Running PostgreSQL, Redis and Airflow, by whatever way they came: the first process of each tree."""
    found: dict[int, str] = {}
    for pid in processes():
        command = command_of(pid)
        for kind, pattern in SERVERS.items():
            if pattern.search(command):
                found[pid] = kind
    # A server's children come and go: one that has ended since has no parent, or no user any more.
    first = [(pid, kind) for pid, kind in sorted(found.items()) if found.get(parent := _parent(pid)) != kind and parent]
    return [one for one in ({"kind": kind, **about(pid)} for pid, kind in first) if one["user"]]


# What is on the disk


def postgresql_clusters() -> list[dict[str, Any]]:
    """Debian's clusters: with databases of users, and whether our role has configured them."""
    found = []
    for path in sorted(glob.glob("/etc/postgresql/*/*/postgresql.conf")):
        version, name = path.split("/")[3:5]
        settings = read(path)
        data = re.search(r"^\s*data_directory\s*=\s*'([^']+)'", settings, re.M)
        folder = data[1] if data else f"/var/lib/postgresql/{version}/{name}"
        ours = [read(file, 4096) for file in glob.glob(f"{os.path.dirname(path)}/**/*.conf", recursive=True)]
        ours += [read(f"{os.path.dirname(path)}/pg_hba.conf", 4096)]
        # Databases that somebody has made are numbered from 16384 on.
        databases = [one for one in glob.glob(f"{folder}/base/[0-9]*") if int(os.path.basename(one)) >= 16384]
        found.append(
            {
                "version": version,
                "name": name,
                "databases": len(databases),
                "ours": any(OUR_MARK in text for text in ours),
                "data": folder,
            }
        )
    return found


# In a dump: a database that is not empty begins with its number and its size.
_RDB_DATABASE = re.compile(rb"\xfe[\x00-\x3f]\xfb")


def _holds_keys(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
    except OSError:
        return False
    return _RDB_DATABASE.search(head) is not None if path.endswith(".rdb") else bool(head)


def redis_answer(port: int) -> str:
    """What a Redis on this host says of its keys; an error where it wants a password."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"*2\r\n$4\r\nINFO\r\n$8\r\nkeyspace\r\n")
            return connection.recv(4096).decode("utf-8", "replace")
    except OSError:
        return ""


def redis_data() -> dict[str, Any]:
    """Debian's Redis: whether it keeps something, and whether our role has configured it."""
    configured = [read(path, 1 << 16) for path in glob.glob("/etc/redis/*.conf")]
    kept = glob.glob("/var/lib/redis/*.rdb") + glob.glob("/var/lib/redis/appendonlydir/*.[ra][do][bf]")
    installed, ours = os.path.exists("/usr/bin/redis-server"), any(OUR_MARK in text for text in configured)
    answer = redis_answer(6379) if installed and not ours else ""
    return {
        "installed": installed,
        "ours": ours,
        "kept": any(map(_holds_keys, kept)) or ":keys=" in answer,
        "closed": answer.startswith("-"),
    }


def airflow_units() -> list[str]:
    """Units called like Airflow's that our role has not written."""
    found: dict[str, None] = {}
    for folder in UNIT_FOLDERS:
        for path in sorted(glob.glob(f"{folder}/airflow*.service")):
            if not os.path.islink(path) and OUR_MARK not in read(path, 1 << 16):
                found[os.path.basename(path)] = None
    return list(found)


def local_facts() -> dict[str, Any]:
    """Ansible's local facts that are ours, files and programs: what earlier runs have left, and how the workers are."""
    found = {}
    for path in sorted(glob.glob(f"{FACT_FOLDER}/windfarm_airflow*.fact")):
        try:
            text = read(path)
            if os.access(path, os.X_OK) and os.stat(path).st_mode & 0o111:
                # pylint: disable-next=ansible-bad-function
                done = subprocess.run([path], capture_output=True, text=True, timeout=30, check=False)
                text = done.stdout if done.returncode == 0 else ""
            found[os.path.basename(path)[: -len(".fact")]] = json.loads(text)
        except (OSError, ValueError, subprocess.SubprocessError):
            # Who needs one says so when it is not there.
            continue
    return found


def dags_revision(folder: str) -> str:
    """The tree of DAG files that the folder links to; empty where it was not shipped by us."""
    try:
        return os.path.basename(os.readlink(folder)) if folder else ""
    except OSError:
        return ""
