"""Installed into every release of windfarm.airflow; airflow.cfg names what is in here.

[core] hostname_callable = windfarm_airflow.hostname
[celery] celery_config_options = windfarm_airflow.CELERY_CONFIG
[database] sql_alchemy_connect_args_async = windfarm_airflow.DATABASE_TLS
"""

import ctypes
import os
import ssl
import sys
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PR_SET_DUMPABLE = 4
# A worker writes into the results database that a task has begun, and fails the task where it cannot: Celery tries three times
# within milliseconds, so a restart of PostgreSQL cost the tasks that were just being taken. Now it waits, 5 s at most at a time,
# 10 minutes or so in all, after which Airflow itself gives away what was not begun ([scheduler] task_queued_timeout).
PATIENCE = {
    "result_backend_always_retry": True,
    "result_backend_base_sleep_between_retries_ms": 100,
    "result_backend_max_sleep_between_retries_ms": 5000,
    "result_backend_max_retries": 240,
}


def hostname() -> str:
    """How the other hosts reach this one (airflow_address), from the environment of the unit."""
    return os.environ["AIRFLOW_ADDRESS"]


def __getattr__(name: str) -> object:
    """CELERY_CONFIG is the provider's own configuration with PATIENCE; only who asks for it, thus uses Celery, loads Celery.

    The one argument of Airflow's Celery task holds the task's token. Celery shows arguments to whoever asks or listens:
    in message headers, events and answers to inspection, which Flower prints. Only the message's body needs them.
    """
    if name == "DATABASE_TLS":
        # asyncpg takes neither sslmode nor an authority in its URL; here both are those of the other driver's.
        query = dict(parse_qsl(urlsplit(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).query))
        if not query["sslmode"].startswith("verify"):
            return {"ssl": query["sslmode"]}
        context = ssl.create_default_context(cafile=query["sslrootcert"])
        context.check_hostname = query["sslmode"] == "verify-full"
        return {"ssl": context}
    if name != "CELERY_CONFIG":
        raise AttributeError(name)
    from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
    from celery.app.amqp import AMQP
    from celery.app.task import Task
    from celery.worker.request import Request

    if sys.argv[1:3] == ["celery", "worker"]:
        # Tasks run as its user and could read and write its memory. Airflow does this for the supervisors of tasks only.
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    hidden = "(hidden)"

    class QuietRequest(Request):
        """What a worker tells of a task that it has: nothing of the arguments, also of messages that show them."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._argsrepr = self._kwargsrepr = hidden
            self._request_dict.update(argsrepr=hidden, kwargsrepr=hidden)

        def info(self, safe: bool = False) -> Any:
            return super().info(safe=True)

    Task.Request = QuietRequest
    # What a sender writes into headers and events, in characters.
    AMQP.argsrepr_maxsize = AMQP.kwargsrepr_maxsize = 0
    DEFAULT_CELERY_CONFIG.update(PATIENCE)
    globals()[name] = DEFAULT_CELERY_CONFIG
    return DEFAULT_CELERY_CONFIG
