"""Boot, list and remove the lab's hosts: podman containers that run systemd from an image of our own.

lab.py up INVENTORY [--only HOST,HOST]   create what is missing or dead; hosts that run are left as they are
lab.py down [INVENTORY] [--only ...]     remove the inventory's hosts, or every host of the lab
lab.py status                            every host of the lab, with its address
lab.py show INVENTORY                    what runs where in a deployed lab, and how to log in

An inventory host is a lab host when it has `lab_image: bookworm|trixie`. Its address is `lab_address`, else
`ansible_host`; an `ansible_host` that is a name is made to resolve here and between the hosts.
`lab_own_name_line: true` gives it the line `127.0.1.1 NAME` that Debian's installer writes into /etc/hosts.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PODMAN = str(HERE / "podman")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windfarm-airflow"
KEY = CACHE / "ssh" / "id_ed25519"
NETWORK = "windfarm-airflow"
SUBNET = "10.89.77.0/24"
LABEL = "windfarm.airflow.lab"
HOSTS_MARK = "# windfarm-airflow lab"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-apt,sudo,iproute2,ca-certificates,procps,openssh-server,nftables,openssl"
# Commands and files that must be there: the package that has each.
TOOLS = {
    "podman": "podman",
    "crun": "crun",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ssh-keygen": "openssh-client",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
}
BOOT_SECONDS = 90
# $1: the files to lay over it, $2: the image's root. Masked: what in a privileged container would set up the machine's
# own kernel and terminals, and waiting for a network that podman has already made.
FINISH = """set -eu
rm -f "$2/etc/apt/sources.list" "$2/etc/hostname" "$2/etc/resolv.conf"
tar -C "$1" -c . | tar -C "$2" --no-same-owner --no-overwrite-dir -x
chroot "$2" useradd --create-home --shell /bin/bash --uid 1000 admin
chroot "$2" chown -R admin:admin /home/admin
chmod 700 "$2/root/.ssh" "$2/home/admin/.ssh"
chroot "$2" update-ca-certificates >/dev/null
for unit in systemd-modules-load.service systemd-sysctl.service systemd-binfmt.service systemd-timesyncd.service \
  systemd-networkd-wait-online.service getty.target console-getty.service; do
  ln -sf /dev/null "$2/etc/systemd/system/$unit"
done
: > "$2/etc/machine-id"
"""


@dataclass(frozen=True)
class Host:
    name: str
    suite: str
    address: str
    reached_as: str
    own_name_line: bool

    @property
    def container(self) -> str:
        return f"windfarm-{self.name}"


def say(text: str) -> None:
    print(text, flush=True)


def run(*argv: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"lab: {' '.join(argv[:6])} ...: rc {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def podman(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(PODMAN, *argv, check=check)


def install_tools() -> None:
    missing = [package for command, package in TOOLS.items() if not shutil.which(command)]
    if missing:
        say(f"lab: apt-get install {' '.join(missing)}")
        run("apt-get", "update", "-qq")
        run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", *missing)


# ------------------------------------------------------------------------------------------------- inventory
def ansible_inventory(path: str) -> dict[str, Any]:
    tool = Path(sys.executable).with_name("ansible-inventory")
    listed: dict[str, Any] = json.loads(run(str(tool), "-i", path, "--list").stdout)
    return listed


def read_inventory(path: str, only: str | None) -> list[Host]:
    hosts = []
    for name, variables in ansible_inventory(path)["_meta"]["hostvars"].items():
        if "lab_image" not in variables:
            continue
        reached_as = str(variables.get("ansible_host", name))
        address = str(variables.get("lab_address", reached_as))
        if not re.fullmatch(r"[0-9.]+", address):
            raise SystemExit(f"lab: host {name} of {path}: set lab_address to a free address of {SUBNET}")
        own_name_line = bool(variables.get("lab_own_name_line"))
        hosts.append(Host(name, str(variables["lab_image"]), address, reached_as, own_name_line))
    if only:
        wanted = set(only.split(","))
        hosts = [host for host in hosts if host.name in wanted]
    if not hosts:
        raise SystemExit(f"lab: no host with lab_image in {path}" + (f" among {only}" if only else ""))
    return hosts


# ----------------------------------------------------------------------------------------------------- image
def machine_suite() -> str:
    text = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.M)
    if not found:
        raise SystemExit("lab: needs a Debian machine (no VERSION_CODENAME in /etc/os-release)")
    return found.group(1)


def debian_sources(suite: str) -> list[tuple[str, str, str]]:
    """(uri, suite, components) of the machine's own Debian sources, translated to the wanted suite."""
    mine = machine_suite()
    rows: list[tuple[str, str, str]] = []
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in lists:
        if not path.is_file():
            continue
        text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        if path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                field = {k.lower(): v.split() for k, v in re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.M)}
                if "deb" in field.get("types", []) and field.get("enabled", ["yes"]) != ["no"]:
                    components = " ".join(field.get("components", []))
                    rows += [(uri, s, components) for uri in field.get("uris", []) for s in field.get("suites", [])]
        elif path.suffix == ".list":
            for found in re.finditer(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s*(.*)$", text, re.M):
                rows.append((found.group(1), found.group(2), found.group(3)))
    translated = [
        (uri, suite + s[len(mine) :], "main")
        for uri, s, components in rows
        if s in (mine, f"{mine}-updates", f"{mine}-security") and "main" in components.split()
    ]
    if not translated:
        raise SystemExit(f"lab: no source for {mine} in /etc/apt: apt must work on this machine")
    return list(dict.fromkeys(translated))


def apt_settings() -> str:
    """What apt needs here to reach its mirror: proxy, certificates, clock checks."""
    keep = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    lines = [line for line in run("apt-config", "dump").stdout.splitlines() if line.startswith(keep) and ' ""' not in line]
    for scheme in ("http", "https"):
        proxy = os.environ.get(f"{scheme}_proxy")
        if proxy and not any(line.startswith(f"Acquire::{scheme}::Proxy ") for line in lines):
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    return "".join(f"{line}\n" for line in lines)


def build_image(suite: str) -> str:
    """The image's name; built from the machine's own sources when no cached one has the same ingredients."""
    rows = debian_sources(suite)
    sources = "".join(
        f"Types: deb\nURIs: {uri}\nSuites: {s}\nComponents: {components}\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
        for uri, s, components in rows
    )
    authorities = sorted(Path("/usr/local/share/ca-certificates").glob("**/*.crt"))
    public_key = KEY.with_suffix(".pub").read_text()
    settings = apt_settings()
    put = {
        "etc/apt/sources.list.d/debian.sources": (sources, 0o644),
        "etc/apt/apt.conf.d/90lab": (settings, 0o644),
        "etc/dpkg/dpkg.cfg.d/90lab": ("force-unsafe-io\n", 0o644),
        "etc/hosts": ("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n", 0o644),
        "etc/sudoers.d/admin": ("admin ALL=(ALL) NOPASSWD: ALL\n", 0o440),
        "root/.ssh/authorized_keys": (public_key, 0o600),
        "home/admin/.ssh/authorized_keys": (public_key, 0o600),
        **{f"usr/local/share/ca-certificates/{p.name}": (p.read_text(), 0o644) for p in authorities},
    }
    key = hashlib.sha256(repr((sorted(put.items()), FINISH, PACKAGES)).encode()).hexdigest()[:12]
    image = f"localhost/windfarm-airflow-{suite}:{key}"
    if podman("image", "exists", image, check=False).returncode == 0:
        return image
    tar = CACHE / f"{suite}-{key}.tar"
    if not tar.exists():
        say(f"lab: building the {suite} image (once)")
        for old in CACHE.glob(f"{suite}-*.tar*"):
            old.unlink()
        with tempfile.TemporaryDirectory() as folder:
            stage = Path(folder)
            for name, (text, mode) in put.items():
                path = stage / "root" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                path.chmod(mode)
            finish = stage / "finish.sh"
            finish.write_text(FINISH)
            part = tar.with_suffix(".part")
            run(
                "mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "--format=tar",
                *[f"--aptopt={line}" for line in settings.splitlines()],
                f"--customize-hook=sh {finish} {stage}/root \"$1\"",
                suite, str(part), *[f"deb {uri} {s} {components}" for uri, s, components in rows],
            )  # fmt: skip
            part.rename(tar)
    podman("import", "--change", 'CMD ["/sbin/init"]', "--change", "STOPSIGNAL SIGRTMIN+3", str(tar), image)
    return image


# ----------------------------------------------------------------------------------------------------- hosts
def ssh_key() -> None:
    if not KEY.exists():
        KEY.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "windfarm-airflow-lab", "-f", str(KEY))


def alive(container: str) -> bool:
    """Podman's record can outlive the host (all processes were ended): only an answer from inside counts."""
    return podman("exec", container, "true", check=False).returncode == 0


def remove(container: str) -> None:
    done = podman("rm", "--force", "--time", "0", "--ignore", "--volumes", container, check=False)
    if podman("container", "exists", container, check=False).returncode != 0:
        return
    ident = podman("inspect", "--format", "{{.Id}}", container, check=False).stdout.strip()
    run("crun", "delete", "--force", ident, check=False)
    again = podman("rm", "--force", "--time", "0", "--volumes", container, check=False)
    if podman("container", "exists", container, check=False).returncode == 0:
        raise SystemExit(f"lab: cannot remove {container}\n{done.stderr}{again.stderr}")


def own_containers() -> dict[str, str]:
    listed = podman("ps", "--all", "--filter", f"label={LABEL}", "--format", "json")
    return {row["Names"][0]: row["Labels"][LABEL] for row in json.loads(listed.stdout or "[]") or []}


def create(host: Host, image: str) -> None:
    limits = {name: resource_limit(flag) for name, flag in (("nofile", "n"), ("nproc", "u"))}
    arguments = [
        "run", "--detach", "--systemd=always", "--privileged", "--restart=always", "--pids-limit=0",
        "--name", host.container, "--hostname", host.name, "--label", f"{LABEL}={host.address}",
        "--network", NETWORK, "--ip", host.address, "--network-alias", host.name,
        # podman would write each host's own name and address into /etc/hosts; a real Debian host has no such line.
        "--no-hosts",
    ]  # fmt: skip
    if host.reached_as not in (host.name, host.address):
        arguments += ["--network-alias", host.reached_as]
    arguments += [f"--ulimit={name}={value}:{value}" for name, value in limits.items()]
    # On a machine systemd makes / shared, without which units do not see the credentials that it mounts for them; and nobody but
    # root writes to /run.
    podman(*arguments, image, "/bin/sh", "-c", "mount --make-rshared / && chmod 755 /run && exec /sbin/init")
    if host.own_name_line:
        podman("exec", host.container, "sh", "-c", f"echo 127.0.1.1 {host.name} >> /etc/hosts")


def resource_limit(flag: str) -> int:
    hard = run("bash", "-c", f"ulimit -H{flag}").stdout.strip()
    return 20000 if hard == "unlimited" else min(20000, int(hard))


def wait_until_up(host: Host) -> None:
    end = time.monotonic() + BOOT_SECONDS
    state = "no answer"
    while time.monotonic() < end:
        state = podman("exec", host.container, "systemctl", "is-system-running", "--wait", check=False).stdout.strip()
        if state == "degraded":
            failed = podman("exec", host.container, "systemctl", "--failed", "--plain", "--no-legend", check=False)
            raise SystemExit(f"lab: {host.name} booted degraded:\n{failed.stdout}")
        if state == "running":
            try:
                with socket.create_connection((host.address, 22), timeout=2) as link:
                    if link.recv(4) == b"SSH-":
                        return
            except OSError as error:
                state = f"sshd: {error}"
        time.sleep(0.2)
    raise SystemExit(f"lab: {host.name} did not boot in {BOOT_SECONDS} s ({state})")


def names_here(hosts: list[Host] | None, present: bool) -> None:
    """Lines in the machine's /etc/hosts for the hosts that the inventory reaches by name; None: all lines of the lab."""
    path = Path("/etc/hosts")
    before = path.read_text()
    ours = [line for line in before.splitlines() if line.endswith(HOSTS_MARK)]
    stale = ours if hosts is None else [line for line in ours if line.split()[0] in {host.address for host in hosts}]
    lines = [line for line in before.splitlines() if line not in stale]
    if present:
        named = [host for host in hosts or [] if host.reached_as not in (host.name, host.address)]
        lines += [f"{host.address} {host.reached_as} {HOSTS_MARK}" for host in named]
    after = "\n".join(lines) + "\n"
    if after != before:
        path.write_text(after)


def ensure_network() -> None:
    if podman("network", "exists", NETWORK, check=False).returncode != 0:
        done = podman("network", "create", "--subnet", SUBNET, NETWORK, check=False)
        if done.returncode and "already" not in done.stderr:
            raise SystemExit(f"lab: network {SUBNET}: {done.stderr}")


def up(path: str, only: str | None) -> bool:
    install_tools()
    hosts = read_inventory(path, only)
    ssh_key()
    suites = sorted({host.suite for host in hosts})
    with ThreadPoolExecutor() as pool:
        images = dict(zip(suites, pool.map(build_image, suites)))
    ensure_network()
    known = own_containers()

    def ensure(host: Host) -> bool:
        if host.container in known:
            if alive(host.container) and known[host.container] == host.address:
                wait_until_up(host)
                return False
            remove(host.container)
        create(host, images[host.suite])
        wait_until_up(host)
        return True

    names_here(hosts, present=True)
    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        created = list(pool.map(ensure, hosts))
    for host, is_new in zip(hosts, created):
        say(f"lab: {host.name} {host.address} {host.suite} {'booted' if is_new else 'runs'}")
    return any(created)


def down(path: str | None, only: str | None) -> bool:
    if not shutil.which("podman"):
        return False
    known = own_containers()
    hosts = read_inventory(path, only) if path else None
    gone = list(known) if hosts is None else [host.container for host in hosts if host.container in known]
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(remove, gone))
    names_here(hosts, present=False)
    if not own_containers():
        podman("network", "rm", "--force", NETWORK, check=False)
    for container in gone:
        say(f"lab: {container} removed")
    return bool(gone)


def status() -> None:
    for container, address in own_containers().items():
        say(f"{container} {address} {'runs' if alive(container) else 'dead'}")


def show(path: str) -> None:
    inventory = ansible_inventory(path)
    hosts = read_inventory(path, None)
    units = ("airflow-*.service", "postgresql@*.service", "redis-server.service", "haproxy.service")
    say("\nWhat runs where")
    for host in hosts:
        listing = ["systemctl", "list-units", "--state=running", "--plain", "--no-legend", *units]
        lines = podman("exec", host.container, *listing).stdout.splitlines()
        names = [line.split()[0].removesuffix(".service") for line in lines]
        say(f"  {host.name:10} {host.address:13} {' '.join(sorted(names))}")
    web = inventory["airflow_webserver"]["hosts"][0]
    port = inventory["_meta"]["hostvars"][web].get("airflow_webserver_port", 8080)
    user = inventory["_meta"]["hostvars"][web].get("airflow_admin_user", "admin")
    scheme = "https" if inventory["_meta"]["hostvars"][web].get("airflow_tls", True) else "http"
    say(f"Web page  {scheme}://{next(host.address for host in hosts if host.name == web)}:{port}")
    say(f"User      {user}")
    say(f"Authority .venv/bin/ansible -i {path} {web} -m ansible.builtin.debug -a var=airflow_ca_certificate")
    say(f"Password  .venv/bin/ansible -i {path} {web} -m ansible.builtin.debug -a var=airflow_admin_password")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("up", "down", "status", "show"))
    parser.add_argument("inventory", nargs="?")
    parser.add_argument("--only")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("lab: needs root (podman with systemd inside)")
    if options.verb in ("up", "show") and not options.inventory:
        parser.error(f"{options.verb} needs an inventory")
    # Two runs side by side share packages, images, the network and /etc/hosts.
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w", encoding="utf-8") as lock:
        if options.verb in ("up", "down"):
            fcntl.flock(lock, fcntl.LOCK_EX)
        act(options)


def act(options: argparse.Namespace) -> None:
    if options.verb == "up":
        up(options.inventory, options.only)
    elif options.verb == "down":
        down(options.inventory, options.only)
    elif options.verb == "show":
        show(options.inventory)
    else:
        status()


if __name__ == "__main__":
    main()
