# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import haproxy_server as ha
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError


def server(**changes: Any) -> dict[str, Any]:
    return {"name": "web1", "address": "10.0.0.5", "port": 8080, "verify_name": "", **changes}


def listener(**changes: Any) -> dict[str, Any]:
    return {
        "name": "webserver",
        "bind": "127.0.0.1:8079",
        "certificate": "",
        "certificate_key": "",
        "forwarded": False,
        "redirect": "",
        "servers": [server()],
        "ca_file": "/etc/ca.pem",
        "check_path": ["/api/v2/version"],
        "balance": "leastconn",
        "replay": "safe",
        "timeout": 60,
        **changes,
    }


def render(*listeners: dict[str, Any], content: str = "ca", address: str = "10.0.0.5") -> tuple[str, str]:
    wanted = listeners or (listener(),)
    addresses = {(one["name"], two["name"]): address for one in wanted for two in one["servers"]}
    binds = {one["name"]: [ha.split_bind("", one["bind"])[0]] for one in wanted}
    return ha.render(wanted, binds, addresses, 4096, lambda _path: content)


def line(text: str, start: str) -> str:
    return next(one.strip() for one in text.splitlines() if one.strip().startswith(start))


def test_a_server_is_verified_by_its_address() -> None:
    text, _hash = render()
    assert line(text, "server web1") == (
        "server web1 10.0.0.5:8080 check ssl verify required ca-file /etc/ca.pem verifyhost 10.0.0.5"
    )
    assert line(text, "bind") == "bind 127.0.0.1:8079"


def test_a_name_is_also_what_is_asked_for() -> None:
    text, _hash = render(listener(servers=[server(address="web1.test")]), address="10.0.0.9")
    assert line(text, "server web1").endswith("10.0.0.9:8080 check ssl verify required ca-file /etc/ca.pem "
                                              "verifyhost web1.test sni str(web1.test) check-sni web1.test")  # fmt: skip
    text, _hash = render(listener(servers=[server(verify_name="other.test")]))
    assert "verifyhost other.test sni str(other.test)" in text


def test_without_authority_there_is_no_tls_and_six_has_brackets() -> None:
    text, _hash = render(listener(ca_file="", bind="[::1]:80"), address="fd00::5")
    assert line(text, "server web1") == "server web1 [fd00::5]:8080 check"
    assert line(text, "bind") == "bind [::1]:80"


def test_only_who_asks_for_it_has_everything_sent_twice() -> None:
    assert "disable-l7-retry unless METH_GET" in render()[0]
    text = render(listener(replay="all"))[0]
    assert "disable-l7-retry" not in text
    assert "option http-buffer-request" in text


def test_what_clients_say_of_others_is_dropped() -> None:
    plain, entry = render()[0], render(listener(certificate="/etc/a.pem"))[0]
    assert "del-header X-Forwarded-Proto" in plain
    assert "option forwardfor" not in plain
    assert "set-header X-Forwarded-Proto https" in entry
    for text in (plain, entry):
        assert "del-header X-Forwarded-For" in text
    assert line(entry, "bind") == "bind 127.0.0.1:8079 ssl crt /etc/a.pem alpn h2,http/1.1"


def test_plain_clients_may_be_told_of_too() -> None:
    text = render(listener(forwarded=True))[0]
    assert "option forwardfor" in text and "set-header X-Forwarded-Proto http\n" in text


def test_a_connection_is_kept_open_only_where_every_request_may_be_repeated() -> None:
    safe, everything = render()[0], render(listener(replay="all"))[0]
    assert "option http-server-close" in safe and "http-reuse never" in safe
    assert "option http-server-close" not in everything and "http-reuse always" in everything


def test_a_redirect_has_no_servers() -> None:
    ha.check([listener(redirect="https://[fd00::9]:8443", servers=[])])
    text = render(listener(redirect="https://flows.test", servers=[]))[0]
    assert "    http-request redirect prefix https://flows.test code 308\n" in text
    assert "backend" not in text.split("frontend webserver")[1]


def test_the_hash_knows_the_certificates() -> None:
    text, value = render()
    assert f"    description windfarm.airflow {value}\n" in text
    assert render()[1] == value
    assert render(content="renewed")[1] != value
    assert render(listener(timeout=61))[1] != value
    assert ha.running_hash(f"Name: HAProxy\ndescription: windfarm.airflow {value}\nnode: x\n") == value
    assert ha.running_hash("description: somebody's\n") == ""
    assert ha.running_hash("") == ""


def test_the_address_in_use_is_read_back_and_stays() -> None:
    text, _hash = render(address="fd00::5")
    known = ha.known_addresses(text)
    assert known == {("webserver", "web1"): "fd00::5"}
    assert ha.known_addresses("backend webserver\n server web1 10.0.0.5:80\n") == {}
    assert ha.known_addresses(None) == {}
    assert ha.choose(["10.0.0.1", "10.0.0.2"], "10.0.0.2") == "10.0.0.2"
    assert ha.choose(["10.0.0.1"], "10.0.0.2") == "10.0.0.1"
    assert ha.choose(["127.0.1.1", "10.0.0.1"], None) == "10.0.0.1"
    assert ha.choose(["127.0.1.1"], None) == "127.0.1.1"
    assert ha.choose([], "10.0.0.2") == "10.0.0.2"
    assert ha.choose([], None) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "'a b' is not a name"),
        ({"bind": "8079"}, "is not ADDRESS:PORT"),
        ({"bind": "127.0.0.1:0"}, "is not ADDRESS:PORT"),
        ({"bind": "127.0.0.1:70000"}, "is not ADDRESS:PORT"),
        ({"bind": "[nine]:80"}, "is not ADDRESS:PORT"),
        ({"bind": "127.0.0.1:80\nstats"}, "is not ADDRESS:PORT"),
        ({"ca_file": "/a b"}, "ca_file '/a b' is not a plain absolute path"),
        ({"certificate": "a.pem"}, "certificate 'a.pem' is not"),
        ({"check_path": ["/a b"]}, "check_path '/a b' is not"),
        ({"check_path": ["/x", "version"]}, "check_path 'version' is not"),
        ({"timeout": 0}, "timeout 0"),
        ({"servers": []}, "servers is empty"),
        ({"certificate_key": "/etc/a.key"}, "certificate_key without certificate"),
        ({"redirect": "https://flows.test"}, "redirect wants a URL without path"),
        ({"redirect": "https://flows.test/x", "servers": []}, "redirect wants a URL without path"),
        ({"redirect": "https://flows.test\nacl x", "servers": []}, "redirect wants a URL without path"),
        ({"servers": [server(), server(port=81)]}, "two servers have the name 'web1'"),
        ({"servers": [server(name="a#")]}, "'a#' is not a name"),
        ({"servers": [server(address="1.2.3.4 backup")]}, "is neither an address nor a host name"),
        ({"servers": [server(verify_name="x) y")]}, "is neither an address nor a host name"),
        ({"servers": [server(port=0)]}, "port 0 is not between"),
    ],
)
def test_what_would_not_survive_in_the_file_is_refused(changes: dict[str, Any], message: str) -> None:
    ha.check([listener()])
    with pytest.raises(ServerError) as caught:
        ha.check([listener(**changes)])
    assert message in str(caught.value)
    assert str(caught.value).startswith("haproxy_listeners: ")


def test_two_listeners_differ() -> None:
    with pytest.raises(ServerError, match="two listeners have this name"):
        ha.check([listener(), listener(bind="127.0.0.1:1")])
    with pytest.raises(ServerError, match="another listener has the bind"):
        ha.check([listener(), listener(name="other")])


def test_states_are_read_by_column_name() -> None:
    text = (
        "# pxname,svname,status,check_desc,\n"
        "webserver,FRONTEND,OPEN,,\nwebserver,a,UP,Layer7 check passed,\nwebserver,b,DOWN,Layer6 invalid response,\n"
        "webserver,c,no check,,\nwebserver,d,MAINT,,\nwebserver,BACKEND,UP,,\n\n"
    )
    assert ha.server_states(text) == {"webserver": {"a": "UP", "b": "DOWN (Layer6 invalid response)", "c": "UP", "d": "MAINT"}}
    assert ha.server_states("") == {}


def test_the_alert_that_matters() -> None:
    text = (
        "[NOTICE]   (1) : version\n[ALERT]    (12) : Current worker (520) exited with code 143 (Terminated)\n"
        "[ALERT]    (13) : config : parsing [/x:3] : unknown keyword 'y'\n[ALERT]    (13) : config : Fatal errors found\n"
    )
    assert ha.alert(text) == "config : parsing [/x:3] : unknown keyword 'y'"
    assert ha.alert("a\nlast\n") == "last"
    assert ha.alert("") == "no message"


def test_the_drop_in_names_itself() -> None:
    text, value = ha.drop_in()
    assert f"Environment=WINDFARM_DROP_IN={value}\n" in text
    assert text.startswith(ha.MARK)
