# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report as text and as a page, from answers as module airflow_status gives them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.plugin_utils import status_page, status_picture, status_report

RELEASE = "3.3.2-1f0c2b9d4e"


def unit(name: str, component: str = "", **changes: Any) -> dict[str, Any]:
    stem, _dash, colour = name.removesuffix(".service").rpartition("-")
    return {
        "name": name,
        "component": component,
        "instance": stem if "@" in name and colour in ("a", "b") else "",
        "state": "active",
        "substate": "running",
        "result": "success",
        "since": "2026-11-22T01:59:39Z",
        "uptime": 7300,
        "health": "well",
        "enabled": "enabled",
        "restarts": 0,
        "memory": 97 * 2**20,
        "release": RELEASE if name.startswith("airflow-") else "",
        "current": True,
        "tasks": [],
        "queues": [],
        "slots": None,
        **changes,
    }


IDLE: dict[str, Any] = {
    "state": "inactive",
    "substate": "dead",
    "health": "idle",
    "enabled": "disabled",
    "memory": None,
    "uptime": None,
}


def worker(
    name: str = "default", serving: str = "a", queues: tuple[str, ...] = ("default",), **changes: Any
) -> list[dict[str, Any]]:
    """Both colours of an instance."""
    own = {"queues": list(queues), "slots": 16}
    return [
        unit(f"airflow-worker@{name}-{colour}.service", "worker", **{**own, **(changes if colour == serving else IDLE)})
        for colour in ("a", "b")
    ]


def host(groups: list[str], *units: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "reachable": True,
        "groups": groups,
        "host": {
            "debian": "12.12",
            "python": "3.11.2",
            "drained": False,
            "packages": {"postgresql-15": "15.14-0+deb12u1", "redis-server": "5:7.0.15-1~deb12u5"},
        },
        "units": list(units),
        "health": {},
        "dags": {},
        "queues": {},
        "certificates": [],
        "backup": {},
        "problems": [],
        "notes": [],
        **more,
    }


def control(**more: Any) -> dict[str, Any]:
    names = ("scheduler", "webserver", "dag_processor", "triggerer")
    units = [unit(f"airflow-{name.replace('_', '-')}.service", name) for name in names]
    return host([f"airflow_{name}" for name in names], *units, **more)


def database(**more: Any) -> dict[str, Any]:
    units = unit("postgresql@15-main.service", "postgresql"), unit("redis-server.service", "redis")
    return host(["postgresql", "redis"], *units, **more)


def gone(groups: list[str], why: str = "unreachable: no route to host") -> dict[str, Any]:
    return {**host(groups), "reachable": False, "host": {}, "problems": [why]}


def use(**changes: Any) -> dict[str, Any]:
    return {"dags": 0, "paused": 0, "examples": [], "waiting": 0, "running": 0, "later": 0, "length": 0, **changes}


def asked(queues: dict[str, Any], running: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"queues": queues, "taken": 0, "running": running or {}, "broker_problem": ""}


# --- text ---------------------------------------------------------------------------------------------------------------
BACKUP = {
    "id": "20261122T051500Z",
    "time": "2026-11-22T05:15:00Z",
    "bytes": 12_300_000,
    "count": 7,
    "fernet": "aaaa",
    "copied_to": "",
    "schedule": "daily",
}
WORKERS = {"worker1": [{"queues": ["default"]}]}


def report(workers: Any = None, **hosts: Any) -> dict[str, Any]:
    return status_report.collect({name: {"status": status} if status else None for name, status in hosts.items()}, workers)


def text(workers: Any = None, **hosts: Any) -> list[str]:
    return status_report.text(report(workers, **hosts))


def warnings(workers: Any = None, **hosts: Any) -> list[str]:
    return [f"{one['about']}: {one['warning']}" for one in report(workers, **hosts)["warned"]]


def test_one_screen() -> None:
    queues = asked({"default": use(dags=2, examples=["a", "b"], running=1)}, {"i1": {"name": "a.b", "run": "r", "seconds": 130}})
    lines = text(
        WORKERS,
        db1=database(backup=BACKUP, certificates=[certificate()]),
        control1=control(queues=queues),
        worker1=host(["airflow_worker"], *worker(tasks=["i2"]), *draining("i1")),
    )
    (seen,) = (line for line in lines if line.startswith("   seen at"))
    (saved,) = (line for line in lines if line.startswith("   last backup"))
    assert " ago, 12.3 MB, of Fernet key aaaa; 7 backups kept on db1, copied to no other place" in saved
    assert [line for line in lines if line not in (seen, saved)] == [
        "",
        "   host      component      health    version   up  tasks  memory",
        "   db1       postgresql     up        15.14    2 h          97 MB",
        "             redis          up        7.0.15   2 h          97 MB",
        "   control1  scheduler      up        3.3.2    2 h          97 MB",
        "             webserver      up        3.3.2    2 h          97 MB",
        "             dag processor  up        3.3.2    2 h          97 MB",
        "             triggerer      up        3.3.2    2 h          97 MB",
        "   worker1   worker         up        3.3.2    2 h   1/16   97 MB",
        "             worker etl     draining  3.3.2    2 h      1   97 MB",
        "",
        "   queue    waiting  running  slots  DAGs  workers",
        "   default        0        1   1/16     2  worker1",
        "",
        "   draining      worker1: a.b, for 2 min",
        f"   release       {RELEASE} on control1, worker1",
        "   certificates  the only one expires in 41 days, on 2027-01-02: db1 /etc/airflow/tls/ca.pem",
        "",
        "all well",
    ]


def certificate(days: int = 41, path: str = "/etc/airflow/tls/ca.pem") -> dict[str, Any]:
    return {"path": path, "not_after": "2027-01-02T03:04:05Z", "days_left": days, "names": [], "subject": "CN=CA"}


def draining(*tasks: str) -> list[dict[str, Any]]:
    finishing: dict[str, Any] = {
        "state": "deactivating",
        "health": "draining",
        "tasks": list(tasks),
        "queues": ["etl"],
        "slots": 4,
    }
    return [unit("airflow-worker@etl-a.service", **finishing)]


def test_problems_are_marked_and_counted() -> None:
    stopped = unit("redis-server.service", "redis", state="failed", substate="failed", health="ill", memory=None, uptime=None)
    lines = text(
        db1=host(["redis"], stopped, problems=["redis-server.service is failed"]),
        worker1=gone(["airflow_worker"]),
        worker2=None,
    )
    assert lines[-5:] == [
        "! db1: redis-server.service is failed",
        "! worker1: unreachable: no route to host",
        "! worker2: has not answered",
        "",
        "3 problems",
    ]
    assert "!  db1      redis      failed       7.0.15" in lines
    assert "!  worker1  worker     unreachable" in lines


def test_hosts_stay_in_the_order_of_the_inventory() -> None:
    found = report(zeta=database(), alpha=control(), middle=gone(["airflow_worker"]))
    assert list(found["hosts"]) == list(found["cluster"]["components"]) == ["zeta", "alpha", "middle"]


def test_of_two_colours_the_idle_one_is_left_out() -> None:
    found = report(worker1=host(["airflow_worker"], *worker(serving="b")))
    assert [part["unit"] for part in found["cluster"]["components"]["worker1"]] == ["airflow-worker@default-b.service"]


def test_a_worker_without_a_colour_that_serves() -> None:
    drained = host(["airflow_worker"], *worker(**IDLE))
    drained["host"]["drained"] = True
    found = report(WORKERS, worker1=drained, worker2=host(["airflow_worker"], *worker(**IDLE), problems=["x"]))
    states = {name: [(part["state"], part["health"]) for part in own] for name, own in found["cluster"]["components"].items()}
    assert states == {"worker1": [("drained", "off")], "worker2": [("down", "ill")]}
    assert found["cluster"]["health"] == {"worker1": "off", "worker2": "ill"}
    assert found["cluster"]["slots"]["all"] == 0


@pytest.mark.parametrize(
    ("changes", "status", "state"),
    [
        ({"current": False}, {}, "stale"),
        ({"enabled": "disabled"}, {}, "disabled"),
        ({}, {"health": {"components": {}}}, "unhealthy"),
    ],
)
def test_what_runs_and_is_ill_says_why(changes: dict[str, Any], status: dict[str, Any], state: str) -> None:
    found = report(
        c=host(["airflow_scheduler"], unit("airflow-scheduler.service", "scheduler", health="ill", **changes), **status)
    )
    assert [part["state"] for part in found["cluster"]["components"]["c"]] == [state]


def test_many_hosts_that_are_alike_are_one_line() -> None:
    hosts = {f"worker{at}": host(["airflow_worker"], *worker(tasks=["x"])) for at in range(1, 51)}
    lines = text(**hosts, worker51=gone(["airflow_worker"]))
    assert "   worker1 … worker50 (50)  worker     up           3.3.2    50/800" in lines
    assert "!  worker51                 worker     unreachable" in lines
    assert len(lines) < 20


def test_certificates_the_first_to_expire_counts() -> None:
    old_and_new = [certificate(3), certificate(700)]
    found = report(db1=database(certificates=[*old_and_new, certificate(50, "/etc/airflow/tls/redis.pem")]))
    assert found["cluster"]["certificate"]["path"] == "/etc/airflow/tls/redis.pem"
    assert found["cluster"]["certificate"]["count"] == 2


# --- warnings ---------------------------------------------------------------------------------------------------------
SERVING = host(["airflow_worker"], *worker())


def test_a_queue_without_a_worker_that_a_dag_uses() -> None:
    queues = asked({"default": use(dags=1), "gpu": use(dags=1, examples=["train"])})
    assert warnings(WORKERS, control1=control(queues=queues), worker1=SERVING) == [
        "queue gpu: no worker takes it (DAG train); add it to airflow_worker_queues"
    ]
    assert status_report.verdict(report(WORKERS, control1=control(queues=queues), worker1=SERVING)) == "all well, 1 warning"
    # An inventory that cannot be read says nothing of who should.
    assert warnings(None, control1=control(queues=queues), worker1=SERVING) == []


def test_tasks_that_wait_for_workers_that_are_away() -> None:
    queues = asked({"default": use(waiting=3, length=2)})
    assert warnings(WORKERS, control1=control(queues=queues), worker1=gone(["airflow_worker"])) == [
        "queue default: 3 tasks wait and no worker takes them now (worker1 is unreachable)"
    ]
    down = host(["airflow_worker"], *worker(**IDLE))
    assert warnings(WORKERS, control1=control(queues=queues), worker1=down) == [
        "queue default: 3 tasks wait and no worker takes them now (worker1 is down)"
    ]
    # Outside of --limit: nobody has asked it.
    assert warnings(WORKERS, control1=control(queues=queues)) == []


def test_what_should_be_the_same_everywhere() -> None:
    def shipped(revision: str) -> dict[str, Any]:
        return {"revision": revision, "shipped": "2026-11-22T01:59:39Z"}

    other = host(["airflow_worker"], *worker(release="3.3.1-aa"), dags=shipped("b"))
    found = warnings(None, w1=host(["airflow_worker"], *worker(), dags=shipped("a")), w2=other, w3=control(dags=shipped("a")))
    assert found == [
        f"releases: hosts differ: {RELEASE} on w1, w3, 3.3.1-aa on w2; run upgrade.yml or site.yml",
        "DAG files: hosts differ: a on w1, w3, b on w2; run dags.yml",
    ]


def test_another_python_makes_another_release() -> None:
    other = host(["airflow_worker"], *worker(release="3.3.2-aa"))
    other["host"]["python"] = "3.13.5"
    assert warnings(None, w1=host(["airflow_worker"], *worker()), w2=other) == []
    same = host(["airflow_worker"], *worker(release="3.3.2-bb"))
    (told,) = warnings(None, w1=host(["airflow_worker"], *worker()), w2=other, w3=same)
    assert told.startswith("releases: hosts differ: ")


def test_what_finishes_in_its_old_release_is_no_difference() -> None:
    old = unit("airflow-worker@default-b.service", "worker", state="deactivating", health="draining", release="3.3.1-aa")
    assert warnings(None, w1=host(["airflow_worker"], worker()[0], old)) == []


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    lines = text(w1=gone(["airflow_worker"], "unreachable: \x1b[2J\u202eevil\nline"))
    assert "! w1: unreachable: ?[2J?evil?line" in lines


# --- the page ---------------------------------------------------------------------------------------------------------
EVIL = '<script>alert(1)</script>" onload="x\'&\x1b]0;\u202e'
ATTRIBUTES = {"href", "src", "onload", "onclick", "xlink:href", "background"}
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Collects tags and attributes, and sees that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _value in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _value in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(markup: str) -> ET.Element:
    return ET.fromstring(markup)  # noqa: S314  (our own)


def cluster() -> dict[str, Any]:
    return {
        "db1": database(),
        "control1": control(queues=asked({"default": use(dags=1)})),
        "worker1": host(["airflow_worker"], *worker(tasks=["x"])),
        "worker2": gone(["airflow_worker", "airflow_worker_gpu"]),
    }


def hostile() -> dict[str, Any]:
    """Every text that somebody else chooses: DAGs, tasks, hosts, groups, messages."""
    queues = asked({EVIL: use(dags=1, examples=[EVIL], waiting=2)}, {EVIL: {"name": EVIL, "run": EVIL, "seconds": 1}})
    own = unit(f"{EVIL}.service", EVIL, state=EVIL, release=EVIL, health=EVIL)
    busy = worker(name=EVIL, tasks=[EVIL], queues=(EVIL,), release=f"3.3.2-{EVIL}")
    certificate = {"path": EVIL, "not_after": EVIL, "days_left": 1, "names": [EVIL], "subject": EVIL}
    backup = {"id": EVIL, "time": EVIL, "bytes": 1, "count": 1, "fernet": EVIL, "copied_to": EVIL, "schedule": EVIL}
    return {
        EVIL: host([EVIL, f"airflow_worker_{EVIL}"], own, *busy, problems=[EVIL], notes=[EVIL], queues=queues, backup=backup,
                   certificates=[certificate], dags={"revision": EVIL, "shipped": EVIL}),
        f"2{EVIL}": gone([EVIL], EVIL),
    }  # fmt: skip


@pytest.mark.parametrize("hosts", [cluster(), hostile(), {}], ids=["cluster", "hostile", "none"])
def test_the_page_loads_and_runs_nothing(hosts: dict[str, Any]) -> None:
    page = status_page.page(report({}, **hosts))
    read = Reader(page)
    assert not read.tags & {"script", "link", "img", "iframe", "object", "a", "use", "image", "foreignobject"}
    assert not read.attributes & ATTRIBUTES
    assert not re.search(r"url\(|@import|https?:", page)
    assert "default-src 'none'" in page


def test_hostile_names_are_shown_as_text() -> None:
    read = Reader(status_page.page(report({}, **hostile())))
    assert '<script>alert(1)</script>" onload="x\'&?]0;?: <script>' in read.text
    assert "\x1b" not in read.text and "\u202e" not in read.text


@pytest.mark.parametrize("hosts", [cluster(), hostile()], ids=["cluster", "hostile"])
@pytest.mark.parametrize("width", [status_page.WIDE, status_page.NARROW])
def test_the_picture_is_well_formed_and_as_wide_as_it_may_be(hosts: dict[str, Any], width: int) -> None:
    picture = parsed(status_picture.picture(report({}, **hosts), width))
    _left, _top, across, _down = map(float, picture.attrib["viewBox"].split())
    assert 0 < across <= width + 2


def test_groups_hold_hosts() -> None:
    boxes = status_picture.boxes_of(report({}, **cluster())["hosts"])
    assert [(box.title, box.hosts) for box in boxes] == [
        ("webserver · scheduler · dag processor · triggerer", ["control1"]),
        ("postgresql · redis", ["db1"]),
        ("worker", ["worker1"]),
        ("worker · gpu", ["worker2"]),
    ]


def test_many_hosts_are_drawn_small() -> None:
    hosts = {f"worker{at}": host(["airflow_worker"], *worker(tasks=["x"])) for at in range(200)}
    picture = status_picture.picture(report({}, **hosts), status_page.WIDE)
    assert float(parsed(picture).attrib["viewBox"].split()[3]) < 2000
    assert all(f">worker{at}<" in picture for at in range(200))


def test_each_health_has_a_shape_of_its_own() -> None:
    shapes = {health: status_picture.mark(health, 7, 7) for health in status_picture.WORDS}
    without_colour = {re.sub(r' class="\w+"', "", shape) for shape in shapes.values()}
    assert len(without_colour) == len(shapes)


def test_the_address_of_the_entry_is_on_one_host() -> None:
    def entry(held: bool, shared: int = 2) -> dict[str, Any]:
        return host(["haproxy"], entry={"address": "10.0.0.99", "held": held, "shared": shared, "servers": {}})

    assert warnings(None, e1=entry(True), e2=entry(False)) == []
    assert warnings(None, e1=entry(False), e2=entry(False)) == [
        "address 10.0.0.99: is on no entry host; see journalctl -u keepalived there"
    ]
    (told,) = warnings(None, e1=entry(True), e2=entry(True))
    assert told.startswith("address 10.0.0.99: is on e1 and e2, which do not hear each other")
    # It may be on the one that was not asked, or does not answer.
    assert warnings(None, e1=entry(False)) == warnings(None, e1=entry(False), e2=gone(["haproxy"])) == []
