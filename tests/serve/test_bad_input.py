"""Everything that can be wrong with a request: its status, and a small JSON body."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serve.http_errors import STATUS, ErrorBody
from tests.serve.clients import JSON

NATIVE, TEI = "/v1/classify", "/predict"
LARGEST_BODY = 600

LONG = "a " * 40
BODIES: list[tuple[str, str, bytes, int, str]] = [
    # name, path, body, status, code
    ("invalid UTF-8", NATIVE, b'{"inputs":[{"text":"\xff"}]}', 400, "SPD_NOT_JSON"),
    ("UTF-16", NATIVE, '{"inputs":[{"text":"x"}]}'.encode("utf-16"), 400, "SPD_NOT_JSON"),
    ("byte order mark", NATIVE, b'\xef\xbb\xbf{"inputs":[]}', 400, "SPD_NOT_JSON"),
    ("nothing", NATIVE, b"", 400, "SPD_NOT_JSON"),
    ("cut JSON", NATIVE, b'{"inputs":[{"text":"x"}', 400, "SPD_NOT_JSON"),
    ("NaN", NATIVE, b'{"inputs":[{"text":"x"}],"top_k":NaN}', 400, "SPD_NOT_JSON"),
    ("long number", NATIVE, b'{"top_k":' + b"9" * 5000 + b"}", 400, "SPD_NOT_JSON"),
    ("deep nesting", NATIVE, b"[" * 100_000, 400, "SPD_NOT_JSON"),
    ("deep nesting in inputs", TEI, b'{"inputs":' + b"[" * 9000, 400, "SPD_NOT_JSON"),
    ("empty text", NATIVE, b'{"inputs":[{"text":""}]}', 400, "SPD_EMPTY_TEXT"),
    ("blank text", NATIVE, b'{"inputs":[{"text":" \\n\\t\\u00a0"}]}', 400, "SPD_EMPTY_TEXT"),
    ("no inputs", NATIVE, b'{"inputs":[]}', 400, "SPD_EMPTY_TEXT"),
    ("one empty text of two", NATIVE, b'{"inputs":[{"text":"a"},{"text":""}]}', 400,
     "SPD_EMPTY_TEXT"),
    ("empty text, TEI", TEI, b'{"inputs":""}', 400, "SPD_EMPTY_TEXT"),
    ("no inputs, TEI", TEI, b'{"inputs":[]}', 400, "SPD_EMPTY_TEXT"),
    ("unknown field", NATIVE, b'{"inputs":[{"text":"x"}],"foo":1}', 422, "SPD_MALFORMED"),
    ("unknown field in an input", NATIVE, b'{"inputs":[{"text":"x","foo":1}]}', 422,
     "SPD_MALFORMED"),
    ("field twice", NATIVE, b'{"inputs":[{"text":"x"}],"inputs":[]}', 422, "SPD_MALFORMED"),
    ("number as text", NATIVE, b'{"inputs":[{"text":5}]}', 422, "SPD_MALFORMED"),
    ("text as input", NATIVE, b'{"inputs":["x"]}', 422, "SPD_MALFORMED"),
    ("text as inputs", NATIVE, b'{"inputs":"x"}', 422, "SPD_MALFORMED"),
    ("text as truth", NATIVE, b'{"inputs":[{"text":"x"}],"truncate":"yes"}', 422,
     "SPD_MALFORMED"),
    ("truth as number", NATIVE, b'{"inputs":[{"text":"x"}],"top_k":true}', 422, "SPD_MALFORMED"),
    ("no label asked for", NATIVE, b'{"inputs":[{"text":"x"}],"top_k":0}', 422, "SPD_MALFORMED"),
    ("list as body", NATIVE, b"[]", 422, "SPD_MALFORMED"),
    ("null as body", TEI, b"null", 422, "SPD_MALFORMED"),
    ("inputs missing", NATIVE, b"{}", 422, "SPD_MALFORMED"),
    ("inputs missing, TEI", TEI, b"{}", 422, "SPD_MALFORMED"),
    ("null inputs", TEI, b'{"inputs":null}', 422, "SPD_MALFORMED"),
    ("number in a pair", TEI, b'{"inputs":["x",1]}', 422, "SPD_MALFORMED"),
    ("flat list of three", TEI, b'{"inputs":["a","b","c"]}', 422, "SPD_MALFORMED"),
    ("empty item", TEI, b'{"inputs":[["x"],[]]}', 422, "SPD_MALFORMED"),
    ("item of three", TEI, b'{"inputs":[["a","b","c"]]}', 422, "SPD_MALFORMED"),
    ("bare text in a batch", TEI, b'{"inputs":[["x"],"x"]}', 422, "SPD_MALFORMED"),
    ("list in a flat list", TEI, b'{"inputs":["x",["x"]]}', 422, "SPD_MALFORMED"),
    ("cut in the middle", TEI, b'{"inputs":"x","truncation_direction":"Middle"}', 422,
     "SPD_MALFORMED"),
    ("pair for a model of single texts", NATIVE, b'{"inputs":[{"text":"x","text_pair":"y"}]}',
     422, "SPD_MALFORMED"),
    ("flat list of two for a model of single texts", TEI, b'{"inputs":["x","y"]}', 422,
     "SPD_MALFORMED"),
    ("half a surrogate pair", NATIVE, b'{"inputs":[{"text":"\\ud800"}]}', 422, "SPD_MALFORMED"),
    ("half a surrogate pair in a name", NATIVE, b'{"\\ud800":1}', 422, "SPD_MALFORMED"),
    ("too long to be cut", NATIVE,
     json.dumps({"inputs": [{"text": LONG}], "truncate": False}).encode(), 422,
     "SPD_TEXT_TOO_LONG"),
    ("too long to be cut, TEI", TEI, json.dumps({"inputs": LONG, "truncate": False}).encode(),
     422, "SPD_TEXT_TOO_LONG"),
    ("too long to be tokenised without", NATIVE,
     json.dumps({"inputs": [{"text": "a" * 8001}], "truncate": False}).encode(), 422,
     "SPD_TEXT_TOO_LONG"),
    ("unseen characters", NATIVE, json.dumps({"inputs": [{"text": "\u200b\u00ad\0"}]}).encode(),
     400, "SPD_EMPTY_TEXT"),
    ("unseen characters, TEI", TEI, json.dumps({"inputs": [["a"], ["\ufeff"]]}).encode(), 400,
     "SPD_EMPTY_TEXT"),
    ("too many inputs", NATIVE, json.dumps({"inputs": [{"text": "x"}] * 33}).encode(), 422,
     "SPD_TOO_MANY_INPUTS"),
    ("too many inputs, TEI", TEI, json.dumps({"inputs": [["x"]] * 33}).encode(), 422,
     "SPD_TOO_MANY_INPUTS"),
    ("very many inputs of a wrong type", NATIVE, json.dumps({"inputs": [1] * 200_000}).encode(),
     422, "SPD_TOO_MANY_INPUTS"),
    ("very long name", NATIVE, json.dumps({"x" * 100_000: 1, "inputs": []}).encode(), 400,
     "SPD_EMPTY_TEXT"),
    ("very long unknown name", NATIVE, json.dumps({"x" * 100_000: 1}).encode(), 422,
     "SPD_MALFORMED"),
    ("too many bytes", NATIVE, b" " * 2_000_001, 413, "SPD_BODY_TOO_LARGE"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "code"), [case[1:] for case in BODIES], ids=[c[0] for c in BODIES]
)
def test_a_bad_body_has_its_status_and_a_small_answer(
    single: TestClient, path: str, body: bytes, status: int, code: str
) -> None:
    """The answer is our error body, does not grow with the request, and its status is described."""
    answer = single.post(path, content=body, headers=JSON)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    told = ErrorBody.model_validate_json(answer.content, strict=True)
    assert told.error
    assert told.request_id == answer.headers["X-Request-Id"]
    assert len(answer.content) < LARGEST_BODY
    described = single.get("/openapi.json").json()["paths"][path]["post"]["responses"]
    assert code in described[str(status)]["description"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"Content-Type": b"text/plain"},
        {b"Content-Type": b"text/json"},
        {b"Content-Type": b"application/jsonl"},
        {b"Content-Type": b"application/x-www-form-urlencoded"},
        {b"Content-Type": b"application/json; charset=latin-1"},
        {b"Content-Type": b"application/json; charset=utf-16"},
        {b"Content-Type": b"application/json; charset=\xc3\xa9"},
        {b"Content-Type": b"application/json", b"Content-Encoding": b"gzip"},
    ],
)
def test_another_media_type_is_415(single: TestClient, headers: dict[bytes, bytes]) -> None:
    """Only uncompressed JSON in UTF-8 is read."""
    answer = single.post(NATIVE, content=b'{"inputs":[{"text":"x"}]}', headers=headers)

    assert answer.status_code == 415
    assert answer.json()["code"] == "SPD_UNSUPPORTED_MEDIA"


@pytest.mark.parametrize(
    "content_type",
    [
        'Application/JSON; charset="UTF-8"',
        "application/json;charset=utf8",
        "application/json; charset=UTF_8",
        "application/json; charset='utf-8'",
        "application/json; charset=us-ascii",
        "application/json; charset=",
        'application/json; profile="charset=latin-1"; version=1',
        "application/vnd.api+json",
    ],
)
def test_json_may_be_named_in_many_ways(single: TestClient, content_type: str) -> None:
    """JSON that says it is UTF-8, however it spells that, is read."""
    answer = single.post(
        NATIVE, content=b'{"inputs":[{"text":"x"}]}', headers={"Content-Type": content_type}
    )

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8-sig", "the body begins with a byte order mark; got U+FEFF in UTF-8"),
        ("utf-16", "the body is not in UTF-8; got UTF-16"),
        ("utf-16-be", "the body is not in UTF-8; got UTF-16-BE"),
        ("utf-32", "the body is not in UTF-8; got UTF-32"),
    ],
)
def test_another_encoding_is_named(single: TestClient, encoding: str, told: str) -> None:
    """A byte order mark, or another encoding of Unicode, is called by its name."""
    answer = single.post(NATIVE, content='{"inputs":[]}'.encode(encoding), headers=JSON)

    assert answer.status_code == 400
    assert answer.json()["error"].startswith(told)


def test_a_chunked_body_is_not_read_beyond_its_limit(single: TestClient) -> None:
    """A body that does not promise its length is refused as soon as it is too long."""

    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 100_000

    answer = single.post(NATIVE, content=chunks(), headers=JSON)

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "SPD_NOT_FOUND"),
        ("GET", "/predict/", 404, "SPD_NOT_FOUND"),
        ("GET", "/../etc/passwd", 404, "SPD_NOT_FOUND"),
        ("GET", "/predict", 405, "SPD_METHOD_NOT_ALLOWED"),
        ("DELETE", "/info", 405, "SPD_METHOD_NOT_ALLOWED"),
    ],
)
def test_the_frameworks_own_refusals_look_like_ours(
    single: TestClient, method: str, path: str, status: int, code: str
) -> None:
    """A path or method that is not there gets the same JSON body."""
    answer = single.request(method, path, follow_redirects=False)

    assert answer.status_code == status
    assert ErrorBody.model_validate_json(answer.content).code == code


def test_a_refusal_says_what_to_do(single: TestClient) -> None:
    """Who falls into TEI's trap of the flat list is told to nest; who is lost, where to look."""
    answer = single.post(TEI, json={"inputs": ["first text", "second text"]})
    lost, wrong = single.get("/nowhere"), single.get("/predict")

    assert '[["first text"], ["second text"]]' in answer.json()["error"]
    assert (
        lost.json()["error"]
        == "the path does not exist; got /nowhere; see /docs for the paths that do"
    )
    assert wrong.json()["error"] == "/predict does not take this method; got GET; use POST"
    assert wrong.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[]", "the body: Input should be an object"),
        (b'{"inputs":[4]}', "inputs.0: Input should be an object"),
        (b'{"inputs":4}', "inputs: Input should be a list"),
        (b'{"inputs":[{"text":"x","foo":1}]}', "inputs.0.foo: Unknown field"),
        (b'{"inputs":[{"text":4}]}', "inputs.0.text: Input should be a valid string"),
        (b"{}", "inputs: Field required"),
    ],
)
def test_a_refusal_names_the_field(single: TestClient, body: bytes, told: str) -> None:
    """What is wrong is said where it is, in words of JSON."""
    answer = single.post(NATIVE, content=body, headers=JSON)

    assert answer.json()["error"].startswith(told)


def test_a_refusal_shows_a_body_that_is_answered(single: TestClient) -> None:
    """What the refusal of a bad body proposes is itself a good one."""
    told = single.post(NATIVE, content=b'{"text":"x"}', headers=JSON).json()["error"]

    proposed = told[told.index("send ") + len("send ") : told.rindex("; see /docs")]

    assert single.post(NATIVE, content=proposed.encode(), headers=JSON).status_code == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"inputs":"x","raw_scores":1}', "raw_scores: Input should be a valid boolean"),
        (b'{"inputs":4}', "inputs: Input should be a text, a pair of texts, or a batch"),
    ],
)
def test_a_refusal_of_tei_names_the_field(single: TestClient, body: bytes, told: str) -> None:
    """The fields that TEI knows are read as strictly as our own form's."""
    answer = single.post(TEI, content=body, headers=JSON)

    assert answer.json()["error"].startswith(told)


def test_a_bad_request_leaves_the_next_one_alone(single: TestClient) -> None:
    """After every bad body, a good one gets the answer it always gets."""
    good = {"inputs": [{"text": "a good film"}]}
    before = single.post(NATIVE, json=good).json()

    for _, path, body, _, _ in BODIES:
        single.post(path, content=body, headers=JSON)
        assert single.post(NATIVE, json=good).json() == before


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
TEXTS = st.text(st.characters(codec=None), min_size=1, max_size=60)
MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@MANY
@given(text=TEXTS, path=st.sampled_from([NATIVE, TEI]))
def test_no_text_is_our_fault(single: TestClient, text: str, path: str) -> None:
    """Any Unicode text, and any text that is none, is answered or refused, never a 5xx."""
    inputs: object = text if path == TEI else [{"text": text}]

    answer = single.post(path, content=json.dumps({"inputs": inputs}).encode(), headers=JSON)

    assert answer.status_code in (200, 400, 422)


@pytest.mark.parametrize(
    "text",
    [
        "\0x",
        "\u200d" * 50 + "x",
        "\u202e" + "x",
        "a" * 8000,
        "e" + "\u0301" * 3000,
        "🏳️‍🌈" * 500,
        "ﷺ" * 900,
    ],
)
def test_odd_texts_are_answered(single: TestClient, text: str) -> None:
    """NUL, joiners, right-to-left marks and endless words and accents are text like any other."""
    answer = single.post(NATIVE, json={"inputs": [{"text": text}]})

    assert answer.status_code == 200
    assert answer.json()["results"][0]["n_tokens"] <= 32


@MANY
@given(body=st.binary(max_size=200), path=st.sampled_from([NATIVE, TEI]))
def test_no_bytes_are_our_fault(single: TestClient, body: bytes, path: str) -> None:
    """Any bytes as a body are refused with a 4xx."""
    answer = single.post(path, content=body, headers=JSON)

    assert 400 <= answer.status_code < 500


@MANY
@given(
    inputs=ANYTHING,
    more=st.dictionaries(st.sampled_from(["truncate", "raw_scores", "top_k", "x"]), ANYTHING),
    path=st.sampled_from([NATIVE, TEI]),
)
def test_no_json_is_our_fault(
    single: TestClient, inputs: object, more: dict[str, object], path: str
) -> None:
    """Any JSON value in any field is answered or refused, never a 5xx, in a small body."""
    body = json.dumps({"inputs": inputs, **more}).encode()

    answer = single.post(path, content=body, headers=JSON)

    assert answer.status_code < 500
    assert answer.status_code == 200 or len(answer.content) < LARGEST_BODY


def test_every_kind_of_refusal_is_tried() -> None:
    """The codes of bad bodies are all those of the table whose fault is the client's."""
    tried = {code for *_, code in BODIES} | {
        "SPD_UNSUPPORTED_MEDIA",
        "SPD_QUEUE_FULL",
        "SPD_UNKNOWN_MODEL",
        "SPD_UNAUTHENTICATED",
    }

    assert tried == {kind.code for kind in STATUS.values() if kind.status < 500}
