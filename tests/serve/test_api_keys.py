"""API keys: who has one is answered, in every protocol; who has none is told so in its own form."""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from serve import connection_pool
from serve.access import Access, AnonymousAccess
from serve.api_keys import MIN_CHARACTERS, ApiKeys, KeyFile, read_keys
from spd_deploy.domain.errors import BadSetting
from tests.serve.clients import client_of
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.wire import Wire, listening, request

KEY, OTHER = "a-key-of-the-web-frontend", "another-key-for-batch-jobs"
FILE = f"# clients\n\nweb:{KEY}\n  {OTHER}  \n"
PROBES = {
    *("/livez", "/readyz", "/health", "/ping", "/v2/health/live", "/v2/health/ready"),
    *("/v2/models/fake/ready", "/v2/models/fake/versions/{version}/ready"),
}
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":#"),
               min_size=MIN_CHARACTERS, max_size=40)  # fmt: skip


def key_file(folder: Path, text: str = FILE) -> Path:
    file = folder / "keys"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    return file


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a server that asks for keys."""
    access = Access(keys=KeyFile(key_file(tmp_path)))
    with client_of(fake_served(tmp_path, FakeSession()), access=access) as client:
        yield client


def endpoints(client: TestClient) -> Iterator[tuple[str, str]]:
    """Every method and path that the description has, and those that it leaves out."""
    described = client.get("/openapi.json", headers={"x-api-key": KEY}).json()["paths"]
    for path, methods in described.items():
        yield from ((method.upper(), path.replace("{name}", "fake")) for method in methods)
    yield from (("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/rerank"))
    yield from (("POST", f"/v2/repository/models/fake/{verb}") for verb in ("load", "unload"))


def test_every_path_but_a_probe_needs_a_key(guarded: TestClient) -> None:
    """Without a key each method of each path is refused with 401 and how to log in."""
    found = list(endpoints(guarded))
    assert len(found) > 30
    for method, path in found:
        answer = guarded.request(method, path)

        assert (answer.status_code == 401) is (path not in PROBES), (method, path)
        if answer.status_code == 401:
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.headers["X-Request-Id"]


def test_a_full_server_still_answers_every_probe() -> None:
    """The paths that need no key are those that a full server answers, but for the models' own."""
    assert {path.encode() for path in PROBES if "fake" not in path} == connection_pool.PROBES


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY}"},
        {"X-Api-Key": OTHER},
        {"Authorization": "Basic dXNlcjpwYXNz", "x-api-key": OTHER},
    ],
)
def test_a_known_key_is_answered(guarded: TestClient, headers: dict[str, str]) -> None:
    """A key may come in either header, and beside the credentials of a proxy."""
    body = {"inputs": [{"text": "a film"}]}

    assert guarded.post("/v1/classify", json=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer web:{KEY}"},
        {"Authorization": f"Bearer {hashlib.sha256(KEY.encode()).hexdigest()}"},
        {"Authorization": "Bearer wrong-wrong-wrong", "x-api-key": KEY},
        {"x-api-key": ""},
        {"x-api-key": KEY.upper()},
        {"x-api-key": "ÿ" * 20},
    ],
)
def test_another_key_is_not(guarded: TestClient, headers: dict[str, str]) -> None:
    """What differs in one character, is a digest, or comes by another scheme is no key."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    answer = guarded.post("/v1/classify", json={"inputs": [{"text": "a"}]}, headers=raw)

    assert answer.status_code == 401
    assert answer.json()["code"] == "SPD_UNAUTHENTICATED"
    assert KEY not in answer.text


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/classify", {"error", "error_type", "code", "request_id"}),
        ("/predict", {"error", "error_type", "code", "request_id"}),
        ("/v2/models/fake/infer", {"error", "error_type", "code", "request_id"}),
        ("/classify", {"message", "type", "param", "code"}),
    ],
)
def test_each_protocol_refuses_in_its_own_form(
    guarded: TestClient, path: str, form: set[str]
) -> None:
    """The body of a 401 is that of the protocol's other errors."""
    body = guarded.post(path, json={}).json()

    assert set(body["error"] if isinstance(body["error"], dict) else body) == form


@pytest.mark.parametrize(
    ("anonymous", "probe", "metrics"),
    [(AnonymousAccess.NONE, 401, 401), (AnonymousAccess.PROBES, 200, 401),
     (AnonymousAccess.METRICS, 200, 200)],
)  # fmt: skip
def test_the_operator_says_what_needs_none(
    tmp_path: Path, anonymous: AnonymousAccess, probe: int, metrics: int
) -> None:
    """Probes and metrics are open or not, as chosen; the model's work never is."""
    access = Access(keys=KeyFile(key_file(tmp_path)), anonymous=anonymous)
    with client_of(fake_served(tmp_path, FakeSession()), access=access) as client:
        assert {client.get(path).status_code for path in ("/livez", "/readyz", "/ping")} == {probe}
        assert client.get("/metrics").status_code == metrics
        assert client.post("/v1/classify", json={}).status_code == 401


def test_the_description_says_that_a_key_is_needed(guarded: TestClient, fake: TestClient) -> None:
    """OpenAPI names both headers, and 401 for what needs a key; without keys it has neither."""
    described = guarded.get("/openapi.json", headers={"x-api-key": KEY}).json()

    classify, livez = (described["paths"][path] for path in ("/v1/classify", "/livez"))
    assert set(described["components"]["securitySchemes"]) == {"bearer", "x-api-key"}
    assert "401" in classify["post"]["responses"] and classify["post"]["security"]
    assert "401" not in livez["get"]["responses"] and "security" not in livez["get"]
    assert "OpenAIErrorBody" in str(described["paths"]["/classify"]["post"]["responses"]["401"])
    assert "401" not in str(fake.get("/openapi.json").json()["paths"]["/v1/classify"])


@given(st.lists(KEYS, min_size=1, max_size=6, unique=True), KEYS)
def test_only_a_key_of_the_file_has_a_client(keys: list[str], other: str) -> None:
    """For any keys, each is its own client's, and a key that is not there is nobody's."""
    digests = tuple((hashlib.sha256(k.encode()).digest(), str(i)) for i, k in enumerate(keys))
    found = ApiKeys(digests)

    assert [found.client_of(key) for key in keys] == [str(i) for i in range(len(keys))]
    assert (found.client_of(other) is None) is (other not in keys)


def test_names_tell_clients_apart(tmp_path: Path) -> None:
    """A key without a name is called by a piece of its digest; two keys may have one name."""
    keys = read_keys(key_file(tmp_path, f"web:{KEY}\nweb:{OTHER}\n{KEY}{OTHER}"))

    assert keys.client_of(KEY) == keys.client_of(OTHER) == "web"
    digest = hashlib.sha256((KEY + OTHER).encode()).hexdigest()
    assert keys.client_of(KEY + OTHER) == f"key-{digest[:8]}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no API key"),
        ("# only a comment\n\n", "holds no API key"),
        ("web:too-short", "line 1: the key has fewer than 16 characters"),
        (f"# x\nweb team:{KEY}", "line 2: the name has other characters"),
        (f":{KEY}", "line 1: the name has other characters"),
        (f"{KEY} # mine", "line 1: the key has other characters"),
        (f"{KEY}é", "line 1: the key has other characters"),
        (f"a:{KEY}\nb:{KEY}", "line 2: the key stands in line 1 already"),
    ],
)
def test_a_file_that_is_wrong_is_refused_without_showing_a_key(
    tmp_path: Path, text: str, told: str
) -> None:
    """The line is named, its key is not."""
    with pytest.raises(BadSetting) as refused:
        KeyFile(key_file(tmp_path, text))

    assert told in str(refused.value)
    assert KEY not in str(refused.value) and "too-short" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """One that is missing, and one that is no text."""
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(BadSetting, match="cannot read the API keys"):
        KeyFile(file)


def test_a_change_counts_at_once_and_a_broken_one_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New keys replace the old ones; a file that became unusable is logged once, without keys."""
    file = KeyFile(key_file(tmp_path, KEY))
    with caplog.at_level(logging.WARNING):
        file.refresh()
        assert not caplog.records

        file.path.write_text(f"{OTHER}\n", encoding="utf-8")
        file.refresh()
        assert (file.keys.client_of(KEY), file.keys.client_of(OTHER) is None) == (None, False)

        caplog.clear()
        file.path.write_text("broken", encoding="utf-8")
        file.refresh()
        file.refresh()
    assert file.keys.client_of(OTHER) is not None
    (record,) = caplog.records
    assert "stay as they were" in record.getMessage() and "broken" not in record.getMessage()


def test_a_link_that_is_switched_is_a_change(tmp_path: Path) -> None:
    """Kubernetes replaces a mounted secret by switching a link above it."""
    for name, key in (("old", KEY), ("new", OTHER)):
        (tmp_path / name).mkdir()
        key_file(tmp_path / name, key)
    link = tmp_path / "data"
    link.symlink_to("old")
    file = KeyFile(link / "keys")

    other = tmp_path / "other"
    other.symlink_to("new")
    os.replace(other, link)
    file.refresh()

    assert file.keys.client_of(OTHER) is not None and file.keys.client_of(KEY) is None


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_all_may_read_is_pointed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warns: bool
) -> None:
    """The owner's group may read it, as it must in a container."""
    path = key_file(tmp_path)
    path.chmod(mode)

    with caplog.at_level(logging.WARNING):
        KeyFile(path)

    assert any("every user" in one.getMessage() for one in caplog.records) is warns


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A server on a socket that asks for keys, over gRPC too."""
    folder = tmp_path_factory.mktemp("keys")
    served = fake_served(folder, FakeSession())
    access = Access(keys=KeyFile(key_file(folder)))
    with listening(served, grpc_address=("127.0.0.1", 0), access=access) as found:
        yield found


def test_a_body_is_not_read_for_a_stranger(wire: Wire) -> None:
    """A request without a key is refused before its body has come."""
    head = request("POST", "/v1/classify", "Expect: 100-continue", body=b"x" * 1000)[:-1000]

    with wire.connect() as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_grpc_asks_for_the_same_keys(wire: Wire) -> None:
    """Probes are answered, other calls need a key in the metadata, or end as UNAUTHENTICATED."""
    with triton.InferenceServerClient(wire.state.grpc_address) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("fake")
        for headers in ({"x-api-key": KEY}, {"authorization": f"Bearer {OTHER}"}):
            assert client.get_model_metadata("fake", headers=headers).name == "fake"

        calls: list[Any] = [
            lambda headers: client.get_model_metadata("fake", headers=headers),
            lambda headers: client.get_server_metadata(headers=headers),
            lambda headers: client.get_model_repository_index(headers=headers),
        ]
        for call in calls:
            for wrong in ({}, {"x-api-key": "nobody-has-this-key"}):
                with pytest.raises(InferenceServerException) as refused:
                    call(wrong)
                assert refused.value.status() == str(grpc.StatusCode.UNAUTHENTICATED)
