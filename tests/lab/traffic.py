# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What users notice: requests that are sent to the cluster all the time, and how many of them were not answered.

Half of the clients open a connection for each request, half keep theirs, as browsers do: these ask again, once, when a connection
that they had kept ends without an answer, but only with a GET. Everything else that is not an answer below 500 is a failure.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from inventory import Inventory

TIMEOUT = 30
# A read and a write that changes nothing: both are answered out of the database, after the token was verified.
REQUESTS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/api/v2/dags?limit=5", None),
    ("POST", "/api/v2/dags/~/dagRuns/list", {"page_limit": 5}),
    ("GET", "/api/v2/version", None),
)


@dataclass
class Window:
    """What happened between two moments."""

    case: str
    requests: int = 0
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0
    """Of those that were answered: one that waits for a host that is gone waits as long as its client has patience."""
    seconds: float = 0.0

    def __str__(self) -> str:
        shown = f": {'; '.join(self.failed[:6])}" if self.failed else ""
        return f"{self.case:46} {self.requests:5} requests {len(self.failed):3} failed, slowest {self.slowest:5.1f} s{shown}"

    def failures(self, method: str) -> int:
        return sum(f" {method} " in line for line in self.failed)


class Client(threading.Thread):
    def __init__(self, traffic: Traffic, keep: bool, offset: int) -> None:
        super().__init__(daemon=True)
        self.traffic, self.keep, self.offset = traffic, keep, offset
        self.link: http.client.HTTPConnection | None = None
        self.asked = 0.0
        """When its present request began."""

    def run(self) -> None:
        number = self.offset
        while not self.traffic.stop.is_set():
            method, path, body = REQUESTS[number % len(REQUESTS)]
            number += 1
            begin = self.asked = time.monotonic()
            problem = self.ask(method, path, body)
            self.traffic.note(begin, method, problem)
            self.traffic.stop.wait(self.traffic.pause)
        self.close()

    def close(self) -> None:
        if self.link:
            self.link.close()
        self.link = None

    def ask(self, method: str, path: str, body: Any, again: bool = False) -> str:
        # As every client of a pool does: what the other side has closed is not used.
        if self.link and self.link.sock and select.select([self.link.sock], [], [], 0)[0]:
            self.close()
        reused = self.link is not None
        try:
            self.link = self.link or self.traffic.connect()
            self.link.request(method, path, json.dumps(body) if body else None, self.traffic.headers)
            answer = self.link.getresponse()
            answer.read()
            problem = f"status {answer.status}" if answer.status >= 500 else ""
            if answer.status in (401, 403):
                problem = f"status {answer.status}"
            closing = answer.will_close
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # What a lost host had in its hands costs the client its whole patience, and counts.
            if reused and method == "GET" and not again and not isinstance(error, TimeoutError):
                return self.ask(method, path, body, True)
            return f"{'kept connection, ' if reused else ''}{error!r}"
        if closing or not self.keep:
            self.close()
        return problem


class Traffic:
    """Clients that ask from `with` to its end."""

    def __init__(self, inventory: Inventory, clients: int = 4, pause: float = 0.15) -> None:
        self.url = urlsplit(inventory.url)
        self.stop = threading.Event()
        self.pause = pause
        self._context = ssl.create_default_context(cadata=inventory.ca) if self.url.scheme == "https" else None
        airflow = inventory.airflow()
        airflow.get("version")
        self.headers = {"Authorization": f"Bearer {airflow.token()}", "Content-Type": "application/json"}
        self._lock = threading.Lock()
        self._samples: list[tuple[float, float, str, str]] = []
        self._clients = [Client(self, bool(number % 2), number) for number in range(clients)]
        self.windows: list[Window] = []

    def connect(self) -> http.client.HTTPConnection:
        host = str(self.url.hostname)
        if self._context:
            return http.client.HTTPSConnection(host, self.url.port, timeout=TIMEOUT, context=self._context)
        return http.client.HTTPConnection(host, self.url.port, timeout=TIMEOUT)

    def note(self, begin: float, method: str, problem: str) -> None:
        with self._lock:
            self._samples.append((begin, time.monotonic(), method, problem))

    def __enter__(self) -> Traffic:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop.set()
        for client in self._clients:
            client.join(TIMEOUT + 5)

    @contextlib.contextmanager
    def window(self, case: str) -> Iterator[Window]:
        """Requests that had not ended when it began, or began before it ended."""
        found, begin = Window(case), time.monotonic()
        yield found
        end = time.monotonic()
        # What is under way belongs to it.
        deadline = end + TIMEOUT + 5
        while time.monotonic() < deadline and any(client.is_alive() and client.asked < end for client in self._clients):
            time.sleep(0.2)
        with self._lock:
            inside = [sample for sample in self._samples if sample[1] >= begin and sample[0] <= end]
        found.requests = len(inside)
        found.seconds = end - begin
        found.slowest = max((until - since for since, until, _method, problem in inside if not problem), default=0.0)
        found.failed = [f"{since - begin:.1f} s {method} {problem}" for since, _until, method, problem in inside if problem]
        self.windows.append(found)
        print(found, flush=True)

    def table(self) -> str:
        return "\n".join(map(str, self.windows))
