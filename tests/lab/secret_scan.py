# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look for a cluster's secrets where they must not be: secret_scan.py [-i INVENTORY] [--text FILE ...] [--since TIME]

Every secret of the inventory, in every form that it could be written in, on every host: files, journal, units, processes,
databases, Flower's pages; and on this machine: FILEs such as captured output, and temporary files younger than TIME.
It prints counts, and each hit by place and name, never a value. The exit code is 1 when one is outside the allowed places.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from ansible import constants as C

if TYPE_CHECKING:
    from inventory import Inventory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Python takes a program of this many characters from standard input; what follows there is the program's own input.
LOADER = "import sys; exec(compile(sys.stdin.read(int(sys.stdin.readline())), 'sent', 'exec'))"

FERNET, API, JWT = "airflow_fernet_key", "airflow_api_secret_key", "airflow_jwt_private_key"
DATABASE, RESULTS = "airflow_database_password", "airflow_results_database_password"
BROKER, FLOWER = "airflow_broker_password", "airflow_flower_password"
SECRETS = (
    FERNET, API, JWT, DATABASE, RESULTS, BROKER, FLOWER,
    "airflow_broker_admin_password", "airflow_admin_password", "airflow_ca_key",
)  # fmt: skip

# The table, in other words than the role's catalog: what a component's environment file may hold.
ENVIRONMENT = {
    "scheduler": {DATABASE, FERNET, API, BROKER, RESULTS},
    "webserver": {DATABASE, FERNET, API},
    "dag-processor": {DATABASE, FERNET, API},
    "triggerer": {DATABASE, FERNET, API},
    "worker": {API, BROKER, RESULTS},
    "logs": {API},
    "flower": {BROKER, FLOWER},
    # The operator's command, root's and airflow-admin's only.
    "cli": {DATABASE, FERNET, API, BROKER, RESULTS},
}
# Who signs tokens: the key is a file beside the environment file, which systemd may hand on as a credential.
SIGNERS = {"scheduler", "webserver"}

# In .good, root's copies of what each service was last healthy with.
ENVIRONMENT_FILE = re.compile(r"file /etc/airflow/(?:\.good/airflow-)?([a-z-]+)(?:@[\w.-]+)?/environment")
KEY_FILE = re.compile(
    r"file (?:/etc/airflow/(?:\.good/airflow-)?([a-z-]+)/|/run/credentials/airflow-([a-z-]+)\.service/)jwt\.pem"
)
ENVIRONMENT_OF = re.compile(r"environment of (?:root|airflow-([a-z-]+)) in airflow-([a-z-]+)(?:@[\w.-]+)?\.service")
COMMAND_OF = re.compile(r"environment of airflow-cli in \S+")

ROOTS = ["/etc", "/var", "/run", "/tmp", "/opt", "/srv", "/root", "/home", "/usr/local", "/dev/shm"]  # noqa: S108
# Journal files are compressed: the journal is read through journalctl.
SKIP = ["/run/log/journal", "/var/log/journal"]
SOURCES = ["journal", "units", "processes"]
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}")


def parts(value: str) -> list[str]:
    """What gives a secret away: of a PEM its lines, of a list of Fernet keys each."""
    if "-----BEGIN" in value:
        lines = [line.strip() for line in value.splitlines() if line.strip() and not line.startswith("-----")]
        # An elliptic curve's key ends in the public one, which is in the certificate too.
        return [line for line in lines if len(line) == 64] or lines
    if re.fullmatch(r"[\w=-]{44}(?:,[\w=-]{44})+", value):
        return value.split(",")
    return [value]


def base64_forms(data: bytes) -> list[str]:
    """What data looks like inside a longer text's base64, for each of the three ways to lie in it."""
    found = []
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        # Characters that also carry bits of a neighbour.
        start = (0, 2, 3)[offset]
        end = len(encoded) - (1 if (offset + len(data)) % 3 else 0)
        found.append(encoded[start:end])
    return found


def forms(value: str) -> dict[str, str]:
    """The texts that one value may appear as, with the name of each form; equal ones once."""
    data = value.encode()
    url = quote(value, safe="")
    written = {
        "plain": [value],
        "base64": [text for one in base64_forms(data) for text in (one, one.translate(str.maketrans("+/", "-_")))],
        "URL": [url, quote(value), quote_plus(value), re.sub("%..", lambda found: found[0].lower(), url)],
        "JSON": [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(json.dumps(value))[3:-3]],
        "YAML": [value.replace("'", "''")],
        "systemd": [re.sub(r'([\\"`$])', r"\\\1", value), value.replace("%", "%%")],
        "shell": [shlex.quote(value).strip("'"), re.sub(r"(\W)", r"\\\1", value)],
        "HTML": [html.escape(value), html.escape(value, quote=False)],
        "Python": [repr(value)[1:-1], repr(data)[2:-1]],
        "hexadecimal": [data.hex()],
    }
    found: dict[str, str] = {}
    for form, texts in written.items():
        for text in texts:
            found.setdefault(text, form)
    return found


def patterns(secrets: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Text to look for -> name of the secret and form."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in secrets.items():
        for part in parts(value):
            if len(part) < 8:
                raise SystemExit(f"secret_scan: {name} is too short to be looked for")
            for text, form in forms(part).items():
                # grep would take a line break for the end of a pattern.
                if "\n" not in text:
                    found.setdefault(text, (name, form))
    return found


def secrets_of(inventory: Inventory) -> dict[str, str]:
    values = {name: inventory.common(name, "") for name in SECRETS}
    return {name: str(value) for name, value in values.items() if value}


def holder(place: str) -> tuple[str, Collection[str]]:
    """The component whose place this is, and which secrets may be there; nobody's place: none."""
    if found := ENVIRONMENT_FILE.fullmatch(place):
        return found[1], ENVIRONMENT.get(found[1], ())
    if found := KEY_FILE.fullmatch(place):
        component = found[1] or found[2]
        return component, {JWT} if component in SIGNERS else ()
    if found := ENVIRONMENT_OF.fullmatch(place):
        # systemd runs ExecStartPre=+ as root, with the unit's environment.
        same = found[1] in (None, found[2])
        return found[2], ENVIRONMENT.get(found[2], ()) if same else ()
    if COMMAND_OF.fullmatch(place):
        return "cli", ENVIRONMENT["cli"]
    return "", ()


@dataclass(frozen=True, order=True)
class Hit:
    host: str
    place: str
    name: str
    form: str

    @property
    def allowed(self) -> bool:
        return self.name in holder(self.place)[1]

    def __str__(self) -> str:
        return f"{self.host}: {self.place}: {self.name} ({self.form})"


@dataclass
class Report:
    secrets: int = 0
    texts: int = 0
    files: int = 0
    size: int = 0
    processes: int = 0
    pages: int = 0
    seconds: float = 0
    hits: list[Hit] = field(default_factory=list)

    @property
    def forbidden(self) -> list[Hit]:
        return [hit for hit in self.hits if not hit.allowed]

    def __str__(self) -> str:
        return (
            f"secret scan: {self.secrets} secrets in {self.texts} forms; {self.files} files, {self.processes} processes, "
            f"{self.pages} pages and outputs, {self.size / 1e6:.0f} MB; {len(self.hits)} hits, {len(self.forbidden)} outside "
            f"the allowed places; {self.seconds:.1f} s"
        )


def sent(script: Path, order: Any) -> str:
    """Standard input for LOADER."""
    program = script.read_text()
    return f"{len(program)}\n{program}{json.dumps(order)}"


def run_on(inventory: Inventory, host: str, script: Path, order: Any) -> Any:
    """Run one of our programs on a host as root; program and order go through standard input."""
    return json.loads(inventory.run(host, "python3", "-c", LOADER, stdin=sent(script, order)))


def hosts_of(inventory: Inventory) -> list[str]:
    return sorted({host for members in inventory.members.values() for host in members})


def flower_pages(inventory: Inventory) -> dict[str, str]:
    """Every page of Flower that shows something of tasks or workers, as somebody who is logged in sees it."""
    pages = {}
    for host in inventory.members["flower"]:
        order = {
            "port": inventory.get(host, "airflow_flower_port", 5555),
            "user": inventory.common("airflow_flower_user", "airflow"),
            "password": inventory.common("airflow_flower_password"),
        }
        found = run_on(inventory, host, HERE / "flower_pages.py", order)
        pages.update({f"Flower on {host}, {path}": text for path, text in found.items()})
    return pages


def scan_hosts(inventory: Inventory, found: Mapping[str, tuple[str, str]]) -> Report:
    texts = list(found)
    report = Report(texts=len(texts))

    def one(host: str) -> dict[str, Any]:
        sources = SOURCES + (["databases"] if host in inventory.members["postgresql"] else [])
        order = {"texts": texts, "roots": ROOTS, "skip": SKIP, "since": 0, "sources": sources}
        answer: dict[str, Any] = run_on(inventory, host, HERE / "scan_host.py", order)
        return answer

    hosts = hosts_of(inventory)
    with ThreadPoolExecutor() as pool:
        for host, answer in zip(hosts, pool.map(one, hosts)):
            add(report, host, answer, found)
    return report


def add(report: Report, host: str, answer: Mapping[str, Any], found: Mapping[str, tuple[str, str]]) -> None:
    texts = list(found)
    report.files += answer["files"]
    report.processes += answer["processes"]
    report.size += sum(answer["sizes"].values())
    # A place that holds a secret as plain text holds some of its other forms by that.
    named = {(place, found[texts[index]][0]): found[texts[index]][1] for place, index in reversed(answer["hits"])}
    report.hits += [Hit(host, place, name, form) for (place, name), form in named.items()]


def scan_texts(report: Report, where: str, pages: Mapping[str, str], found: Mapping[str, tuple[str, str]]) -> None:
    for place, text in pages.items():
        report.pages += 1
        report.size += len(text)
        named = {name: form for pattern, (name, form) in found.items() if pattern in text}
        report.hits += [Hit(where, place, name, form) for name, form in named.items()]


def scan_controller(report: Report, since: float, found: Mapping[str, tuple[str, str]], ours: Iterable[Path] = ()) -> None:
    """Ansible's leftovers on this machine, the secrets' own file aside."""
    roots = {Path(tempfile.gettempdir()), Path("/var/tmp"), Path.home() / ".ansible", ROOT / ".ansible"}  # noqa: S108
    if C.CACHE_PLUGIN_CONNECTION:
        roots.add(Path(os.path.expandvars(C.CACHE_PLUGIN_CONNECTION)).expanduser())
    order = {
        "texts": list(found),
        "roots": sorted(str(root) for root in roots),
        "skip": [],
        "since": since,
        "sources": [],
    }
    command = [sys.executable, "-c", LOADER]
    done = subprocess.run(command, input=sent(HERE / "scan_host.py", order), capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    own = {f"file {path.resolve()}" for path in ours}
    answer["hits"] = [hit for hit in answer["hits"] if hit[0] not in own]
    add(report, "controller", answer, found)


def scan(
    inventory: Inventory,
    extra: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    since: float | None = None,
) -> Report:
    """Everything. `extra` are further values to look for, `outputs` texts of this machine by name."""
    begin = time.monotonic()
    secrets = {**secrets_of(inventory), **(extra or {})}
    found = patterns(secrets)
    report = scan_hosts(inventory, found)
    report.secrets = len(secrets)
    pages = flower_pages(inventory)
    scan_texts(report, "Flower", pages, found)
    tokens = [place for place, text in pages.items() if TOKEN.search(text)]
    report.hits += [Hit("Flower", place, "a task's token", "plain") for place in tokens]
    scan_texts(report, "controller", outputs or {}, found)
    if since is not None:
        scan_controller(report, since, found, secrets_files(inventory))
    report.hits.sort()
    report.seconds = time.monotonic() - begin
    return report


def secrets_files(inventory: Inventory) -> list[Path]:
    given = inventory.common("airflow_secrets_file", "")
    folder = Path(inventory.path)
    return [Path(given)] if given else [(folder if folder.is_dir() else folder.parent) / "group_vars/all/vault.yml"]


def main() -> int:
    from inventory import DEFAULT, Inventory

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", default=DEFAULT, help="default: %(default)s")
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="files with captured output")
    parser.add_argument("--since", type=float, help="search this machine's temporary files younger than this, too")
    parser.add_argument("--all", action="store_true", help="list the allowed hits too")
    options = parser.parse_args()
    outputs = {f"file {path}": path.read_text(errors="replace") for path in options.text}
    report = scan(Inventory(options.inventory), outputs=outputs, since=options.since)
    for hit in report.hits:
        if options.all or not hit.allowed:
            print(f"{'allowed  ' if hit.allowed else 'FORBIDDEN'} {hit}")
    print(report)
    return 1 if report.forbidden else 0


if __name__ == "__main__":
    sys.exit(main())
