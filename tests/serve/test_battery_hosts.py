"""Host names: unknown ones are refused or not shown, and probes by address always work."""

from pathlib import Path

import pytest

from serve.allowed_hosts import AllowedHosts, allowed_hosts_from
from spd_deploy.domain.errors import BadSetting
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.wire import listening, request

LOCAL = allowed_hosts_from((), host="127.0.0.1", is_loopback=True)
OPEN = allowed_hosts_from((), host="0.0.0.0", is_loopback=False)
LISTED = allowed_hosts_from(["spd.example.com", "*.internal"], host="0.0.0.0", is_loopback=False)


@pytest.mark.parametrize(
    ("hosts", "host", "is_known"),
    [
        (LOCAL, "localhost:8000", True),
        (LOCAL, "LOCALHOST.", True),
        (LOCAL, "a.localhost", True),
        (LOCAL, "127.0.0.1", True),
        (LOCAL, "[::1]:8000", True),
        (LOCAL, "", True),
        (LOCAL, "evil.example", False),
        (LOCAL, "localhost.evil.example", False),
        (LOCAL, "127.0.0.1.evil.example", False),
        (OPEN, "10.2.3.4:8000", True),
        (OPEN, "evil.example", False),
        (LISTED, "spd.example.com:443", True),
        (LISTED, "a.b.internal", True),
        (LISTED, "internal", False),
        (LISTED, "xspd.example.com", False),
    ],
)
def test_known_hosts_are_addresses_and_listed_names(
    hosts: AllowedHosts, host: str, is_known: bool
) -> None:
    """An address is known, a name where it is listed or below a listed ``*.``, in any case."""
    assert hosts.knows(host) is is_known


@pytest.mark.parametrize("spelled", ["a b", "http://x", "x:80", "*x", "x/"])
def test_what_is_no_host_name_is_refused(spelled: str) -> None:
    """A port, a path or a scheme in the option ends the start with a message."""
    with pytest.raises(BadSetting, match="allowed-hosts"):
        allowed_hosts_from([spelled], host="127.0.0.1", is_loopback=True)


def test_an_unknown_host_is_refused_and_a_probe_by_address_is_not(tmp_path: Path) -> None:
    """A page that rebinds its name gets 400 on every path; a kubelet's probe gets its answer."""
    with listening(fake_served(tmp_path, FakeSession()), hosts=LOCAL) as wire:
        for path in ("/livez", "/docs", "/predict"):
            evil = request("GET", path).replace(b"Host: x", b"Host: evil.example")
            assert wire.say(evil)[0].status == 400
        probe = request("GET", "/readyz").replace(b"Host: x", b"Host: 10.2.3.4:8000")
        assert wire.say(probe)[0].status == 200


def test_an_open_server_answers_to_every_name_and_shows_none(tmp_path: Path) -> None:
    """By default a server of others takes any name, and its examples name its own address."""
    with listening(fake_served(tmp_path, FakeSession()), hosts=OPEN) as wire:
        (page,) = wire.say(request("GET", "/docs").replace(b"Host: x", b"Host: evil.example"))

        assert page.status == 200
        assert b"evil.example" not in page.body
        assert f"http://127.0.0.1:{wire.port}/".encode() in page.body
