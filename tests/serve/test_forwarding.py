"""Behind a proxy: the server's own address is the one that clients see, if the proxy is trusted."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serve.allowed_hosts import AllowedHosts
from serve.app import create_app
from serve.forwarding import ProxySettings, trusted_from
from serve.settings import ServeSettings
from serve.state import ServerState
from spd_deploy.domain.errors import BadSetting
from tests.serve.clients import series_of, wait_until_settled
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.wire import listening

PROXY = "10.1.2.3"
SEEN = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "api.example.org",
    "X-Forwarded-Prefix": "/models/sst2",
}
OUTSIDE = "https://api.example.org/models/sst2"


@pytest.fixture(params=["the prefix is taken off", "the prefix stays"])
def before(request: pytest.FixtureRequest) -> str:
    """What stands before a path when the request arrives."""
    return "" if request.param == "the prefix is taken off" else "/models/sst2"


@pytest.fixture
def trusting(tmp_path: Path) -> Iterator[TestClient]:
    """A proxy of a server that trusts it."""
    yield from proxy_of(tmp_path, ProxySettings(trusted=trusted_from("127.0.0.1, 10.0.0.0/8")))


def proxy_of(folder: Path, forwarding: ProxySettings, address: str = PROXY) -> Iterator[TestClient]:
    state = ServerState()
    app = create_app(
        lambda: fake_served(folder, FakeSession()),
        ServeSettings(),
        state=state,
        forwarding=forwarding,
        hosts=AllowedHosts(names=("*", "testserver", "api.example.org")),
    )
    with TestClient(app, client=(address, 5)) as client:
        wait_until_settled(state)
        yield client


def addresses_in(html: str) -> set[str]:
    return set(re.findall(r"curl (\S+?)/(?:v1/classify|predict)\b", html))


def test_the_docs_call_the_address_that_clients_see(trusting: TestClient, before: str) -> None:
    """Examples name the proxy's scheme, host and prefix, whether it takes the prefix off or not."""
    html = trusting.get(f"{before}/docs", headers=SEEN).text

    assert addresses_in(html) == {OUTSIDE}


def test_everything_answers_under_the_prefix(trusting: TestClient, before: str) -> None:
    """Answers are those without a proxy, the description has the prefix, and paths are counted."""
    asked = trusting.post(f"{before}/predict", json={"inputs": "a"}, headers=SEEN)
    plain = trusting.post("/predict", json={"inputs": "a"})
    described = trusting.get(f"{before}/openapi.json", headers=SEEN).json()
    counted = trusting.get(f"{before}/metrics", headers=SEEN).text

    assert (asked.status_code, asked.json()) == (200, plain.json())
    assert described["servers"] == [{"url": "/models/sst2"}]
    assert "servers" not in trusting.get("/openapi.json").json()
    assert series_of(counted, 'spd_requests_total{code="200",route="/predict"}') == [2.0]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_demo_page_needs_no_slash(tmp_path: Path, slash: str) -> None:
    """A browser at the prefix itself finds the model, with or without a slash at the end."""
    forwarding = ProxySettings(root_path="/models/sst2")
    with listening(fake_served(tmp_path, FakeSession()), forwarding=forwarding) as wire:
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
             f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000",
             f"http://127.0.0.1:{wire.port}/models/sst2{slash}"],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip

    assert "<title>fake \u2013 spd serve</title>" in done.stdout
    assert f"curl http://127.0.0.1:{wire.port}/models/sst2/v1/classify" in done.stdout


def test_the_prefix_itself_is_the_root(tmp_path: Path) -> None:
    """A prefix without a slash at its end is the demo page, and takes TEI's POST."""
    for client in proxy_of(tmp_path, ProxySettings(root_path="/models/sst2")):
        pages = [client.get(path) for path in ("/models/sst2", "/models/sst2/", "/")]
        asked = client.post("/models/sst2", json={"inputs": "a"})

        assert {(page.status_code, page.text) for page in pages} == {(200, pages[0].text)}
        assert asked.json() == client.post("/predict", json={"inputs": "a"}).json()


def test_a_root_path_needs_no_header(tmp_path: Path, before: str) -> None:
    """Where the proxy does not tell its prefix, the flag does, for everybody."""
    for client in proxy_of(tmp_path, ProxySettings(root_path="/models/sst2")):
        html = client.get(f"{before}/docs", headers={"Host": "api.example.org"}).text

        assert addresses_in(html) == {"http://api.example.org/models/sst2"}


@pytest.mark.parametrize("address", ["11.0.0.1", "::ffff:1", "testclient", "::1"])
def test_nobody_else_is_believed(tmp_path: Path, address: str) -> None:
    """The headers of whom the server was not told to trust change nothing."""
    forwarding = ProxySettings(trusted=trusted_from("10.0.0.0/8"))
    for client in proxy_of(tmp_path, forwarding, address):
        assert addresses_in(client.get("/docs", headers=SEEN).text) == {"http://testserver"}


def test_nobody_is_believed_unless_told(tmp_path: Path) -> None:
    """Without the flag the headers are any client's."""
    for client in proxy_of(tmp_path, ProxySettings(), "127.0.0.1"):
        assert addresses_in(client.get("/docs", headers=SEEN).text) == {"http://testserver"}


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({"X-Forwarded-Proto": "https"}, "https://testserver"),
        ({"X-Forwarded-Proto": "https, http"}, "https://testserver"),
        ({"X-Forwarded-Prefix": "/a/"}, "http://testserver/a"),
        ({"X-Forwarded-Prefix": "/a, /b"}, "http://testserver/a/b"),
        ({"X-Forwarded-Prefix": "/"}, "http://testserver"),
        ({"X-Forwarded-Host": "[::1]:8443"}, "http://[::1]:8443"),
        ({"X-Forwarded-Host": "a.example, b.example"}, "http://a.example"),
    ],
)
def test_several_proxies_are_read_from_the_outermost(
    trusting: TestClient, headers: dict[str, str], address: str
) -> None:
    """What clients see is what the first of the proxies tells; prefixes are joined."""
    assert addresses_in(trusting.get("/docs", headers=headers).text) == {address}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Proto": "javascript"},
        {"X-Forwarded-Host": 'x"><script>'},
        {"X-Forwarded-Host": "user@host"},
        {"X-Forwarded-Prefix": "a"},
        {"X-Forwarded-Prefix": '/"><script>'},
        {"X-Forwarded-Prefix": "//evil.example"},
    ],
)
def test_what_a_proxy_lets_through_is_checked(
    trusting: TestClient, headers: dict[str, str]
) -> None:
    """A client's nonsense that a trusted proxy passes on is refused, not shown."""
    answer = trusting.get("/docs", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (400, "SPD_BAD_REQUEST")
    assert next(iter(headers)) in answer.json()["error"]


@pytest.mark.parametrize("spelled", ["localhost", "10.0.0.0/99", "1.2.3", "10.0.0.1/8", ",", "a*"])
def test_what_is_no_address_is_refused(spelled: str) -> None:
    """A proxy is named by its address or network."""
    with pytest.raises(BadSetting, match="neither an address nor a network"):
        trusted_from(spelled)


@pytest.mark.parametrize("root", ["models", "/a/", "/", "//a", "/a b", "https://a.example/b"])
def test_what_is_no_prefix_is_refused(root: str) -> None:
    """A prefix is a path from the root, without a slash at its end."""
    with pytest.raises(BadSetting, match="root-path"):
        ProxySettings(root_path=root)


def test_everybody_can_be_trusted() -> None:
    """A star stands for every address of both families."""
    everybody = ProxySettings(trusted=trusted_from("*"))

    assert all(map(everybody.trusts, ["1.2.3.4", "::1", "fe80::1"]))
