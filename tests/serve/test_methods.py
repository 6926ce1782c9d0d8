"""HEAD wherever there is GET."""

from typing import Any

import pytest
from starlette.testclient import TestClient

GETS = ["/", "/docs", "/openapi.json", "/livez", "/readyz", "/info", "/metrics"]


def test_the_paths_of_get_are_all_there_are(fake: TestClient) -> None:
    """The paths tried below are every one that is described with GET, and the pages."""
    described: dict[str, Any] = fake.get("/openapi.json").json()["paths"]

    with_get = {path for path, operations in described.items() if "get" in operations}
    assert with_get | {"/", "/docs", "/openapi.json"} == set(GETS)


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_its_body(fake: TestClient, path: str) -> None:
    """HEAD has the status and the headers of GET, its length included, and no body."""
    got, head = fake.get(path), fake.head(path)

    assert (head.status_code, head.content) == (got.status_code, b"")
    own = {"x-request-id", "content-length"} if path == "/metrics" else {"x-request-id"}
    for name in set(got.headers) - own:
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize("path", ["/predict", "/v1/classify", "/nowhere"])
def test_head_is_refused_where_get_is(fake: TestClient, path: str) -> None:
    """A path without GET has no HEAD either."""
    assert fake.head(path).status_code == fake.get(path).status_code >= 404


@pytest.mark.parametrize("path", GETS)
def test_another_method_is_told_both(fake: TestClient, path: str) -> None:
    """Who may not DELETE may GET and HEAD."""
    answer = fake.delete(path)

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.json()["error"].endswith("use GET, HEAD")
