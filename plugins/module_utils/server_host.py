# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules for PostgreSQL and Redis share: packages, whole files, units, addresses, and one list of changes."""

from __future__ import annotations

import errno
import grp
import ipaddress
import os
import pwd
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$")

# As Redis keeps passwords.
PASSWORD_HASH = re.compile(r"#[0-9a-f]{64}\b")

# needrestart, where it is installed now or later, reads every file of this folder.
NEEDRESTART = "/etc/needrestart/conf.d/90-windfarm-{}.conf"
NEEDRESTART_TEXT = """# Written by Ansible (windfarm.airflow); changes made here are lost.
# Restarted on purpose only: by playbooks/upgrade_servers.yml, which lets the schedulers wait.
$nrconf{{override_rc}}{{qr(^{unit})}} = 0;
"""
APT = ("apt-get", "-y", "-o", "DPkg::Lock::Timeout=300")
UPGRADE = ("--only-upgrade", "--allow-change-held-packages", "--no-remove")
KEEP_FILES = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
APT_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
LOCKED = re.compile(r"\block(ed)?\b")
SIMULATED = re.compile(r"^Inst (\S+) \[(\S+)\] \((\S+)", re.M)
# A program's own files; what else a process maps under the name of a deleted file is its shared memory.
REPLACED = re.compile(r"(/(?:usr|lib)\S*?/([^/\s]+)) \(deleted\)$", re.M)

# What servers understand as all their addresses.
EVERYWHERE = ("*", "0.0.0.0", "::")  # noqa: S104


class ServerError(Exception):
    """One line for the user: which variable or host is wrong and what cures it."""


@dataclass(frozen=True)
class File:
    """A file that is rendered whole."""

    path: str
    text: str
    mode: int
    owner: str = "root"
    group: str = "root"


def read_text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _ids(file: File) -> tuple[int, int]:
    return pwd.getpwnam(file.owner).pw_uid, grp.getgrnam(file.group).gr_gid


def file_differs(file: File) -> bool:
    if read_text(file.path) != file.text:
        return True
    state = os.stat(file.path)
    try:
        return (state.st_mode & 0o7777, state.st_uid, state.st_gid) != (file.mode, *_ids(file))
    except KeyError:
        return True


def write_file(file: File) -> None:
    """Replace the file by a complete one; its mode and owner hold before its content does."""
    folder = os.path.dirname(file.path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".ansible-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            os.fchmod(stream.fileno(), file.mode)
            os.fchown(stream.fileno(), *_ids(file))
            stream.write(file.text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file.path)
    except BaseException:
        os.unlink(name)
        raise


def mask(text: str, keywords: Iterable[str]) -> str:
    """The text with the value of every `keyword value` line hidden, and the hashes of passwords anywhere."""
    text = PASSWORD_HASH.sub("#********", text)
    pattern = "|".join(re.escape(word) for word in keywords)
    return re.sub(rf"(?im)^(\s*(?:{pattern})[\s=]+).*$", r"\1********", text) if pattern else text


def effective(text: str) -> str:
    """The lines that say something; Debian's own files are thousands of lines of comment."""
    return "".join(f"{line}\n" for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


class Host:
    """The managed host as a module sees it. Collects the changes; in check mode it makes none."""

    def __init__(self, module: Any, secret_keywords: Sequence[str] = ()) -> None:
        self.module = module
        self.check: bool = module.check_mode
        self.actions: list[str] = []
        self.diff: list[dict[str, str]] = []
        self._secret_keywords = tuple(secret_keywords)

    def run(
        self, command: Sequence[str], *, data: str | None = None, env: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        code, out, err = self.module.run_command(
            list(command), data=data, environ_update={"LC_ALL": "C.UTF-8", **(env or {})}, handle_exceptions=False
        )
        return int(code), str(out), str(err)

    def must(self, command: Sequence[str], meaning: str, **options: Any) -> str:
        code, out, err = self.run(command, **options)
        if code:
            raise ServerError(f"{meaning} failed: {last_line(err or out)}")
        return out

    def note(self, action: str) -> None:
        self.actions.append(action)

    def installed(self, package: str) -> bool:
        code, out, _err = self.run(["dpkg-query", "-W", "-f=${db:Status-Status}", package])
        return code == 0 and out == "installed"

    def install(self, package: str) -> None:
        self.note(f"install {package}")
        if self.check:
            return
        command = [*APT, "--no-install-recommends", "install", package]
        # The host's package lists may be absent or old; fetching them each time would cost every run seconds.
        if self.run(command, env=APT_ENVIRONMENT)[0]:
            self.configure_packages()
            self.fetch_package_lists()
            self.must(command, f"installing the package {package}", env=APT_ENVIRONMENT)

    def configure_packages(self) -> None:
        """A run that was killed inside dpkg leaves packages half configured."""
        self.run(["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"], env=APT_ENVIRONMENT)

    def fetch_package_lists(self) -> None:
        out = err = ""
        for attempt in range(5):
            code, out, err = self.run([*APT, "update"], env=APT_ENVIRONMENT)
            if not code:
                return
            # A fresh machine's own first update may hold the lock, for which apt-get update does not wait.
            time.sleep(5 * (attempt + 1))
        raise ServerError(f"cannot fetch the package lists: {last_line(err or out)}; check the host's apt sources")

    def updates(self, packages: Sequence[str]) -> list[tuple[str, str, str]]:
        """Package, installed and new version of each that an upgrade of these changes, as far as the host's lists know.

        Another major version of the server is refused: its data would have to be brought over.
        """
        command = [*APT, "--simulate", *UPGRADE, "install", *packages]
        out = self.must(command, f"asking apt for a newer {packages[0]}", env=APT_ENVIRONMENT)
        found = SIMULATED.findall(out)
        for name, old, new in found:
            if name in packages and major(old) != major(new):
                raise ServerError(
                    f"{name}: apt would replace {old} by {new}, another major version; this is not done while it serves. "
                    "Take the foreign apt source away, or upgrade by hand as its release notes say"
                )
        return found

    def fetch(self, packages: Sequence[str]) -> None:
        command = [*APT, "--download-only", *UPGRADE, "install", *packages]
        self.must(command, f"fetching {', '.join(packages)}", env=APT_ENVIRONMENT)

    def upgrade(self, packages: Sequence[str]) -> list[tuple[str, str, str]]:
        """The newest packages of the same major version; the package's own scripts restart the server."""
        found = self.updates(packages)
        for name, old, new in found:
            self.note(f"upgrade {name} from {old} to {new}")
        if found and not self.check:
            held = [name for name, _old, _new in found if self.selection(name) == "hold"]
            try:
                command = [*APT, *UPGRADE, *KEEP_FILES, "install", *packages]
                self.must(command, f"upgrading {', '.join(packages)}", env=APT_ENVIRONMENT)
            finally:
                # apt forgets the hold of what it may change in spite of it.
                self.set_selections(held, "hold")
        return found

    def only_on_purpose(self, hold: bool, name: str, packages: Sequence[str], unit: str) -> None:
        """Neither apt nor needrestart restarts the server, which each does at times of its own choosing; or both may."""
        file = File(NEEDRESTART.format(name), NEEDRESTART_TEXT.format(unit=unit), 0o644)
        ours = os.path.exists(file.path)
        if hold:
            self.put([file])
        # Somebody else's hold stays: it was there without our file.
        if hold or ours:
            want = "hold" if hold else "install"
            self.select([one for one in packages if self.selection(one) not in ("", want)], want)
        if ours and not hold:
            self.note(f"remove {file.path}")
            if not self.check:
                os.unlink(file.path)

    def selection(self, package: str) -> str:
        """What dpkg is to do with an installed package; empty where it is not installed."""
        code, out, _err = self.run(["dpkg-query", "-W", "-f=${db:Status-Want} ${db:Status-Status}", package])
        want, _space, status = out.partition(" ")
        return want if code == 0 and status not in ("not-installed", "config-files") else ""

    def select(self, packages: Sequence[str], want: str) -> None:
        for package in packages:
            self.note(f"{'hold' if want == 'hold' else 'release'} {package}")
        if packages and not self.check:
            self.set_selections(packages, want)

    def set_selections(self, packages: Sequence[str], want: str) -> None:
        if not packages:
            return
        text = "".join(f"{package} {want}\n" for package in packages)
        for _attempt in range(60):
            code, out, err = self.run(["dpkg", "--set-selections"], data=text)
            # Unlike apt, dpkg does not wait for another one.
            if not code or not LOCKED.search(err):
                break
            time.sleep(5)
        if code:
            raise ServerError(f"dpkg cannot {want} {', '.join(packages)}: {last_line(err or out)}")

    def replaced_files(self, pid: str) -> list[str]:
        """Programs and libraries that a process runs with and that packages have replaced since."""
        return sorted({name for _path, name in REPLACED.findall(read_text(f"/proc/{pid}/maps") or "")})

    def put(self, files: Iterable[File]) -> list[File]:
        """Write the files that differ; returns them."""
        changed = [file for file in files if file_differs(file)]
        for file in changed:
            before = read_text(file.path)
            self.note(f"write {file.path}")
            self.diff.append(
                {
                    "before_header": file.path,
                    "after_header": file.path,
                    "before": mask(effective(before or ""), self._secret_keywords),
                    "after": mask(effective(file.text), self._secret_keywords),
                }
            )
            if not self.check:
                write_file(file)
        return changed

    def unit(self, name: str) -> dict[str, str]:
        properties = "ActiveState,SubState,UnitFileState,NeedDaemonReload,MainPID"
        out = self.must(["systemctl", "show", "-p", properties, name], f"asking systemd for {name}")
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def runs(self, name: str) -> bool:
        """Whether the unit runs or is about to; false for one that failed and waits for systemd's next attempt."""
        state = self.unit(name)
        return state["ActiveState"] in ("active", "activating", "reloading") and state["SubState"] != "auto-restart"

    def systemctl(self, verb: str, unit: str = "") -> None:
        self.note(f"{verb} {unit}".strip())
        if not self.check:
            self.must(["systemctl", verb, *([unit] if unit else [])], f"systemctl {verb} {unit}".strip())

    def settle_unit(self, name: str, drop_in: File) -> None:
        """The unit's drop-in is loaded and the unit starts at boot. Starts and stops nothing."""
        changed = self.put([drop_in])
        state = self.unit(name)
        # Asked of systemd too, so a run that died between writing and reloading is made good.
        if changed or state.get("NeedDaemonReload") == "yes":
            self.systemctl("daemon-reload")
        if state.get("UnitFileState") == "masked":
            raise ServerError(f"the unit {name} is masked on this host; run `systemctl unmask {name}` if it is meant to run")
        if state.get("UnitFileState") not in ("enabled", "alias"):
            self.systemctl("enable", name)


def major(version: str) -> str:
    """The part of a Debian version that its data belongs to: 17 of 17.12-0+deb13u1, 8 of 5:8.0.2-3."""
    return version.partition(":")[2 if ":" in version else 0].partition(".")[0].partition("-")[0]


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def as_ip(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def lookup(name: str) -> list[str]:
    """The addresses of a name as this host sees them, sorted; empty when it has none."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return []
    return sort_addresses(str(answer[4][0]).split("%", 1)[0] for answer in answers)


def sort_addresses(addresses: Iterable[str]) -> list[str]:
    return sorted(set(addresses), key=lambda text: (":" in text, ipaddress.ip_address(text)))


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def is_own(address: str) -> bool:
    """Whether a server on this host can listen on the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def outward_address() -> str | None:
    """The address that this host uses towards the network. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _dns_only(run: Callable[[Sequence[str]], tuple[int, str, str]], name: str) -> list[str]:
    code, out, _err = run(["getent", "-s", "dns", "ahosts", name])
    return sort_addresses(line.split()[0] for line in out.splitlines() if line.strip()) if code == 0 else []


def own_addresses_of(name: str, run: Callable[[Sequence[str]], tuple[int, str, str]]) -> list[str]:
    """Addresses of this host behind one of its own names.

    Debian's installer maps the host's own name to 127.0.1.1 in /etc/hosts: what local clients get, but nobody else.
    The name server's answer, else the address towards the network, is what the others reach.
    """
    found = lookup(name)
    outside = [address for address in found if not is_loopback(address)]
    if found and not outside:
        outside = [address for address in _dns_only(run, name) if not is_loopback(address) and is_own(address)]
        if not outside:
            outward = outward_address()
            outside = [outward] if outward else []
    return sort_addresses([*found, *outside])


def listen_addresses(variable: str, given: Sequence[str], run: Callable[[Sequence[str]], tuple[int, str, str]]) -> list[str]:
    """The addresses to bind: what was given, names resolved on this host, in the given order, each once."""
    result: list[str] = []
    for item in given:
        address = as_ip(item)
        if item in EVERYWHERE:
            found = [item]
        elif address is not None:
            found = [address]
        elif NAME.match(item):
            found = own_addresses_of(item, run)
            if not found:
                raise ServerError(
                    f"{variable}: this host cannot resolve '{item}'; give an address, or a name that the host knows"
                )
        else:
            raise ServerError(f"{variable}: '{item}' is neither an address nor a host name")
        for one in found:
            if one not in EVERYWHERE and not is_own(one):
                raise ServerError(
                    f"{variable}: {one}{'' if one == item else f' (from {item})'} is not an address of this host; "
                    "set airflow_address of this host to one of its own addresses, or this variable"
                )
            if one not in result:
                result.append(one)
    if not result:
        raise ServerError(f"{variable} is empty; name at least 127.0.0.1")
    return result


def accepts(address: str, port: int, timeout: float = 3.0) -> bool:
    """Whether something accepts connections there."""
    target = {"::": "::1"}.get(address, "127.0.0.1") if address in EVERYWHERE else address
    try:
        with socket.create_connection((target, port), timeout=timeout):
            return True
    except OSError:
        return False


def one_line(text: str) -> bool:
    return not any(character in text for character in "\n\r\0")
