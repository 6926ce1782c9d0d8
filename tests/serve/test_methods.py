"""HEAD wherever there is GET."""

from typing import Any

import pytest
from starlette.testclient import TestClient

GETS = [
    *("/", "/docs", "/openapi.json", "/livez", "/readyz", "/info", "/metrics", "/health", "/ping"),
    *("/info/fake", "/v1/models", "/v1/models/fake", "/v2", "/v2/health/live", "/v2/health/ready"),
    *("/v2/models/fake", "/v2/models/fake/ready"),
    *("/v2/models/fake/versions/1", "/v2/models/fake/versions/1/ready"),
]
UNDESCRIBED = {"/docs", "/openapi.json"}


def test_the_paths_of_get_are_all_there_are(fake: TestClient) -> None:
    """The paths tried below are every one that is described with GET, and two pages."""
    described: dict[str, Any] = fake.get("/openapi.json").json()["paths"]

    with_get = {
        path.replace("{name}", "fake").replace("{version}", "1")
        for path, operations in described.items()
        if "get" in operations
    }
    assert with_get | UNDESCRIBED == set(GETS)


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_its_body(fake: TestClient, path: str) -> None:
    """HEAD has the status and the headers of GET, its length included, and no body."""
    got, head = fake.get(path), fake.head(path)

    assert (head.status_code, head.content) == (got.status_code, b"")
    own = {"x-request-id", "content-length"} if path == "/metrics" else {"x-request-id"}
    for name in set(got.headers) - own:
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    "path", ["/predict", "/v1/classify", "/nowhere", "/v1/models/fake:predict"]
)
def test_head_is_refused_where_get_is(fake: TestClient, path: str) -> None:
    """A path without GET has no HEAD either."""
    assert fake.head(path).status_code == fake.get(path).status_code >= 404


@pytest.mark.parametrize("path", GETS)
def test_another_method_is_told_the_right_ones(fake: TestClient, path: str) -> None:
    """A refused DELETE names GET and HEAD, and POST where it is answered."""
    allowed = "GET, HEAD, POST" if path == "/" else "GET, HEAD"

    answer = fake.delete(path)

    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed
    assert f"use {allowed}" in answer.text


@pytest.mark.parametrize("body", ['{"inputs": "a"}', '{"inputs": [["a"], ["b"]]}', "{}", "x"])
def test_post_to_the_root_is_predict(fake: TestClient, body: str) -> None:
    """TEI's clients may leave the path out; answers and refusals are those of /predict."""
    headers = {"Content-Type": "application/json", "X-Request-Id": "mine"}

    rooted, named = (fake.post(path, content=body, headers=headers) for path in ("/", "/predict"))

    assert (rooted.status_code, rooted.json()) == (named.status_code, named.json())


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_the_probes_of_tei_are_readyz(fake: TestClient, path: str) -> None:
    """TEI's clients probe with other names."""
    probed, ready = fake.get(path), fake.get("/readyz")

    assert (probed.status_code, probed.json()) == (ready.status_code, ready.json())
