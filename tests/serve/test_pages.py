"""What the server says of itself: pages, description, facts and counters."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from exporters.export import artefact_from_checkpoint
from serve.context import ServerContext
from serve.info import Info, info_of
from serve.metrics import Metrics
from serve.middleware import request_id_from
from serve.model_control import ModelControl
from serve.open_model import open_served
from serve.pages import type_of
from serve.protocol import OF_A_NAMED_MODEL
from serve.protocols.native import Native
from serve.protocols.registry import PROTOCOLS
from serve.protocols.tei.tei import Tei
from serve.reload_metrics import ReloadMetrics
from serve.settings import ServeSettings
from serve.shadow import Shadows
from serve.state import ServerState
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.calibration_error import CalibrationError
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.decision import Decision, Threshold
from spd_deploy.domain.temperature import TemperatureScaling
from tests.serve.clients import metric
from tests.serve.fakes import FakeSession, fake_served

PAGES = ["/", "/docs"]
OURS = "http://testserver"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_external_address(fake: TestClient, path: str) -> None:
    """A page works on a machine without a network: every address in it is the server's own."""
    html = fake.get(path).text.replace(OURS, "")

    assert not re.findall(r"\b(?:https?|wss?)://|@import", html)
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?//""", html)


@pytest.mark.parametrize("path", PAGES)
def test_every_link_leads_somewhere(fake: TestClient, path: str) -> None:
    """What a page links to, or fetches, is there, and every place in it that is pointed at."""
    html = fake.get(path).text
    links = set(re.findall(r'href="([^"]+)"', html)) - {"data:,"}

    assert links
    for link in links:
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in html
        else:
            assert fake.get("/" + link.removeprefix(".")).status_code == 200
    for fetched in set(re.findall(r'fetch\("([^"]+)"', html)):
        assert fake.get("/" + fetched).status_code in (200, 405)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_run_only_what_is_in_it(fake: TestClient, path: str) -> None:
    """The policy allows the very script and style of the page, and nothing else."""
    answer = fake.get(path)

    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    inline = re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", answer.text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(i.encode()).digest()).decode() for i in inline]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert not re.search(r"""<[^>]*\s(?:style|on\w+)\s*=""", answer.text)


def test_the_pages_name_of_the_server_is_escaped(fake: TestClient) -> None:
    """A Host header cannot put a tag into the page of docs."""
    answer = fake.get("/docs", headers={"Host": 'x"><script>alert(1)</script>'})

    assert "<script>" not in answer.text


def a_context() -> ServerContext:
    """What the handlers of an app share, for an app that never starts."""
    state, limits, counts = ServerState(), ServeSettings(), Metrics()
    control = ModelControl(state, limits, counts, ReloadMetrics(), Shadows((), ()))
    return ServerContext(state=state, settings=limits, metrics=counts, control=control)


def test_the_description_is_whole(fake: TestClient) -> None:
    """Every route for programs is described in a sentence, and every reference leads somewhere."""
    described = fake.get("/openapi.json").json()

    endpoints = [one for protocol in PROTOCOLS for one in protocol(a_context()).endpoints()]
    assert set(described["paths"]) == {
        one.path for one in endpoints if one.described and not one.reranks
    }
    for operations in described["paths"].values():
        for operation in operations.values():
            assert operation["description"].endswith((".", ":", "]]."))
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
    assert names == set(described["components"]["schemas"])


def test_the_description_names_every_refusal(fake: TestClient) -> None:
    """Each status of the table of errors is there, with the code and the body it comes with."""
    described = fake.get("/openapi.json").json()

    for path, errors in (("/v1/classify", Native.errors), ("/predict", Tei.errors)):
        answers = described["paths"][path]["post"]["responses"]
        kinds = [errors.kind_of(refusal) for refusal in OF_A_NAMED_MODEL]
        assert set(answers) == {"200"} | {str(kind.status) for kind in kinds}
        for kind in kinds:
            answer = answers[str(kind.status)]
            assert kind.code in answer["description"]
            schema = answer["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}


def test_the_docs_show_every_route_and_body(fake: TestClient) -> None:
    """The page for people has all that the description for programs has."""
    described = fake.get("/openapi.json").json()
    html = fake.get("/docs").text

    for path in described["paths"]:
        assert path in html
    for name in described["components"]["schemas"]:
        assert f'id="{name}"' in html


def test_the_examples_of_the_description_work(fake: TestClient) -> None:
    """The body that the docs show for each route is a good one."""
    described = fake.get("/openapi.json").json()

    for path, operations in described["paths"].items():
        if "post" in operations:
            content = operations["post"]["requestBody"]["content"]["application/json"]
            name = content["schema"]["$ref"].rpartition("/")[2]
            (example,) = described["components"]["schemas"][name]["examples"]
            assert (
                fake.post(
                    path.replace("{name}", "fake").replace("{version}", "1"), json=example
                ).status_code
                == 200
            )


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "text"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or null"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Score"}}, "list of Score"),
        ({"enum": ["Right", "Left"]}, "Right or Left"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({}, "anything"),
    ],
)
def test_types_are_told_in_words(schema: dict[str, Any], words: str) -> None:
    """A schema is shown as a person would say it."""
    assert type_of(schema) == words


def test_info_says_what_is_served(pairs: TestClient, pair_artefact: Artefact) -> None:
    """The facts are those of the manifest, with the self-test's own number beside the export's."""
    info = Info.model_validate(pairs.get("/info").json())

    manifest = pair_artefact.manifest
    assert (info.model, info.task, info.takes) == ("pair", "mrpc", "pair")
    assert (info.format, info.pattern, info.sparsity) == ("onnx", manifest.pattern, 0.75)
    assert info.density
    assert info.density.overall == pytest.approx(0.25)
    assert sum(info.lowerings.values()) == len(manifest.matrices)
    assert info.parity == manifest.parity
    assert info.self_test is not None
    assert info.self_test <= manifest.parity.tolerance
    assert info.checkpoint_sha256 == manifest.checkpoint_sha256
    assert (info.runtime.runtime, info.runtime.device) == ("onnxruntime", "cpu")


def test_info_says_whose_a_score_is(pairs: TestClient, pair_artefact: Artefact) -> None:
    """The model's own score is the sparse one; the dense one is said to be another model's."""
    info = Info.model_validate(pairs.get("/info").json())

    assert info.score == pair_artefact.manifest.scores["sparse"]
    assert info.arms == {"dense": "dense model it was made from", "sparse": "this model"}


def test_info_says_when_to_trust_a_score(tmp_path: Path, session: FakeSession) -> None:
    """Temperature, errors, thresholds and the bound to abstain are told; without them null."""
    error = CalibrationError(expected=0.05, brier=0.2, confidence=0.9)
    scaling = TemperatureScaling(temperature=1.4, rows=90, split="dev", before=error, after=error)
    plain = fake_served(tmp_path, session)
    decision = Decision(
        thresholds={"positive": Threshold(value=0.7, goal="precision=0.9")}, abstain_below=0.6
    )
    served = replace(
        plain,
        task=replace(plain.task, decision=decision),
        card=replace(plain.card, calibration={"dense": scaling}),
    )

    told = info_of(served, ServeSettings()).model_dump(mode="json")
    untold = info_of(plain, ServeSettings())

    assert (told["temperature"], told["abstain_below"]) == (1.4, 0.6)
    assert told["calibration"]["dense"]["after"]["brier"] == 0.2
    assert told["thresholds"]["positive"]["value"] == 0.7
    assert (untold.temperature, untold.abstain_below) == (None, None)
    assert (untold.calibration, untold.thresholds) == ({}, {})


def test_the_dense_score_is_never_the_models_own(
    block_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """A sparse model that was not scored has no score, whatever its dense one had."""
    dense = {"dense": block_checkpoint.scores["dense"]}
    artefact = artefact_from_checkpoint(replace(block_checkpoint, scores=dense), tmp_path / "a")
    served = open_served(artefact.folder, threads=1)

    with served.session:
        info = info_of(served, ServeSettings())

    assert info.score is None
    assert info.scores == dense
    assert info.arms == {"dense": "dense model it was made from"}


def test_metrics_count_what_happened(fake: TestClient) -> None:
    """Requests by route and status, rows, cuts and the queue are there to be read."""
    fake.post("/predict", json={"inputs": [["a"], ["b " * 50]]})
    fake.post("/predict", json={})

    assert metric(fake, 'spd_requests_total{code="200",route="/predict"}') == 1
    assert metric(fake, 'spd_requests_total{code="422",route="/predict"}') == 1
    assert metric(fake, "spd_batch_rows_sum") == 2
    assert metric(fake, "spd_truncated_total") == 1
    assert metric(fake, "spd_queue_items") == 0
    assert metric(fake, 'spd_engine_errors_total{kind="exception"}') == 0
    assert 'spd_build_info{device="cpu",format="fake"' in fake.get("/metrics").text


def test_metrics_count_failed_batches(fake: TestClient, session: FakeSession) -> None:
    """A fault of the model shows."""

    def fail(rows: list[tuple[int, ...]]) -> None:
        raise RuntimeError("injected")

    session.fail = fail
    fake.post("/predict", json={"inputs": "a"})

    assert metric(fake, 'spd_engine_errors_total{kind="exception"}') == 1


def test_metrics_do_not_grow_with_what_clients_send(fake: TestClient) -> None:
    """A thousand paths, lengths and ids are still the same few lines, and hold no text."""
    fake.get("/nowhere")
    fake.post("/predict", json={"inputs": "a"})
    fake.get("/metrics")
    before = len(fake.get("/metrics").text.splitlines())

    for i in range(30):
        fake.get(f"/secret{i}", headers={"X-Request-Id": f"secret{i}"})
        fake.post("/predict", json={"inputs": "secret " * (i + 1)})

    page = fake.get("/metrics").text
    assert len(page.splitlines()) == before
    assert "secret" not in page


@pytest.mark.parametrize("given", [None, "", "a b", "x\n", "x" * 65, "é", "<script>"])
def test_a_harmful_request_id_is_replaced(given: str | None) -> None:
    """What a client calls its request goes into logs only where it is plain and short."""
    found = request_id_from(given)

    assert found != given
    assert re.fullmatch(r"[0-9a-f]{16}", found)


def test_a_harmless_request_id_is_kept(fake: TestClient) -> None:
    """A request can be followed by its own name, in the header and in an error's body."""
    answer = fake.post("/predict", json={}, headers={"X-Request-Id": "mine-1.a_B"})

    assert answer.headers["X-Request-Id"] == "mine-1.a_B"
    assert answer.json()["request_id"] == "mine-1.a_B"
