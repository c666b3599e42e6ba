# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is installed into a release, with stand-ins for Airflow and Celery; Flower's real pages are tested on the lab."""

from __future__ import annotations

import importlib.util
import pathlib
import ssl
import sys
import types
from typing import Any

import pytest

FILE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "airflow" / "files" / "windfarm_airflow.py"
CONFIG = {"task_acks_late": True}
TOKEN = "eyJhbGciOi"


class FakeRequest:
    """What QuietRequest uses of celery.worker.request.Request."""

    def __init__(self, message: dict[str, str], hostname: str = "") -> None:
        self._request_dict = dict(message)
        self._args = TOKEN
        self._argsrepr = message["argsrepr"]
        self._kwargsrepr = message["kwargsrepr"]
        self.hostname = hostname

    def info(self, safe: bool = False) -> dict[str, str]:
        return {"args": self._argsrepr if safe else self._args, "kwargs": self._kwargsrepr}


@pytest.fixture(name="module")
def _module(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Task:
        Request: Any = "celery.worker.request:Request"

    class AMQP:
        argsrepr_maxsize = kwargsrepr_maxsize = 1024

    modules: dict[str, dict[str, Any]] = {
        "airflow.providers.celery.executors.default_celery": {"DEFAULT_CELERY_CONFIG": CONFIG},
        "celery.app.amqp": {"AMQP": AMQP},
        "celery.app.task": {"Task": Task},
        "celery.worker.request": {"Request": FakeRequest},
    }
    for name, content in modules.items():
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType(parts[count - 1]))
        sys.modules[name].__dict__.update(content)
    spec = importlib.util.spec_from_file_location("windfarm_airflow", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return types.SimpleNamespace(module=module, task=Task, amqp=AMQP)


def test_the_address_comes_from_the_unit(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_ADDRESS", "192.0.2.3")
    assert module.module.hostname() == "192.0.2.3"


def test_both_drivers_verify_the_database_alike(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def tls(query: str) -> Any:
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"postgresql+psycopg2://u:p@h/n?{query}")
        return module.module.DATABASE_TLS["ssl"]

    authority = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    full, ca = (tls(f"sslmode={mode}&sslrootcert={authority}") for mode in ("verify-full", "verify-ca"))
    assert full.check_hostname and not ca.check_hostname
    assert full.verify_mode == ca.verify_mode == ssl.CERT_REQUIRED
    assert tls("sslmode=require") == "require"


def test_celery_is_not_touched_before_somebody_uses_it(module: Any) -> None:
    assert module.task.Request == "celery.worker.request:Request"
    assert not hasattr(module.module, "__path__")
    assert module.amqp.argsrepr_maxsize == 1024


def test_the_configuration_is_the_providers_own_object(module: Any) -> None:
    # The provider lays any other over the configuration of a team.
    assert module.module.CELERY_CONFIG is CONFIG
    assert CONFIG["task_acks_late"] and CONFIG["result_backend_always_retry"]


def test_no_request_shows_its_arguments(module: Any) -> None:
    assert module.module.CELERY_CONFIG
    request = module.task.Request({"argsrepr": TOKEN, "kwargsrepr": TOKEN, "id": "1"}, hostname="w")
    assert request.hostname == "w"
    shown = [request.info(), request.info(safe=True), request._argsrepr, request._kwargsrepr, request._request_dict]
    assert TOKEN not in str(shown)
    assert request._args == TOKEN, "the task itself needs it"
    assert module.amqp.argsrepr_maxsize == module.amqp.kwargsrepr_maxsize == 0
