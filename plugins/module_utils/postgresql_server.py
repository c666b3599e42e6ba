# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PostgreSQL without a server: configuration files as text, password verifiers, and the SQL towards the wish."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import os
import re
import socket
import ssl
import stringprep
import struct
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import NAME, ServerError, as_ip, one_line

HEADER = "# Written by Ansible (windfarm.airflow); changes made here are lost.\n"

# Where Debian's tools and this module look for things, and what has a variable of its own.
RESERVED = {
    "port": "set postgresql_port",
    "password_encryption": "it is scram-sha-256",
    "data_directory": "Debian's cluster tools own it",
    "config_file": "Debian's cluster tools own it",
    "hba_file": "set postgresql_hba_entries",
    "ident_file": "Debian's cluster tools own it",
    "external_pid_file": "Debian's cluster tools own it",
    "unix_socket_directories": "Debian's cluster tools own it",
    "ssl": "set postgresql_tls_certificate and postgresql_tls_key",
    "ssl_cert_file": "set postgresql_tls_certificate",
    "ssl_key_file": "set postgresql_tls_key",
    "include": "put the settings themselves here",
    "include_dir": "put the settings themselves here",
    "include_if_exists": "put the settings themselves here",
}
SETTING = re.compile(r"^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$")
ADDRESS_KEYWORDS = ("all", "samehost", "samenet")

UNIT = """# Written by Ansible (windfarm.airflow); changes made here are lost.
[Unit]
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Restart=on-failure
RestartSec=2
"""
# As its own user pg_ctlcluster needs no capability at all. Not in it, because PostgreSQL needs what they close:
# ProtectSystem=strict (WAL archives and tablespaces lie anywhere), MemoryDenyWriteExecute (JIT), PrivateUsers (peer
# authentication), RemoveIPC (shared memory of a second cluster of the same user), no AF_NETLINK (samenet in pg_hba.conf).
SANDBOX = """User=postgres
Group=postgres
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=full
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
ProcSubset=pid
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0077
"""


# The unit


def drop_in(sandbox: bool, data: str) -> str:
    """What Debian's unit lacks.

    It starts before a network that is still being configured has its addresses, and PostgreSQL then goes on with
    those it could bind. A crash of the main process ends it; nothing else would start it.
    """
    if not sandbox:
        return UNIT
    home = any(os.path.realpath(data).startswith(folder) for folder in ("/home/", "/root/", "/run/user/"))
    return f"{UNIT}{SANDBOX}ProtectHome={'no' if home else 'yes'}\n"


def confined(status: str | None) -> bool:
    """Whether the process with this /proc/PID/status was started in the sandbox."""
    return bool(re.search(r"(?m)^CapBnd:\s*0+$", status or ""))


# Configuration


def setting_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting_text(item) for item in value)
    return str(value)


def settings(
    listen: Sequence[str], port: int, max_connections: int, config: Mapping[str, Any], tls_file: str = ""
) -> dict[str, str]:
    """What the configuration file says: the role's own settings, then the user's over them."""
    result = {
        "listen_addresses": ", ".join(listen),
        "port": str(port),
        "max_connections": str(max_connections),
        "password_encryption": "scram-sha-256",
        "idle_in_transaction_session_timeout": "5min",
    }
    if tls_file:
        # One file for both, so that no moment has the certificate of one pair and the key of another.
        result |= {"ssl": "on", "ssl_cert_file": tls_file, "ssl_key_file": tls_file, "ssl_min_protocol_version": "TLSv1.2"}
    for given, value in config.items():
        name = str(given).lower()
        if not SETTING.match(name):
            raise ServerError(f"postgresql_config: '{given}' is not a name of a PostgreSQL setting")
        if name in RESERVED:
            raise ServerError(f"postgresql_config: '{name}' cannot be set here: {RESERVED[name]}")
        if value is None or isinstance(value, Mapping):
            raise ServerError(f"postgresql_config: '{name}' needs a value; remove the line for PostgreSQL's default")
        text = setting_text(value)
        if not one_line(text):
            raise ServerError(f"postgresql_config: the value of '{name}' holds a line break")
        result[name] = text
    return result


def render_settings(values: Mapping[str, str]) -> str:
    lines = []
    for name, value in values.items():
        quoted = value.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{quoted}'\n")
    return HEADER + "".join(lines)


def read_settings(text: str | None) -> dict[str, str]:
    """The settings in a file that render_settings wrote."""
    found = re.findall(r"(?m)^([^#\s]+) = '(.*)'$", text or "")
    return {name: value.replace("''", "'").replace("\\\\", "\\") for name, value in found}


def _hba_word(value: str) -> str:
    # Quoted words lose their special meaning, so only the documented keywords stay bare.
    if value in ("all", "sameuser", "samerole", "replication") or re.match(r"^[A-Za-z0-9_]+$", value):
        return value
    return f'"{value}"'


def known_addresses(text: str | None) -> dict[str, list[str]]:
    """Host names and their addresses in a pg_hba.conf that render_hba wrote."""
    result: dict[str, list[str]] = {}
    for line in (text or "").splitlines():
        match = re.match(r"^(?:host|hostssl|hostnossl) .* (\S+)/(?:32|128) \S+(?: [^#]*)? # (\S+)$", line)
        if match and match.group(1) not in result.setdefault(match.group(2), []):
            result[match.group(2)].append(match.group(1))
    return result


def hba_networks(address: str, resolve: Callable[[str], Sequence[str]]) -> list[tuple[str, str]]:
    """The address field of the lines for one entry, with the name that it came from."""
    ip = as_ip(address)
    if ip is not None:
        return [(f"{ip}/{128 if ':' in ip else 32}", "")]
    if address in ADDRESS_KEYWORDS:
        return [(address, "")]
    if "/" in address:
        try:
            return [(str(ipaddress.ip_network(address, strict=False)), "")]
        except ValueError:
            raise ServerError(f"postgresql_hba_entries: '{address}' is not a network") from None
    if not NAME.match(address):
        raise ServerError(f"postgresql_hba_entries: '{address}' is neither an address, a network nor a host name")
    found = resolve(address)
    if not found:
        raise ServerError(
            f"postgresql_hba_entries: this host cannot resolve '{address}', from which clients connect; "
            "make the name known here, or set airflow_address of that host to its address"
        )
    return [(f"{one}/{128 if ':' in one else 32}", address) for one in found]


def render_hba(entries: Sequence[Mapping[str, Any]], resolve: Callable[[str], Sequence[str]]) -> str:
    """pg_hba.conf: the local administrator, the given lines, and nobody else."""
    lines = [
        "local all postgres peer",
        "local replication postgres peer",
    ]
    for entry in entries:
        words = [str(entry[key]) for key in ("database", "user")]
        for word in [*words, str(entry.get("address") or ""), str(entry.get("options") or "")]:
            if not one_line(word) or '"' in word or "#" in word:
                raise ServerError(f"postgresql_hba_entries: {word!r} holds a character that pg_hba.conf cannot have there")
        kind, method = str(entry["type"]), str(entry["method"])
        options = f" {entry['options']}" if entry.get("options") else ""
        head = f"{kind} {_hba_word(words[0])} {_hba_word(words[1])}"
        if kind == "local":
            if entry.get("address"):
                raise ServerError("postgresql_hba_entries: an entry of type local has no address")
            lines.append(f"{head} {method}{options}")
            continue
        if not entry.get("address"):
            raise ServerError(f"postgresql_hba_entries: the entry for database '{words[0]}', user '{words[1]}' needs an address")
        for network, name in hba_networks(str(entry["address"]), resolve):
            lines.append(f"{head} {network} {method}{options}" + (f" # {name}" if name else ""))
    lines += ["local all all reject", "host all all all reject", "host replication all all reject"]
    # PostgreSQL resolves names in this file with reverse DNS as well, so they were resolved when it was written.
    return HEADER + "".join(f"{line}\n" for line in dict.fromkeys(lines))


# TLS


def bundle(certificate: str, key: str) -> str:
    return "".join(f"{part.strip()}\n" for part in (certificate, key))


def fingerprint(text: str | None) -> str:
    """SHA-256 of the first certificate in a PEM text, which is the one that a server shows; empty when there is none."""
    found = re.search(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text or "", re.DOTALL)
    if not found:
        return ""
    try:
        return _sha256(ssl.PEM_cert_to_DER_cert(found.group()))
    except ValueError:
        return ""


def _sha256(certificate: bytes | None) -> str:
    return hashlib.sha256(certificate).hexdigest() if certificate else ""


def served(address: str, port: int, timeout: float = 5.0) -> str:
    """Fingerprint of the certificate that the server there shows; empty when it shows none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Only which certificate it is counts here, not who would trust it.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((address, port), timeout=timeout) as plain:
            plain.sendall(struct.pack("!II", 8, 80877103))
            if plain.recv(1) != b"S":
                return ""
            with context.wrap_socket(plain) as secured:
                return _sha256(secured.getpeercert(binary_form=True))
    except OSError:
        return ""


def check_pair(certificate: str, key: str) -> None:
    """Refuse files that a server could not use."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ServerError(f"postgresql_tls_key: {key} is not the key of {certificate}; give a pair") from None
        why = (error.reason or "no PEM text").replace("_", " ").lower()
        raise ServerError(
            f"postgresql_tls_certificate, postgresql_tls_key: {certificate} and {key} cannot be used ({why}); "
            "give PEM files, the key without a passphrase"
        ) from None


# Passwords


def saslprep(password: str) -> str:
    """RFC 4013 as PostgreSQL does it: what is prohibited is used as it is."""
    if password.isascii():
        return password
    mapped = "".join(" " if stringprep.in_table_c12(one) else one for one in password if not stringprep.in_table_b1(one))
    prohibited = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if not mapped or any(table(one) for one in mapped for table in prohibited):
        return password
    if any(stringprep.in_table_d1(one) for one in mapped):
        mixed = any(stringprep.in_table_d2(one) for one in mapped)
        if mixed or not (stringprep.in_table_d1(mapped[0]) and stringprep.in_table_d1(mapped[-1])):
            return password
    return unicodedata.normalize("NFKC", mapped)


def scram_verifier(password: str, salt: bytes | None = None, iterations: int = 4096) -> str:
    """What PostgreSQL stores for the password, made here so that the password itself never travels."""
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
    stored = hashlib.sha256(hmac.new(salted, b"Client Key", hashlib.sha256).digest()).digest()
    server = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def password_matches(password: str, verifier: str | None) -> bool:
    match = re.match(r"^SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$", verifier or "")
    if not match or verifier is None:
        return False
    again = scram_verifier(password, base64.b64decode(match.group(2)), int(match.group(1)))
    return hmac.compare_digest(again, verifier)


# SQL


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def check_name(variable: str, name: str) -> str:
    if not name or not one_line(name) or len(name.encode()) > 63:
        raise ServerError(f"{variable}: {name!r} cannot be a name in PostgreSQL (1 to 63 bytes, one line)")
    return name


def check_wishes(databases: Sequence[Mapping[str, Any]], users: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what cannot work, before anything is changed."""
    names = [check_name("postgresql_users", user["name"]) for user in users]
    for user in users:
        _check_user(user)
    for variable, given in (("postgresql_users", names), ("postgresql_databases", [one["name"] for one in databases])):
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise ServerError(f"{variable}: '{twice[0]}' is listed twice")
    for database in databases:
        check_name("postgresql_databases", database["name"])
        if database["name"] in ("postgres", "template0", "template1"):
            raise ServerError(f"postgresql_databases: '{database['name']}' belongs to PostgreSQL itself; choose another name")


def _check_user(user: Mapping[str, Any]) -> None:
    name, password, groups = user["name"], user.get("password"), user.get("member_of") or []
    if name == "postgres" or name.startswith("pg_"):
        raise ServerError(f"postgresql_users: '{name}' belongs to PostgreSQL itself; choose another name")
    if user["login"] and (not password or not one_line(password)):
        raise ServerError(f"postgresql_users: the password of '{name}' is empty or holds a line break")
    for key in ("password", "act_as"):
        if not user["login"] and user.get(key):
            raise ServerError(f"postgresql_users: '{name}' has login: false; remove its {key}")
    for group in groups:
        check_name("postgresql_users", group)
        if group in ("postgres", name):
            raise ServerError(f"postgresql_users: '{name}' cannot be a member of '{group}'; name a role that owns its database")
    if user.get("act_as") and user["act_as"] not in groups:
        raise ServerError(f"postgresql_users: '{name}' acts as '{user['act_as']}'; add that to its member_of")


def state_query(databases: Sequence[Mapping[str, Any]], users: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """One row of JSON with everything that the module compares."""

    def listed(values: Sequence[str]) -> str:
        return ", ".join(literal(value) for value in values) or "NULL"

    named = [database["owner"] for database in databases]
    for user in users:
        named += [user["name"], *(user.get("member_of") or [])]
    return f"""
SELECT json_build_object(
  'loaded', extract(epoch FROM pg_conf_load_time()),
  'pending', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE pending_restart),
  'checksums', current_setting('data_checksums'),
  'hba_errors', (SELECT coalesce(json_agg(format('line %s: %s', line_number, error)), '[]')
                 FROM pg_hba_file_rules WHERE error IS NOT NULL),
  'settings', (SELECT coalesce(json_object_agg(name, json_build_object(
                 'value', setting, 'file', sourcefile, 'context', context)), '{{}}')
               FROM pg_settings WHERE name IN ({listed(names)})),
  'roles', (SELECT coalesce(json_object_agg(rolname, json_build_object(
              'login', rolcanlogin,
              'sessions', (SELECT count(*) FROM pg_stat_activity WHERE usesysid = a.oid),
              'limit', rolconnlimit, 'password', rolpassword, 'inherit', rolinherit,
              'act_as', (SELECT substr(one, 6) FROM pg_db_role_setting, unnest(setconfig) AS one
                         WHERE setrole = a.oid AND setdatabase = 0 AND one LIKE 'role=%'),
              'member_of', (SELECT coalesce(json_agg(json_build_object(
                  'role', pg_get_userbyid(m.roleid), 'admin', m.admin_option,
                  'full', coalesce((to_jsonb(m)->>'set_option')::bool AND (to_jsonb(m)->>'inherit_option')::bool, true),
                  'grantor', CASE WHEN to_jsonb(m) ? 'set_option' THEN pg_get_userbyid(m.grantor) END
                )), '[]') FROM pg_auth_members m WHERE m.member = a.oid),
              'powers', rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)), '{{}}')
            FROM pg_authid a WHERE rolname IN ({listed(named)})),
  'databases', (SELECT coalesce(json_object_agg(datname, json_build_object(
              'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding), 'limit', datconnlimit,
              'public', has_database_privilege('public', oid, 'CONNECT')
                        OR has_database_privilege('public', oid, 'TEMPORARY'),
              -- REASSIGN OWNED leaves these two alone.
              'owners', (SELECT coalesce(json_agg(DISTINCT pg_get_userbyid(refobjid)), '[]') FROM pg_shdepend
                         WHERE dbid = d.oid AND deptype = 'o' AND refclassid = 'pg_authid'::regclass
                         AND classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)))), '{{}}')
            FROM pg_database d WHERE datname IN ({listed([one["name"] for one in databases])})));
"""  # noqa: S608 (every name goes through literal())


SCHEMA_QUERY = """
SELECT json_build_object('database', current_database(),
  'public', to_regnamespace('public') IS NOT NULL
            AND has_schema_privilege('public', to_regnamespace('public'), 'CREATE'));
"""


def connect(database: str) -> str:
    """psql's command to go on in another database."""
    return f"\\connect {identifier(database)}\n"


Steps = list[tuple[str, str]]


def plan_objects(
    databases: Sequence[Mapping[str, Any]],
    users: Sequence[Mapping[str, Any]],
    state: Mapping[str, Mapping[str, Any]],
    version: int,
) -> Steps:
    """(what it does, SQL) in the order that keeps those who are connected working; refuses before the first step."""
    roles = {*state["roles"], *(user["name"] for user in users)}
    return [
        *plan_roles(users, state["roles"]),
        *plan_memberships(users, state["roles"], roles, version),
        *plan_databases(databases, state["databases"], roles, users),
        # Last, because a session that acts as the owner cannot use what still belongs to its login.
        *plan_sessions(users, state["roles"]),
        *plan_ends(users, state["roles"]),
    ]


def plan_roles(users: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> Steps:
    """For each role that is not as wished."""
    result = []
    for user in users:
        name, limit, login = user["name"], int(user["connection_limit"]), bool(user["login"])
        present = found.get(name)
        verifier = present["password"] if present else None
        same_password = password_matches(user["password"], verifier) if login else not verifier
        wished = present and present["login"] == login and present["limit"] == limit and present["inherit"]
        if present and wished and not present["powers"] and same_password:
            continue
        sql = (
            f"{'ALTER' if present else 'CREATE'} ROLE {identifier(name)} {'LOGIN' if login else 'NOLOGIN'} INHERIT "
            f"NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT {limit}"
        )
        if not same_password:
            sql += f" PASSWORD {literal(scram_verifier(user['password'])) if login else 'NULL'}"
        what = "set the password of" if present and login and not same_password else "change" if present else "create"
        result.append((f"{what} role {name}", sql + ";\n"))
    return result


def plan_memberships(
    users: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]], roles: Collection[str], version: int
) -> Steps:
    """A role whose memberships are given has these and no others; the others' are left as they are."""
    result = []
    for user in users:
        if user.get("member_of") is None:
            continue
        name, wished = user["name"], list(dict.fromkeys(user["member_of"]))
        present = found[name]["member_of"] if name in found else []
        for group in wished:
            if group not in roles:
                raise ServerError(f"postgresql_users: '{name}' is to be a member of '{group}', which does not exist; add it too")
            if not any(one["role"] == group and one["full"] for one in present):
                # From version 16 on each membership says for itself what it gives.
                options = " WITH INHERIT TRUE, SET TRUE" if version >= 16 else ""
                result.append(
                    (f"make {name} a member of {group}", f"GRANT {identifier(group)} TO {identifier(name)}{options};\n")
                )
        for one in present:
            group = one["role"]
            by = f" GRANTED BY {identifier(one['grantor'])}" if one["grantor"] else ""
            if group not in wished:
                result.append(
                    (
                        f"end the membership of {name} in {group}",
                        f"REVOKE {identifier(group)} FROM {identifier(name)}{by} CASCADE;\n",
                    )
                )
            elif one["admin"]:
                result.append(
                    (
                        f"take the power over {group} from {name}",
                        f"REVOKE ADMIN OPTION FOR {identifier(group)} FROM {identifier(name)}{by} CASCADE;\n",
                    )
                )
    return result


def plan_sessions(users: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> Steps:
    """Which role the sessions of a login become."""
    result = []
    for user in users:
        name, wished = user["name"], user.get("act_as") or ""
        present = (found[name]["act_as"] if name in found else None) or ""
        if wished == present:
            continue
        if wished:
            result.append((f"let {name} act as {wished}", f"ALTER ROLE {identifier(name)} SET role = {literal(wished)};\n"))
        else:
            result.append((f"let {name} act as itself", f"ALTER ROLE {identifier(name)} RESET role;\n"))
    return result


def plan_ends(users: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> Steps:
    """Who may not log in any more does not stay either."""
    return [
        (
            f"end the sessions of {name}",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {literal(name)};\n",  # noqa: S608
        )
        for user in users
        for name in [user["name"]]
        if not user["login"] and name in found and (found[name]["login"] or found[name].get("sessions"))
    ]


def hand_over(database: str, owner: str, others: Sequence[str]) -> str:
    """SQL: the database, and what these others own in it, belong to the owner. All of it or nothing."""
    listed = ", ".join(literal(one) for one in others)
    # REASSIGN OWNED takes other databases and tablespaces along, so these wait with the administrator meanwhile.
    # It cannot work on PostgreSQL's own roles, whose numbers are below 16384.
    body = f"""
DECLARE
  giver text;
  kept text[];
  one text;
BEGIN
  FOR giver IN SELECT rolname FROM pg_roles WHERE oid >= 16384 AND rolname IN ({listed or "NULL"}) LOOP
    kept := ARRAY(SELECT format('DATABASE %I', datname) FROM pg_database
                  WHERE pg_get_userbyid(datdba) = giver AND datname <> current_database()
                  UNION ALL SELECT format('TABLESPACE %I', spcname) FROM pg_tablespace
                  WHERE pg_get_userbyid(spcowner) = giver);
    FOREACH one IN ARRAY kept LOOP
      EXECUTE format('ALTER %s OWNER TO %I', one, current_user);
    END LOOP;
    EXECUTE format('REASSIGN OWNED BY %I TO %I', giver, {literal(owner)});
    FOREACH one IN ARRAY kept LOOP
      EXECUTE format('ALTER %s OWNER TO %I', one, giver);
    END LOOP;
  END LOOP;
  EXECUTE format('ALTER DATABASE %I OWNER TO %I', current_database(), {literal(owner)});
END
"""  # noqa: S608 (every name goes through literal())
    return f"{connect(database)}SET lock_timeout = '10s';\nDO {literal(body)};\n"


def plan_databases(
    databases: Sequence[Mapping[str, Any]],
    found: Mapping[str, Mapping[str, Any]],
    roles: Collection[str],
    users: Sequence[Mapping[str, Any]],
) -> Steps:
    """For each database that is not as wished; what cannot be changed is refused."""
    result = []
    for database in databases:
        name, owner, limit = database["name"], database["owner"], int(database["connection_limit"])
        if owner not in roles:
            raise ServerError(f"postgresql_databases: the owner '{owner}' of '{name}' does not exist; add it to postgresql_users")
        present = found.get(name)
        if present and present["encoding"] != "UTF8":
            raise ServerError(
                f"the database '{name}' exists with encoding {present['encoding']}, which cannot hold every text; "
                "nothing was changed: dump it, drop it, run this again and load the dump"
            )
        # What a login made before it acted as the owner.
        strays = {user["name"] for user in users if user.get("act_as") == owner}.intersection(
            present["owners"] if present else []
        )
        if not present:
            result.append(
                (
                    f"create database {name}",
                    f"CREATE DATABASE {identifier(name)} OWNER {identifier(owner)} TEMPLATE template0 "
                    f"ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8' CONNECTION LIMIT {limit};\n",
                )
            )
        elif present["owner"] != owner:
            others = sorted(strays | {present["owner"]})
            result.append((f"give database {name} and what is in it to {owner}", hand_over(name, owner, others)))
        elif strays:
            result.append((f"give what is in database {name} to {owner}", hand_over(name, owner, sorted(strays))))
        if present and present["limit"] != limit:
            result.append(
                (
                    f"limit the connections of database {name}",
                    f"ALTER DATABASE {identifier(name)} CONNECTION LIMIT {limit};\n",
                )
            )
        if not present or present["public"]:
            result.append((f"close database {name} to others", f"REVOKE ALL ON DATABASE {identifier(name)} FROM PUBLIC;\n"))
    return result
