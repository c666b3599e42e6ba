#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_server
short_description: Converge Debian's PostgreSQL server with its roles, databases and access rules
version_added: 1.0.0
description:
  - Installs Debian's package, makes its cluster with data checksums and UTF-8, writes one configuration file and
    pg_hba.conf whole,
    starts the server, and makes the roles and databases that are given.
  - What to do is derived from the running server, never from what this run happened to write. It reloads when a file
    is younger than the
    loaded configuration, and restarts only when PostgreSQL itself says that a setting waits for a restart.
    So a run after an interrupted one ends in the same state, and a run that changes nothing restarts nothing.
  - Passwords reach PostgreSQL as verifiers only, over the local socket. They are on no command line, in no log and in
    no diff.
  - An existing cluster is never made anew, and no role or database is removed.
  - The server runs in a sandbox of systemd. One that was started outside of it is restarted once.
author:
  - windfarm.airflow contributors (@windfarm)
options:
  version:
    description:
      - Major version of PostgreSQL. Empty for that of the cluster on the host, else Debian's own, 15 on Debian 12, 17
        on Debian 13.
      - A host with a C(main) cluster of another version is refused.
    type: str
    default: ""
  listen_addresses:
    description:
      - Addresses to listen on. A host name is resolved on the managed host.
    type: list
    elements: str
    default: [127.0.0.1]
  port:
    description:
      - TCP port.
    type: int
    default: 5432
  max_connections:
    description:
      - Most connections at a time. A change needs a restart.
    type: int
    default: 100
  tls_certificate:
    description:
      - Path on the host of the certificate that the server shows, in PEM, with its chain after it. Copied together with
        O(tls_key) into a file of the server's own user; a renewed one is loaded without a restart.
      - Empty for what Debian gives the server, encryption with a certificate that nobody can check.
    type: path
    default: ""
  tls_key:
    description:
      - Path on the host of the key of O(tls_certificate), in PEM without a passphrase.
    type: path
    default: ""
  sandbox:
    description:
      - Whether systemd closes to the server what it does not need. V(false) for extensions or WAL archiving that need
        more, for example setuid programs or files in C(/home).
    type: bool
    default: true
  config:
    description:
      - Further settings of postgresql.conf by name. They win over O(listen_addresses) and O(max_connections), and over
        C(idle_in_transaction_session_timeout=5min) and C(ssl_min_protocol_version=TLSv1.2).
    type: dict
    default: {}
  hba_entries:
    description:
      - Who may connect, in this order. Everybody else is rejected, apart from the operating system's user postgres on
        the host.
    type: list
    elements: dict
    default: []
    suboptions:
      type:
        description: Kind of connection.
        type: str
        choices: [local, host, hostssl, hostnossl]
        default: host
      database:
        description: Database, or V(all).
        type: str
        required: true
      user:
        description: Role, or V(all).
        type: str
        required: true
      address:
        description:
          - Address, network or host name that the connection comes from; not with O(hba_entries[].type=local).
          - A name is resolved on the managed host. When it cannot be resolved later, its last known addresses are kept.
        type: str
      method:
        description: How the client proves who it is.
        type: str
        choices: [scram-sha-256, cert, peer, reject]
        default: scram-sha-256
      options:
        description: Options of the method, as pg_hba.conf has them.
        type: str
  users:
    description:
      - Roles to have. None of them is a superuser or may create roles or databases.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the role.
        type: str
        required: true
      password:
        description: Its password, any characters but line breaks. Needed with O(users[].login) only.
        type: str
      login:
        description: Whether somebody can connect as this role. One that owns databases for others need not.
        type: bool
        default: true
      member_of:
        description:
          - Roles whose rights it has, and no others. Without this option its memberships are left as they are.
        type: list
        elements: str
      act_as:
        description:
          - One of O(users[].member_of) that its sessions become, so that what they make belongs to that role.
          - What it owns already in databases of that role is given to that role.
        type: str
        default: ""
      connection_limit:
        description: Most connections of the role at a time, V(-1) for no limit.
        type: int
        default: -1
  databases:
    description:
      - Databases to have, in UTF-8. Only their owner may connect, and superusers.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the database.
        type: str
        required: true
      owner:
        description:
          - Role that owns it. What the previous owner has in it goes over to a new owner along with it, unless that
            was PostgreSQL's own C(postgres).
        type: str
        required: true
      connection_limit:
        description: Most connections to it at a time, V(-1) for no limit.
        type: int
        default: -1
  start_timeout:
    description:
      - How long to wait for the server to accept connections after a start, in seconds. Recovery after a crash takes
        its time.
    type: int
    default: 300
  hold:
    description:
      - Whether the server's package is kept on hold, and needrestart from restarting the server, so that neither an upgrade
        by apt nor one of a library restarts it at a time of its own choosing. O(upgrade) upgrades it all the same.
      - V(false) releases what this module had put on hold.
    type: bool
    default: true
  upgrade:
    description:
      - Whether to upgrade the server's package to the newest of its major version that the host's package lists know, and to
        restart a server that runs with files that have been replaced since its start.
    type: bool
    default: false
  restart:
    description:
      - Whether to restart the server even if nothing asks for it.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and predict the changes, also where PostgreSQL is not installed.
    support: full
  diff_mode:
    description: Shows the configuration files; passwords are in none of them.
    support: full
"""

EXAMPLES = r"""
- name: Have a server with one database
  windfarm.airflow.postgresql_server:
    listen_addresses: [127.0.0.1, 10.0.0.5]
    max_connections: 200
    tls_certificate: /etc/airflow/tls/postgresql.pem
    tls_key: /etc/airflow/tls/postgresql.key
    users:
      - name: airflow_owner
        login: false
      - name: airflow
        password: "{{ airflow_database_password }}"
        member_of: [airflow_owner]
        act_as: airflow_owner
    databases:
      - name: airflow
        owner: airflow_owner
    hba_entries:
      - type: hostssl
        database: airflow
        user: airflow
        address: 10.0.0.6
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  returned: always
  type: list
  elements: str
  sample: ["write /etc/postgresql/15/main/conf.d/90-ansible.conf", "reload postgresql@15-main"]
restarted:
  description: Whether the server was restarted.
  returned: always
  type: bool
upgrades:
  description: Packages that were upgraded, or would be.
  returned: success
  type: list
  elements: dict
  sample: [{"package": "postgresql-17", "from": "17.11-0+deb13u1", "to": "17.12-0+deb13u1"}]
unit:
  description: The systemd unit of the server.
  returned: always
  type: str
  sample: postgresql@15-main
version:
  description: Major version of the server.
  returned: always
  type: str
  sample: "15"
"""

import glob
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils import postgresql_server as pg
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import (
    File,
    Host,
    ServerError,
    accepts,
    as_ip,
    file_differs,
    is_loopback,
    last_line,
    listen_addresses,
    lookup,
    own_addresses_of,
    read_text,
    write_file,
)

DEBIAN_VERSIONS = {"12": "15", "13": "17"}
CLUSTER = "main"
CREATE = """# Written by Ansible (windfarm.airflow): how the package's own first cluster is made.
initdb_options = '--data-checksums --encoding=UTF8 --locale=C.UTF-8'
"""
# A busy database makes a change of owners wait for its locks; a deadlock or a timeout is tried again.
ATTEMPTS = 6
BUSY = re.compile(r"deadlock detected|lock timeout")


class Server:
    """One cluster of Debian's PostgreSQL."""

    def __init__(self, host: Host, params: dict[str, Any]) -> None:
        self.host = host
        self.params = params
        self.restarted = False
        self.upgrades: list[tuple[str, str, str]] = []
        self.version = self._version()

    # Where things are

    def _version(self) -> str:
        wanted = self.params["version"]
        present = sorted(path.split("/")[3] for path in glob.glob(f"/etc/postgresql/*/{CLUSTER}/postgresql.conf"))
        if not wanted:
            if len(present) > 1:
                raise ServerError(
                    f"this host has the clusters {', '.join(f'{one}/{CLUSTER}' for one in present)}; "
                    "say which one in postgresql_version"
                )
            wanted = present[0] if present else self._debian_version()
        if not re.match(r"^[1-9][0-9]$", wanted):
            raise ServerError(f"postgresql_version: '{wanted}' is not a major version such as 15")
        if present and wanted not in present:
            raise ServerError(
                f"postgresql_version: this host has the cluster {present[0]}/{CLUSTER}, not {wanted}; "
                f"set {present[0]}, or bring its data over first (pg_upgradecluster {present[0]} {CLUSTER})"
            )
        return wanted

    def _debian_version(self) -> str:
        release = dict(line.split("=", 1) for line in (read_text("/etc/os-release") or "").splitlines() if "=" in line)
        name = release.get("VERSION_ID", "").strip('"')
        if release.get("ID", "").strip('"') != "debian" or name not in DEBIAN_VERSIONS:
            raise ServerError("this host runs neither Debian 12 nor Debian 13; set postgresql_version to what its packages have")
        return DEBIAN_VERSIONS[name]

    @property
    def unit(self) -> str:
        return f"postgresql@{self.version}-{CLUSTER}"

    @property
    def package(self) -> str:
        return f"postgresql-{self.version}"

    @property
    def etc(self) -> str:
        return f"/etc/postgresql/{self.version}/{CLUSTER}"

    @property
    def bin(self) -> str:
        return f"/usr/lib/postgresql/{self.version}/bin"

    def data_directory(self) -> str:
        match = re.search(r"(?m)^\s*data_directory\s*=?\s*'([^']+)'", read_text(f"{self.etc}/postgresql.conf") or "")
        return match.group(1) if match else f"/var/lib/postgresql/{self.version}/{CLUSTER}"

    def drop_in(self) -> File:
        text = pg.drop_in(self.params["sandbox"], self.data_directory())
        return File(f"/etc/systemd/system/{self.unit}.service.d/90-ansible.conf", text, 0o644)

    @property
    def tls_file(self) -> str:
        return f"{self.etc}/90-ansible.pem"

    def lock(self) -> list[str]:
        """Lines of the lock file: pid, data directory, start time, port, socket directory, first address, …"""
        return (read_text(f"{self.data_directory()}/postmaster.pid") or "").splitlines()

    # Talking to it

    def as_postgres(
        self, command: list[str], data: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # pylint: disable=ansible-bad-function
            command,
            input=data,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            user="postgres",
            group="postgres",
            extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **(env or {})},
        )

    def psql(self, sql: str) -> subprocess.CompletedProcess[str]:
        # Where the server is now, whatever the configuration says.
        lock = self.lock()
        port, folder = (lock[3], lock[4]) if len(lock) > 4 else (str(self.params["port"]), "/var/run/postgresql")
        # Statements with verifiers stay out of the server's log, failed ones too.
        options = "-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic -c lc_messages=C"
        return self.as_postgres(
            [
                f"{self.bin}/psql",
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                folder,
                "-p",
                port,
                "-d",
                "postgres",
            ],
            sql,
            {"PGCLIENTENCODING": "UTF8", "PGOPTIONS": options, "PGCONNECT_TIMEOUT": "10"},
        )

    def ask(self, sql: str, meaning: str) -> list[Any]:
        done = self.psql(sql)
        if done.returncode:
            raise ServerError(f"{meaning} failed: {last_line(done.stderr)}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]

    def answers(self) -> str:
        """Empty when the server answers, else why not."""
        done = self.psql("SELECT 1;\n")
        return "" if done.returncode == 0 else last_line(done.stderr)

    def wait(self) -> None:
        deadline = time.monotonic() + self.params["start_timeout"]
        while problem := self.answers():
            # A server that recovers is "activating" or "active"; one that gave up waits for systemd's next attempt.
            if not self.host.runs(self.unit) or time.monotonic() > deadline:
                raise ServerError(f"{self.unit} does not answer: {problem}; its log says: {self.log_line()}")
            time.sleep(0.2)

    def log_line(self) -> str:
        text = read_text(f"/var/log/postgresql/postgresql-{self.version}-{CLUSTER}.log") or ""
        telling = [
            line for line in text.splitlines()[-200:] if " FATAL: " in line or " PANIC: " in line or " LOG:  could not" in line
        ]
        return last_line("\n".join(telling) or text)

    # Steps

    def prepare(self) -> bool:
        """Package and cluster; false in check mode where there is none yet."""
        host = self.host
        if not host.installed(self.package):
            # Before the package, because the package makes and starts the first cluster.
            host.put([File("/etc/postgresql-common/createcluster.d/90-ansible.conf", CREATE, 0o644), self.drop_in()])
            host.install(self.package)
            if host.check:
                return False
        host.only_on_purpose(self.params["hold"], "postgresql", [self.package], "postgresql@")
        if not os.path.exists(f"{self.etc}/postgresql.conf"):
            host.note(f"create the cluster {self.version}/{CLUSTER}")
            if host.check:
                return False
            host.must(
                [
                    "pg_createcluster",
                    self.version,
                    CLUSTER,
                    "--",
                    "--data-checksums",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                ],
                f"creating the cluster {self.version}/{CLUSTER}",
            )
        data = self.data_directory()
        if not os.path.exists(f"{data}/PG_VERSION"):
            raise ServerError(
                f"{data} holds no database of the cluster {self.version}/{CLUSTER}; mount its file system (nothing was made anew)"
            )
        return True

    def certificate(self) -> File | None:
        """The server's certificate and key in one file, so that they are replaced together."""
        paths = {name: self.params[name] for name in ("tls_certificate", "tls_key")}
        if not any(paths.values()):
            return None
        texts: list[str] = []
        for name, path in paths.items():
            if not path:
                raise ServerError(f"postgresql_{name} is empty but the other file is given; set both, or none for no TLS")
            text = read_text(path)
            if text is None and not self.host.check:
                raise ServerError(f"postgresql_{name}: {path} does not exist on this host; make it first")
            texts += [] if text is None else [text]
        if len(texts) < len(paths):
            # In check mode, before the run that makes them.
            return File(self.tls_file, "", 0o600, "postgres", "postgres")
        pg.check_pair(paths["tls_certificate"], paths["tls_key"])
        expiry = ["openssl", "x509", "-noout", "-checkend", "0", "-in", paths["tls_certificate"]]
        if shutil.which("openssl") and self.host.run(expiry)[0]:
            raise ServerError(f"postgresql_tls_certificate: {paths['tls_certificate']} has expired; renew it")
        return File(self.tls_file, pg.bundle(*texts), 0o600, "postgres", "postgres")

    def put_certificate(self, file: File | None) -> bool:
        if file is None or not file_differs(file):
            return False
        self.host.note(f"write {file.path}")
        before = read_text(file.path)
        # The key is in no diff.
        self.host.diff.append(
            {
                "before_header": file.path,
                "after_header": file.path,
                "before": f"certificate with sha256 {pg.fingerprint(before)}\n" if before else "",
                "after": f"certificate with sha256 {pg.fingerprint(file.text) or 'that is yet to be made'}\n",
            }
        )
        if not self.host.check:
            write_file(file)
        return True

    def shows(self, file: File) -> bool:
        """Whether the running server shows this certificate."""
        lock = self.lock()
        if len(lock) < 6:
            return False
        address = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(lock[5], lock[5])  # noqa: S104
        return pg.served(address, int(lock[3])) == pg.fingerprint(file.text)

    def prove_certificate(self, file: File) -> None:
        if not self.host.check and not self.shows(file):
            raise ServerError(
                f"postgresql_tls_certificate: {self.unit} does not show {self.params['tls_certificate']}; "
                f"its log says: {self.log_line()}"
            )

    def drop_certificate(self) -> None:
        """A key that the server does not use any more is not left behind."""
        if os.path.exists(self.tls_file):
            self.host.note(f"remove {self.tls_file}")
            if not self.host.check:
                os.unlink(self.tls_file)

    def files(self, tls: bool = False) -> tuple[File, File]:
        host, params = self.host, self.params
        listen = listen_addresses("postgresql_listen_addresses", params["listen_addresses"], host.run)
        self.settings = pg.settings(
            listen, params["port"], params["max_connections"], params["config"], self.tls_file if tls else ""
        )
        known = pg.known_addresses(read_text(f"{self.etc}/pg_hba.conf"))

        def resolve(name: str) -> list[str]:
            found = lookup(name)
            if not found and name in known:
                host.module.warn(f"postgresql_hba_entries: '{name}' cannot be resolved now; its last known addresses are kept")
                return known[name]
            if any(is_loopback(one) for one in found):
                # A name of this host itself: connections come from the loopback or from one of its own addresses.
                own = own_addresses_of(name, host.run)
                return sorted({"127.0.0.1", *(one for one in own if not is_loopback(one) or ":" in one)})
            return found

        return (
            File(f"{self.etc}/conf.d/90-ansible.conf", pg.render_settings(self.settings), 0o644, "postgres", "postgres"),
            File(f"{self.etc}/pg_hba.conf", pg.render_hba(params["hba_entries"], resolve), 0o640, "postgres", "postgres"),
        )

    def validate(self, conf: File) -> None:
        """PostgreSQL's own judgement of the settings, before they replace those that work."""
        if read_text(conf.path) == conf.text:
            return
        account = pwd.getpwnam("postgres")
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as stream:
            stream.write(conf.text)
            stream.flush()
            os.fchown(stream.fileno(), account.pw_uid, account.pw_gid)
            command = [
                f"{self.bin}/postgres",
                "-C",
                "max_connections",
                "-D",
                self.data_directory(),
                "-c",
                f"config_file={stream.name}",
            ]
            done = self.as_postgres(command)
        if done.returncode:
            lines = [re.sub(r"^.*?(LOG|FATAL|HINT): +", "", line) for line in done.stderr.splitlines() if " FATAL: " not in line]
            raise ServerError(f"postgresql_config: PostgreSQL refuses it: {'; '.join(lines) or last_line(done.stderr)}")

    def boot(self) -> None:
        host = self.host
        host.put(
            [File(f"{self.etc}/start.conf", "auto\n", 0o644, "postgres", "postgres")]
            if not re.search(r"(?m)^\s*auto\b", read_text(f"{self.etc}/start.conf") or "")
            else []
        )
        host.settle_unit(self.unit, self.drop_in())

    def start(self) -> bool:
        """The server runs and answers; false in check mode where it does not run."""
        if self.host.runs(self.unit):
            if not self.answers():
                return True
        else:
            self.host.systemctl("start", self.unit)
        if self.host.check:
            return False
        self.wait()
        return True

    def restart(self, why: str) -> None:
        self.restarted = True
        self.host.note(f"restart {self.unit} ({why})")
        if not self.host.check:
            self.checkpoint()
            self.host.must(["systemctl", "restart", self.unit], f"restarting {self.unit}")
            self.wait()

    def checkpoint(self) -> None:
        """What is written now need not be while the server stops and nobody is served; it does the same then, so no error."""
        self.psql("CHECKPOINT;\n")

    def main_pid(self) -> str:
        return (self.lock() or [""])[0].strip()

    def upgrade(self) -> None:
        """The newest package of this major version; its scripts stop and start the server."""
        host, before = self.host, self.main_pid()
        if self.params["upgrade"] and host.updates([self.package]):
            if not host.check:
                host.fetch([self.package])
                self.checkpoint()
            self.upgrades = host.upgrade([self.package])
            # Scripts of a package that somebody has told not to start services leave it stopped.
            if not host.check and not host.runs(self.unit):
                host.systemctl("start", self.unit)
            if not host.check:
                self.wait()
            self.restarted |= host.check or self.main_pid() != before
        replaced = [] if self.restarted or not self.params["upgrade"] else host.replaced_files(self.main_pid())
        if replaced:
            self.restart(f"{', '.join(replaced)} replaced since its start")
        elif self.params["restart"] and not self.restarted:
            self.restart("as asked")

    def confine(self) -> None:
        """A sandbox counts from the next start on, and that it lets the server start is to be known now."""
        wished, lock = self.params["sandbox"], self.lock()
        if not lock or pg.confined(read_text(f"/proc/{lock[0].strip()}/status")) == wished:
            return
        try:
            self.restart("into its sandbox" if wished else "out of its sandbox")
        except ServerError as error:
            if not wished:
                raise
            drop_in = self.drop_in()
            write_file(File(drop_in.path, pg.UNIT, drop_in.mode))
            self.host.must(["systemctl", "daemon-reload"], "systemctl daemon-reload")
            self.host.must(["systemctl", "restart", self.unit], f"restarting {self.unit} without its sandbox")
            self.wait()
            raise ServerError(
                f"postgresql_sandbox: the server does not start in its sandbox and runs without it again; set false ({error})"
            ) from None

    def state(self) -> dict[str, Any]:
        query = pg.state_query(self.params["databases"], self.params["users"], list(self.settings))
        return dict(self.ask(query, "reading the server's state")[0])

    def apply_files(self, conf: File, hba: File, certificate: File | None = None) -> dict[str, Any]:
        """Write, reload when the server has not loaded what is on disk, restart when it says so; the state then."""
        host = self.host
        before, old = read_text(hba.path), read_text(conf.path)
        renewed = self.put_certificate(certificate)
        changed = host.put([conf, hba])
        state = self.state()
        if hba in changed and not host.check and state["hba_errors"]:
            # PostgreSQL ignores a bad file now and refuses to start with it later.
            write_file(File(hba.path, before or "", hba.mode, hba.owner, hba.group))
            raise ServerError(f"postgresql_hba_entries: PostgreSQL refuses {state['hba_errors'][0]}; the previous file is back")
        paths = [one.path for one in (conf, hba, certificate) if one is not None and os.path.exists(one.path)]
        stale = any(os.stat(path).st_mtime >= float(state["loaded"]) for path in paths)
        if changed or renewed or stale or (certificate is not None and not self.shows(certificate)):
            host.systemctl("reload", self.unit)
            if host.check:
                self._predict_restart(state, old)
                return state
            loaded, deadline = state["loaded"], time.monotonic() + 30
            while state["loaded"] == loaded:
                if time.monotonic() > deadline:
                    raise ServerError(f"{self.unit} did not reload within 30 s; its log says: {self.log_line()}")
                time.sleep(0.05)
                state = self.state()
        if state["pending"]:
            try:
                self.restart(", ".join(state["pending"]) + " changed")
            except ServerError as error:
                if conf not in changed:
                    raise
                # A value that only the start refuses must not leave the cluster without its database.
                write_file(File(conf.path, old or pg.HEADER, conf.mode, conf.owner, conf.group))
                host.must(["systemctl", "restart", self.unit], f"restarting {self.unit} with its previous configuration")
                self.wait()
                raise ServerError(f"postgresql_config: {error}; the previous file is back and the server runs with it") from None
            state = state if host.check else self.state()
        if not host.check:
            self._check_applied(state, conf)
        return state

    def _predict_restart(self, state: dict[str, Any], old: str | None) -> None:
        before = pg.read_settings(old)
        names = {
            name
            for name, one in state["settings"].items()
            if one["context"] == "postmaster" and before.get(name, one["value"]) != self.settings[name]
        }
        names.update(state["pending"])
        if names:
            self.restart(", ".join(sorted(names)) + " changed")

    def _check_applied(self, state: dict[str, Any], conf: File) -> None:
        elsewhere = {name: one["file"] for name, one in state["settings"].items() if one["file"] != conf.path}
        if len(elsewhere) == len(state["settings"]):
            raise ServerError(f"{self.etc}/postgresql.conf does not read conf.d; add the line: include_dir = 'conf.d'")
        for name, file in sorted(elsewhere.items()):
            self.host.module.warn(f"{name} is overridden by {file or 'the server command line'}; remove it there")

    def listening(self) -> None:
        """A server whose address was missing when it started goes on without it, and only a restart binds it."""
        port = self.params["port"]
        wanted = [one.strip() for one in self.settings["listen_addresses"].split(",")]
        addresses = [one for one in wanted if one == "*" or as_ip(one)]
        deaf = [one for one in addresses if not accepts(one, port)]
        if not deaf:
            return
        self.restart(f"it does not listen on {deaf[0]}")
        deaf = [] if self.host.check else [one for one in addresses if not accepts(one, port)]
        if deaf:
            raise ServerError(f"{self.unit} does not listen on {deaf[0]} port {port}; its log says: {self.log_line()}")

    def objects(self, state: dict[str, Any]) -> None:
        databases = self.params["databases"]
        self._execute(pg.plan_objects(databases, self.params["users"], state, int(self.version)))
        present = [one["name"] for one in databases if not self.host.check or one["name"] in state["databases"]]
        if present:
            query = "".join(pg.connect(name) + pg.SCHEMA_QUERY for name in present)
            self._execute(
                [
                    (
                        f"close schema public of {one['database']} to others",
                        pg.connect(one["database"]) + "REVOKE CREATE ON SCHEMA public FROM PUBLIC;\n",
                    )
                    for one in self.ask(query, "reading the databases")
                    if one["public"]
                ]
            )

    def _execute(self, steps: list[tuple[str, str]]) -> None:
        for what, sql in steps:
            self.host.note(what)
            if not self.host.check:
                for _attempt in range(ATTEMPTS):
                    done = self.psql(sql)
                    if not BUSY.search(done.stderr):
                        break
                if done.returncode:
                    raise ServerError(f"cannot {what}: {last_line(re.sub('SCRAM-SHA-256[^ ]*', '********', done.stderr))}")

    def predict_bare(self, certificate: File | None) -> None:
        self.put_certificate(certificate)
        for file in self.files(certificate is not None):
            self.host.note(f"write {file.path}")
            self.host.diff.append({"before_header": file.path, "after_header": file.path, "before": "", "after": file.text})
        self.host.note(f"start {self.unit}")
        nothing: dict[str, Any] = {"roles": {}, "databases": {}}
        self._execute(pg.plan_objects(self.params["databases"], self.params["users"], nothing, int(self.version)))

    def converge(self) -> None:
        pg.check_wishes(self.params["databases"], self.params["users"])
        certificate = self.certificate()
        conf, hba = self.files(certificate is not None)
        if not self.prepare():
            self.predict_bare(certificate)
            return
        self.validate(conf)
        self.boot()
        running = self.host.runs(self.unit)
        if not running:
            # Nobody works with it: it may start with what is wished at once.
            self.put_certificate(certificate)
            self.host.put([conf, hba])
        if not self.start():
            if running:
                self.put_certificate(certificate)
                self.host.put([conf, hba])
            self.host.note("roles and databases can be compared only with a running server")
            return
        self.upgrade()
        self.confine()
        state = self.apply_files(conf, hba, certificate)
        self.listening()
        if certificate is None:
            self.drop_certificate()
        else:
            self.prove_certificate(certificate)
        self.objects(state)
        if state["checksums"] != "on":
            self.host.module.warn(
                f"the cluster {self.version}/{CLUSTER} has no data checksums; stop it and run "
                f"{self.bin}/pg_checksums --enable -D {self.data_directory()} as postgres"
            )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "default": ""},
            "listen_addresses": {"type": "list", "elements": "str", "default": ["127.0.0.1"]},
            "port": {"type": "int", "default": 5432},
            "max_connections": {"type": "int", "default": 100},
            "tls_certificate": {"type": "path", "default": ""},
            # A path, not a key.
            "tls_key": {"type": "path", "default": "", "no_log": False},
            "sandbox": {"type": "bool", "default": True},
            "config": {"type": "dict", "default": {}},
            "hba_entries": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "type": {"type": "str", "choices": ["local", "host", "hostssl", "hostnossl"], "default": "host"},
                    "database": {"type": "str", "required": True},
                    "user": {"type": "str", "required": True},
                    "address": {"type": "str"},
                    "method": {
                        "type": "str",
                        "choices": ["scram-sha-256", "cert", "peer", "reject"],
                        "default": "scram-sha-256",
                    },
                    "options": {"type": "str"},
                },
            },
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                # As a whole: the journal gets its text, in which a password with a quote would not be found and hidden.
                "no_log": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "no_log": True},
                    "login": {"type": "bool", "default": True},
                    "member_of": {"type": "list", "elements": "str"},
                    "act_as": {"type": "str", "default": ""},
                    "connection_limit": {"type": "int", "default": -1},
                },
            },
            "databases": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "owner": {"type": "str", "required": True},
                    "connection_limit": {"type": "int", "default": -1},
                },
            },
            "start_timeout": {"type": "int", "default": 300},
            "hold": {"type": "bool", "default": True},
            "upgrade": {"type": "bool", "default": False},
            "restart": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    # From here on the passwords alone; names of roles are not secret.
    module.no_log_values = {user["password"] for user in module.params["users"] if user["password"]}
    host_lock.hold(module)
    host = Host(module)
    try:
        server = Server(host, module.params)
        server.converge()
    except ServerError as error:
        module.fail_json(msg=str(error), changed=bool(host.actions), actions=host.actions)
    module.exit_json(
        changed=bool(host.actions),
        actions=host.actions,
        diff=host.diff,
        restarted=server.restarted,
        upgrades=[{"package": name, "from": old, "to": new} for name, old, new in server.upgrades],
        unit=server.unit,
        version=server.version,
    )


if __name__ == "__main__":
    main()
