"""The table of errors: complete, without doubles, and every answer small."""

import json

import pytest
from starlette.exceptions import HTTPException

from serve.http_errors import CLIENT_CLOSED_REQUEST, STATUS, ClientDisconnected, response_for
from spd_deploy.domain.errors import BadArtefact, Overloaded, Refusal, SpdError

LONG = "long " * 10_000


def leaves(of: type[SpdError]) -> set[type[SpdError]]:
    """Every class of the tree without classes below it."""
    below = of.__subclasses__()
    return set().union(*map(leaves, below)) if below else {of}


def test_every_refusal_has_a_status() -> None:
    """A new kind of refusal cannot reach a client as a bare 500."""
    assert leaves(Refusal) == set(STATUS)


def test_every_refusal_has_a_code_of_its_own() -> None:
    """A client can tell all refusals apart by their code."""
    codes = [kind.code for kind in STATUS.values()]

    assert len(set(codes)) == len(codes)
    assert all(code.startswith("SPD_") for code in codes)


@pytest.mark.parametrize("error", STATUS, ids=lambda error: error.__name__)
def test_an_answer_is_small_and_has_its_status(error: type[Refusal]) -> None:
    """However long the message, the body is short JSON; who may come again is told when."""
    seconds = {"retry_after_s": 7} if error is Overloaded else {}
    answer = response_for(error(LONG, got=LONG, fix=LONG, **seconds), "id")

    body = json.loads(bytes(answer.body))
    kind = STATUS[error]
    assert answer.status_code == kind.status
    assert (body["code"], body["error_type"]) == (kind.code, kind.error_type)
    assert body["request_id"] == "id"
    assert len(answer.body) < 600
    assert ("retry-after" in answer.headers) == (kind.status in (429, 503))


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a secret"), BadArtefact("a secret", fix="a secret"), HTTPException(599, "no")],
)
def test_other_errors_tell_nothing(error: Exception) -> None:
    """What is no refusal is the server's fault, and its text stays in the log."""
    answer = response_for(error, "id")

    assert answer.status_code >= 500
    assert b"secret" not in bytes(answer.body)


def test_who_left_gets_an_empty_answer() -> None:
    """A client that is gone is counted under a status of its own."""
    answer = response_for(ClientDisconnected(), "id")

    assert (answer.status_code, answer.body) == (CLIENT_CLOSED_REQUEST, b"")
