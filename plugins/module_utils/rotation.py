# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How each secret is replaced while the cluster works: a short list of states of the file of secrets. Runs on the controller.

In every state all hosts can work with each other, also while some have the state before. So a state is written first, then every
host is brought to it, and only then comes the next; `site.yml` is right at any moment, and a killed run is continued.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_secrets, pki
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import CA_CERTIFICATE, CA_KEY
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import setting
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import ProblemError

# {secret: what is rotated, stage: which state the file has, until: when the next may follow}
MARKER = "airflow_rotation"
# What has been replaced, for the proof that nobody accepts it any more. JSON.
RETIRED = "airflow_rotation_retired"
JWT_OTHER = "airflow_jwt_other_key"
CA_NEXT = "airflow_ca_next_key"
LOGINS = {"database": "airflow_database", "results": "airflow_results_database"}

# A task's token is good for this long whatever is configured, and clocks differ.
TOKEN_SECONDS = 600
CLOCKS = 30
TIME = "%Y-%m-%dT%H:%M:%SZ"

Values = Mapping[str, Any]
Changes = dict[str, Any]


class RotationError(ProblemError):
    """The secret cannot be rotated."""


class Step(NamedTuple):
    """A state of the file, and what is brought to it."""

    title: str
    change: Callable[[Values], Changes]
    """The variables that differ from the state before; None removes one."""
    converge: Sequence[str]
    before: str = ""
    """What must have happened before this state: reencrypted, drained or expired."""
    retire: Callable[[Values], dict[str, Any]] | None = None
    """What nobody may accept any more once this state is reached."""


def _first(text: Any) -> str:
    return str(text).partition(",")[0].strip()


# Fernet: everybody can read both before anybody writes with the new one


def _fernet_add(values: Values) -> Changes:
    return {"airflow_fernet_key": f"{values['airflow_fernet_key']},{airflow_secrets.fernet_key()}"}


def _fernet_turn(values: Values) -> Changes:
    old, _comma, new = str(values["airflow_fernet_key"]).rpartition(",")
    return {"airflow_fernet_key": f"{new},{old}"}


def _fernet_drop(values: Values) -> Changes:
    return {"airflow_fernet_key": _first(values["airflow_fernet_key"])}


def _fernet_old(values: Values) -> dict[str, Any]:
    return {"keys": [key.strip() for key in str(values["airflow_fernet_key"]).split(",")[1:]]}


# JWT: webservers accept the new key's tokens before anybody signs with it, and the old one's until the last has expired


def _jwt_announce(_values: Values) -> Changes:
    return {JWT_OTHER: pki.new_jwt_key()}


def _jwt_turn(values: Values) -> Changes:
    return {"airflow_jwt_private_key": values[JWT_OTHER], JWT_OTHER: values["airflow_jwt_private_key"]}


def _jwt_drop(_values: Values) -> Changes:
    return {JWT_OTHER: ""}


# Logins of PostgreSQL, which knows one password each: two take turns


def _other_login(values: Values, prefix: str) -> str:
    first, second = logins(values, prefix)
    return first if values.get(f"{prefix}_login") == second else second


def logins(values: Values, prefix: str) -> tuple[str, str]:
    user = str(setting(values, f"{prefix}_user"))
    return user, f"{user}_2"


def _login_turn(prefix: str) -> Callable[[Values], Changes]:
    return lambda values: {
        f"{prefix}_login": _other_login(values, prefix),
        f"{prefix}_password": airflow_secrets.password(),
        f"{prefix}_previous_password": values[f"{prefix}_password"],
    }


def _login_bar(prefix: str) -> Callable[[Values], Changes]:
    return lambda _values: {f"{prefix}_previous_password": ""}


def _login_old(prefix: str) -> Callable[[Values], dict[str, Any]]:
    return lambda values: {"user": _other_login(values, prefix), "password": values[f"{prefix}_previous_password"]}


# Redis: an account opens with several passwords


def _redis_turn(values: Values) -> Changes:
    changes = {}
    for name in ("airflow_broker", "airflow_broker_admin"):
        changes[f"{name}_password"] = airflow_secrets.password()
        changes[f"{name}_previous_password"] = values[f"{name}_password"]
    return changes


def _redis_bar(_values: Values) -> Changes:
    return {"airflow_broker_previous_password": "", "airflow_broker_admin_previous_password": ""}


def _redis_old(values: Values) -> dict[str, Any]:
    return {"broker": values["airflow_broker_previous_password"], "admin": values["airflow_broker_admin_previous_password"]}


# TLS: the new authority is trusted before it signs, and the old one until it has signed nothing that is in use


def _tls_trust(values: Values) -> Changes:
    key = pki.new_key()
    certificate = pki.new_ca(key, str(values.get("cluster") or "cluster"))
    return {CA_NEXT: key, CA_CERTIFICATE: f"{str(values[CA_CERTIFICATE]).strip()}\n{certificate}"}


def _tls_sign(values: Values) -> Changes:
    return {CA_KEY: values[CA_NEXT], CA_NEXT: ""}


def _ours(values: Values) -> tuple[str, str]:
    """The authorities that stay, and the one that goes; ours has the key, and the one before it stands in front of it."""
    found = pki.load_certificates(values[CA_CERTIFICATE])
    new = pki.issuer_of(found, pki.load_private_key(values[CA_KEY]))
    gone = [one for one in found if pki.fingerprint(one) == values[MARKER].get("replaces")]
    stay = [one for one in found if one not in gone]
    return "".join(pki.pem(one) for one in [new, *(one for one in stay if one != new)]), "".join(pki.pem(one) for one in gone)


def _tls_drop(values: Values) -> Changes:
    return {CA_CERTIFICATE: _ours(values)[0]}


def _tls_old(values: Values) -> dict[str, Any]:
    return {"certificate": _ours(values)[1]}


def _replace(name: str, make: Callable[[], str]) -> Step:
    return Step(
        "write the new one",
        lambda _values: {name: make()},
        ("init",) if name == "airflow_admin_password" else ("postgresql", "roll"),
        retire=lambda values: {"value": values[name]},
    )


def _login_steps(prefix: str, drained: str) -> tuple[Step, ...]:
    return (
        Step("admit a second login, and use it", _login_turn(prefix), ("postgresql", "roll")),
        Step("bar the first", _login_bar(prefix), ("postgresql",), drained, _login_old(prefix)),
    )


STEPS: dict[str, tuple[Step, ...]] = {
    "fernet": (
        Step("let all read with the new key too", _fernet_add, ("postgresql", "roll")),
        Step("let all write with the new key", _fernet_turn, ("postgresql", "roll")),
        Step("take the old key away", _fernet_drop, ("postgresql", "roll"), "reencrypted", _fernet_old),
    ),
    "jwt": (
        Step("let webservers accept tokens of the new key too", _jwt_announce, ("webservers",)),
        Step("sign with the new key", _jwt_turn, ("postgresql", "roll")),
        Step(
            "accept no token of the old key",
            _jwt_drop,
            ("webservers",),
            "expired",
            lambda values: {"value": values[JWT_OTHER]},
        ),
    ),
    "database": _login_steps(LOGINS["database"], ""),
    # Workers that finish their tasks still write results with the old one.
    "results": _login_steps(LOGINS["results"], "drained"),
    "redis": (
        Step("accept two passwords, and use the new one", _redis_turn, ("redis", "roll")),
        Step("refuse the old one", _redis_bar, ("redis",), "drained", _redis_old),
    ),
    "tls": (
        Step("let all trust the new authority too", _tls_trust, ("postgresql", "redis", "roll", "haproxy")),
        Step("sign with the new authority", _tls_sign, ("postgresql", "redis", "roll", "haproxy")),
        Step("trust only the new authority", _tls_drop, ("postgresql", "redis", "roll", "haproxy"), retire=_tls_old),
    ),
    "api": (_replace("airflow_api_secret_key", airflow_secrets.signing_key),),
    "admin": (_replace("airflow_admin_password", airflow_secrets.password),),
}
KINDS = tuple(STEPS)
MOST_STEPS = max(len(steps) for steps in STEPS.values())

# The secrets that each kind replaces, which must be in the file; and what it writes besides them.
SECRETS: dict[str, tuple[str, ...]] = {
    "fernet": ("airflow_fernet_key",),
    "jwt": ("airflow_jwt_private_key",),
    "database": ("airflow_database_password",),
    "results": ("airflow_results_database_password",),
    "redis": ("airflow_broker_password", "airflow_broker_admin_password"),
    "tls": (CA_KEY, CA_CERTIFICATE),
    "api": ("airflow_api_secret_key",),
    "admin": ("airflow_admin_password",),
}
TEMPORARY: dict[str, tuple[str, ...]] = {
    "jwt": (JWT_OTHER,),
    "database": ("airflow_database_previous_password",),
    "results": ("airflow_results_database_previous_password",),
    "redis": ("airflow_broker_previous_password", "airflow_broker_admin_previous_password"),
    "tls": (CA_NEXT,),
}
KEPT: dict[str, tuple[str, ...]] = {"database": ("airflow_database_login",), "results": ("airflow_results_database_login",)}
# The server that must be the collection's own, and the variable that says it is another.
SERVERS = {
    "database": ("postgresql", "airflow_database_host"),
    "results": ("postgresql", "airflow_database_host"),
    "redis": ("redis", "airflow_broker_host"),
}


def names_of(kind: str) -> tuple[str, ...]:
    """Every variable that a rotation writes."""
    return (*SECRETS[kind], *TEMPORARY.get(kind, ()), *KEPT.get(kind, ()), MARKER, RETIRED)


def is_secret(name: str) -> bool:
    return name != MARKER and not name.endswith("_login")


def marker_problem(marker: object) -> str | None:
    """What is wrong with the record of an unfinished rotation."""
    if not marker:
        return None
    if not isinstance(marker, Mapping) or marker.get("secret") not in STEPS:
        return f"is no record of a rotation, which has secret ({', '.join(KINDS)}) and stage"
    stage = marker.get("stage")
    if not isinstance(stage, int) or not 1 <= stage <= len(STEPS[marker["secret"]]):
        return f"has stage {stage}, and a rotation of {marker['secret']} has 1 to {len(STEPS[marker['secret']])}"
    return None


def unfinished(marker: object) -> str:
    """What is being rotated; empty where nothing is."""
    return str(marker["secret"]) if marker and isinstance(marker, Mapping) and not marker_problem(marker) else ""


def begin(kind: object, marker: object) -> int:
    """The state that the file has, 0 before the first; refuses what is not to be rotated now."""
    if kind not in STEPS:
        raise RotationError("rotate", f"is {kind!r}" if kind else "is not set", f"choose one: -e rotate={'|'.join(KINDS)}")
    problem = marker_problem(marker)
    if problem:
        raise RotationError(MARKER, problem, "restore the file of secrets, or remove the line if no rotation is unfinished")
    running = unfinished(marker)
    if running and running != kind:
        raise RotationError(
            f"rotate={kind}", f"a rotation of {running} is unfinished", f"finish it first, with -e rotate={running}"
        )
    return int(marker["stage"]) if running and isinstance(marker, Mapping) else 0


def enter(kind: str, number: int, values: Values) -> Changes:
    """What of the file differs in the state; with the record of it, in the same write."""
    step = STEPS[kind][number - 1]
    before = values.get(MARKER)
    marker = {**before} if isinstance(before, Mapping) else {}
    marker.pop("until", None)
    marker |= {"secret": kind, "stage": number}
    if kind == "tls" and number == 1:
        issuer = pki.issuer_of(pki.load_certificates(values[CA_CERTIFICATE]), pki.load_private_key(values[CA_KEY]))
        marker["replaces"] = pki.fingerprint(issuer)
    changes = {**step.change(values), MARKER: marker}
    if step.retire:
        changes[RETIRED] = json.dumps(step.retire(values))
    return changes


def finish(kind: str) -> Changes:
    return dict.fromkeys((MARKER, RETIRED, *TEMPORARY.get(kind, ())))


def token_seconds(config: Mapping[str, Any]) -> int:
    """How long a token that was made just now may still start or carry a task."""

    def of(section: str, key: str, default: int) -> float:
        return float((config.get(section) or {}).get(key, default))

    longest = max(
        TOKEN_SECONDS,
        of("scheduler", "task_queued_timeout", TOKEN_SECONDS),
        of("execution_api", "jwt_expiration_time", TOKEN_SECONDS),
    )
    return int(longest + of("api_auth", "jwt_leeway", 10) + CLOCKS)


def later(seconds: float) -> str:
    return (pki.now() + datetime.timedelta(seconds=seconds)).strftime(TIME)


def seconds_until(time: str) -> float:
    until = datetime.datetime.strptime(time, TIME).replace(tzinfo=datetime.timezone.utc)
    return (until - pki.now()).total_seconds()


# The file, edited in place


def line_of(name: str, value: Any) -> str:
    """A plain line; JSON is YAML too."""
    if isinstance(value, str) and "\n" in value:
        return airflow_secrets.plain_line(name, value)
    return f"{name}: {json.dumps(value, ensure_ascii=False)}\n"


def edited(text: str, lines: Mapping[str, str | None]) -> str:
    """The file's text with other lines for these variables (None: without them); all else stays to the letter."""
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader) if text.strip() else None
    spans: dict[str, tuple[int, int]] = {}
    for key, value in root.value if isinstance(root, yaml.MappingNode) else []:
        if key.value not in lines:
            continue
        if key.value in spans:
            raise ValueError(f"defines {key.value} twice")
        start, end = key.start_mark.index, value.end_mark.index
        # A block's end is where the next line begins, after the empty ones.
        spans[key.value] = (start, start + len(text[start:end].rstrip()))
    for name, (start, end) in sorted(spans.items(), key=lambda item: -item[1][0]):
        stop = text.find("\n", end)
        stop = len(text) if stop < 0 else stop
        rest, line = text[end:stop], lines[name]
        if line is None:
            text = text[:start] + text[stop + 1 :]
        elif "\n" in line.rstrip("\n") and rest.strip():
            text = f"{text[:start]}{rest.strip()}\n{line.rstrip()}{text[stop:]}"
        else:
            text = f"{text[:start]}{line.rstrip()}{text[end:]}"
    added = [line for name, line in lines.items() if line is not None and name not in spans]
    return airflow_secrets.appended(text, added)
