"""CORS: pages of the named origins may call the server, others may not."""

from pathlib import Path

import pytest

from serve.access import Access
from serve.api_keys import KeyFile
from serve.cors import with_cors
from spd_deploy.domain.errors import BadSetting
from tests.serve.clients import client_of
from tests.serve.fakes import FakeSession, fake_served

APP = "https://app.example.org"
BODY = {"inputs": [{"text": "a film"}]}
ASKED = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def test_a_named_origin_may_call_and_read(tmp_path: Path) -> None:
    """Its preflight is allowed, its answers are readable with their headers; others get neither."""
    served = fake_served(tmp_path, FakeSession())
    with client_of(served, cors_origins=(APP, "http://localhost:3000")) as client:
        for origin in (APP, "http://localhost:3000"):
            asked = client.options("/v1/classify", headers={"Origin": origin, **ASKED})
            answer = client.post("/v1/classify", json=BODY, headers={"Origin": origin})
            assert asked.status_code == answer.status_code == 200
            assert "authorization" in asked.headers["Access-Control-Allow-Headers"].lower()
            for one in (asked, answer):
                assert one.headers["Access-Control-Allow-Origin"] == origin
                assert "Origin" in one.headers["Vary"]
            assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        for origin in ("https://evil.example", APP + ".evil.example", "null", "http" + APP[5:]):
            asked = client.options("/v1/classify", headers={"Origin": origin, **ASKED})
            answer = client.post("/v1/classify", json=BODY, headers={"Origin": origin})
            assert asked.status_code == 400
            assert "Access-Control-Allow-Origin" not in {**asked.headers, **answer.headers}


def test_an_error_is_readable_too(tmp_path: Path) -> None:
    """A page sees why it was refused, and a preflight, which has no key, is not refused."""
    keys = tmp_path / "keys"
    keys.write_text("a-key-that-is-long\n", encoding="utf-8")
    served = fake_served(tmp_path, FakeSession())
    with client_of(served, access=Access(keys=KeyFile(keys)), cors_origins=("*",)) as client:
        asked = client.options("/v1/classify", headers={"Origin": APP, **ASKED})
        answer = client.post("/v1/classify", json=BODY, headers={"Origin": APP})

    assert (asked.status_code, answer.status_code) == (200, 401)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_by_default_no_page_may(tmp_path: Path) -> None:
    """No header of CORS is sent."""
    with client_of(fake_served(tmp_path, FakeSession())) as client:
        answer = client.post("/v1/classify", json=BODY, headers={"Origin": APP})

    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origin",
    ["app.example.org", f"{APP}/", f"{APP}/path", "https://*.example.org", "null", "ftp://a", ""],
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    """A browser sends scheme, host and port, so nothing else would ever match."""
    with pytest.raises(BadSetting, match="no origin"):
        with_cors(lambda *_: None, [origin])  # type: ignore[arg-type]
