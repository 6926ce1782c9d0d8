"""The Open Inference Protocol over gRPC: NVIDIA's client against a running server."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from starlette.testclient import TestClient
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from serve.app import create_app
from serve.open_model import open_served
from serve.protocols.oip import oip_messages
from serve.protocols.oip.oip_messages import SERVICE, message
from serve.settings import ServeSettings
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import Unavailable
from tests.serve.fakes import PATIENCE_S, FakeSession, fake_served
from tests.serve.wire import Wire, listening

TEXTS = ["a good film", "the bus", "naïve 日本 🙂", "not very good " * 30]
LOCAL = ("127.0.0.1", 0)


@pytest.fixture(scope="module")
def wire(single_artefact: Artefact) -> Iterator[Wire]:
    """A server of single texts."""
    served = open_served(single_artefact.folder, threads=1)
    with listening(served, grpc_address=LOCAL) as found:
        yield found


@pytest.fixture(scope="module")
def client(wire: Wire) -> Iterator[Any]:
    """NVIDIA's client of it."""
    with triton.InferenceServerClient(wire.state.grpc_address) as found:
        yield found


def tensor(name: str, values: Any, datatype: str) -> Any:
    """An input of NVIDIA's client."""
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def texts(*values: str) -> Any:
    """Texts as an input."""
    return tensor("text", np.array([v.encode() for v in values], dtype=object), "BYTES")


def call(wire: Wire, method: str, **fields: Any) -> tuple[Any, dict[str, str]]:
    """The reply to a message of ours, and the metadata that came with it."""
    with grpc.insecure_channel(wire.state.grpc_address) as channel:
        sent = channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=message(f"{method}Request").SerializeToString,
            response_deserializer=message(f"{method}Response").FromString,
        )
        reply, done = sent.with_call(message(f"{method}Request")(**fields))
        return reply, dict(done.trailing_metadata())


def test_the_messages_are_those_of_the_proto_files(tmp_path: Path) -> None:
    """What is checked in is what protoc makes of the files beside it."""
    folder = Path(oip_messages.__file__).parent / "proto"
    made = tmp_path / "made.binpb"

    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", str(folder),
         f"--descriptor_set_out={made}", "open_inference_grpc.proto", "model_repository.proto"],
        check=True,
    )  # fmt: skip

    assert made.read_bytes() == (folder / "messages.binpb").read_bytes()


def test_tritonclient_classifies_texts(client: Any, single: TestClient) -> None:
    """The labels and scores are those of the native protocol."""
    found = client.infer("single", [texts(*TEXTS)], request_id="mine")

    body = {"inputs": [{"text": text} for text in TEXTS]}
    results = single.post("/v1/classify", json=body).json()["results"]
    labels, scores = found.as_numpy("labels"), found.as_numpy("scores")
    for names, row, expected in zip(labels, scores, results, strict=True):
        assert [name.decode() for name in names] == [one["label"] for one in expected["labels"]]
        assert row.tolist() == pytest.approx([one["score"] for one in expected["labels"]], abs=1e-6)
    reply = found.get_response()
    assert (reply.id, reply.model_name, reply.model_version) == ("mine", "single", "1")


def test_tritonclient_asks_for_windows(client: Any, single: TestClient) -> None:
    """The parameters of a request have long texts read as the native protocol's fields do."""
    fields = {"long_texts": "windows", "window_stride": 2}

    found = client.infer("single", [texts(*TEXTS)], parameters=fields)

    body = {"inputs": [{"text": text} for text in TEXTS], **fields}
    results = single.post("/v1/classify", json=body).json()["results"]
    expected = [row["labels"][0]["score"] for row in results]
    assert found.as_numpy("scores").max(1).tolist() == pytest.approx(expected, abs=1e-6)
    assert results[-1]["windows"] > 2


@pytest.mark.parametrize("datatype", ["INT64", "INT32"])
def test_tritonclient_runs_token_ids(client: Any, single: TestClient, datatype: str) -> None:
    """Ids with their mask have the logits of the text."""
    (tokens,) = single.post("/tokenize", json={"inputs": "a good film"}).json()
    ids = [[one["id"] for one in tokens] + [0, 0]]
    mask = [[1] * len(tokens) + [0, 0]]
    inputs = [
        tensor(name, np.array(values, datatype.lower()), datatype)
        for name, values in (("input_ids", ids), ("attention_mask", mask))
    ]

    by_ids = client.infer("single", inputs, outputs=[triton.InferRequestedOutput("logits")])

    by_text = client.infer("single", [texts("a good film")]).as_numpy("logits")
    np.testing.assert_allclose(by_ids.as_numpy("logits"), by_text, atol=1e-6)
    assert by_ids.as_numpy("scores") is None


def test_inputs_may_come_in_fields_instead_of_raw_bytes(wire: Wire, single: TestClient) -> None:
    """Texts in ``bytes_contents`` and ids in ``int64_contents`` have the same logits."""
    (tokens,) = single.post("/tokenize", json={"inputs": "a film"}).json()
    ids = [one["id"] for one in tokens]
    text = {"name": "text", "datatype": "BYTES", "shape": [1],
            "contents": {"bytes_contents": [b"a film"]}}  # fmt: skip
    row = {"name": "input_ids", "datatype": "INT64", "shape": [1, len(ids)],
           "contents": {"int64_contents": ids}}  # fmt: skip

    replies = [call(wire, "ModelInfer", model_name="single", inputs=[x])[0] for x in (text, row)]

    of_text, of_ids = (np.frombuffer(one.raw_output_contents[2], "<f4") for one in replies)
    np.testing.assert_allclose(of_text, of_ids, atol=1e-6)


def test_a_reply_has_its_timing_and_request_id(wire: Wire) -> None:
    """They are trailing metadata, where HTTP has headers."""
    text = {"name": "text", "datatype": "BYTES", "shape": [1],
            "contents": {"bytes_contents": [b"a film"]}}  # fmt: skip

    _, metadata = call(wire, "ModelInfer", model_name="single", inputs=[text])

    assert "run;dur=" in metadata["server-timing"]
    assert metadata["x-request-id"]


def test_tritonclient_gets_the_best_classes_as_text(client: Any) -> None:
    """The classification extension: value, index and label."""
    outputs = [triton.InferRequestedOutput("scores", class_count=1)]

    found = client.infer("single", [texts("a film")], outputs=outputs).as_numpy("scores")

    _, index, label = found[0][0].decode().split(":")
    assert label == ["negative", "positive"][int(index)]


def test_tritonclient_reads_the_metadata(client: Any) -> None:
    """Health, the server's extensions, and the model's inputs and outputs."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("single")
    assert client.is_model_ready("single", "1")
    assert "binary_tensor_data" in client.get_server_metadata().extensions
    model = client.get_model_metadata("single")
    assert [(one.name, one.datatype) for one in model.outputs] == [
        ("labels", "BYTES"), ("scores", "FP32"), ("logits", "FP32"),
    ]  # fmt: skip
    assert list(model.outputs[1].shape) == [-1, 2]
    (listed,) = client.get_model_repository_index().models
    assert (listed.name, listed.state) == ("single", "READY")


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ({"model_name": "other"}, "NOT_FOUND", "no such model; got other"),
        ({"model_version": "2"}, "NOT_FOUND", "no such version"),
        ({"inputs": [texts(" ")]}, "INVALID_ARGUMENT", "text.0: a text is empty"),
        ({"inputs": [texts(*["a"] * 33)]}, "INVALID_ARGUMENT", "too many inputs"),
        ({"inputs": [texts("a " * 60)], "parameters": {"truncate": False}}, "INVALID_ARGUMENT",
         "more tokens than the model reads"),
        ({"outputs": [triton.InferRequestedOutput("x")]}, "INVALID_ARGUMENT", "no such output"),
        ({"inputs": [tensor("text", np.zeros([1], np.float32), "FP32")]}, "INVALID_ARGUMENT",
         "inputs are texts or whole numbers"),
        ({"inputs": [texts("a " * 1_500_000)]}, "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)  # fmt: skip
def test_tritonclient_is_told_what_is_wrong(
    client: Any, how: dict[str, Any], code: str, told: str
) -> None:
    """An error has gRPC's code and our text."""
    given = {"model_name": "single", "inputs": [texts("a")], **how}

    with pytest.raises(InferenceServerException, match=told) as caught:
        client.infer(**given)

    assert caught.value.status() == f"StatusCode.{code}"


def test_a_failed_engine_is_internal_and_tells_nothing(tmp_path: Path) -> None:
    """A fault of the model is counted like those of HTTP, and its text stays in the log."""

    def fail(rows: list[tuple[int, ...]]) -> None:
        raise RuntimeError("a secret")

    served = fake_served(tmp_path, FakeSession(fail))
    with listening(served, grpc_address=LOCAL) as wire:
        client = triton.InferenceServerClient(wire.state.grpc_address)
        with client, pytest.raises(InferenceServerException) as caught:
            client.infer("fake", [texts("a")])
        name = f'spd_requests_total{{code="500",route="/{SERVICE}/ModelInfer"}}'
        give_up_at = time.perf_counter() + PATIENCE_S
        while wire.metric(name) != 1:  # counted once the client has its answer
            assert time.perf_counter() < give_up_at

    assert caught.value.status() == "StatusCode.INTERNAL"
    assert "secret" not in str(caught.value)


def test_a_model_is_unloaded_and_loaded_over_grpc(tmp_path: Path) -> None:
    """Both ways of asking see the same state."""
    settings = ServeSettings(model_control=True)
    with listening(fake_served(tmp_path, FakeSession()), settings, grpc_address=LOCAL) as wire:
        client = triton.InferenceServerClient(wire.state.grpc_address)
        client.unload_model("fake")
        assert not client.is_server_ready()
        assert not client.is_model_ready("fake")
        assert client.is_server_live()
        assert wire.say(b"GET /readyz HTTP/1.0\r\n\r\n")[0].status == 503
        (listed,) = client.get_model_repository_index().models
        assert (listed.state, listed.reason) == ("UNAVAILABLE", "unloaded")
        with pytest.raises(InferenceServerException, match="unloaded") as caught:
            client.infer("fake", [texts("a")])
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        with pytest.raises(InferenceServerException, match="no other files"):
            client.load_model("fake", config="{}")
        client.load_model("fake")
        assert client.is_model_ready("fake")
        client.close()


def test_a_taken_port_is_told(tmp_path: Path, wire: Wire) -> None:
    """The server does not start beside another one's gRPC port."""
    port = int(wire.state.grpc_address.rpartition(":")[2])

    with listening(fake_served(tmp_path, FakeSession()), grpc_address=("127.0.0.1", port)) as other:
        error = other.state.error

    assert isinstance(error, Unavailable)
    assert f"port {port} for gRPC" in str(error)


def test_a_call_in_flight_is_answered_while_the_server_drains(tmp_path: Path) -> None:
    """It counts as a request in flight; a later call is told to go elsewhere."""
    session = FakeSession()
    with listening(fake_served(tmp_path, session), grpc_address=LOCAL) as wire:
        session.gate.close()
        client = triton.InferenceServerClient(wire.state.grpc_address)
        with client, ThreadPoolExecutor(1) as pool:
            running = pool.submit(client.infer, "fake", [texts("a")])
            session.gate.wait_until_reached()
            wire.state.drain()
            in_flight = wire.state.in_flight
            with pytest.raises(InferenceServerException) as caught:
                client.infer("fake", [texts("a")])
            session.gate.open()
            found = running.result(PATIENCE_S)

    assert in_flight == 1
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert found.as_numpy("scores").shape == (1, 2)


def test_a_call_that_is_given_up_leaves_the_queue(tmp_path: Path) -> None:
    """After a client's own time limit its text is not run."""
    session = FakeSession()
    with listening(fake_served(tmp_path, session), grpc_address=LOCAL) as wire:
        session.gate.close()
        client = triton.InferenceServerClient(wire.state.grpc_address)
        with client, ThreadPoolExecutor(1) as pool:
            running = pool.submit(client.infer, "fake", [texts("a")])
            session.gate.wait_until_reached()
            with pytest.raises(InferenceServerException, match=r"(?i)deadline.exceeded"):
                client.infer("fake", [texts("a b c d")], client_timeout=0.2)
            give_up_at = time.perf_counter() + PATIENCE_S
            while wire.state.in_flight > 1:
                assert time.perf_counter() < give_up_at
                time.sleep(0.01)
            session.gate.open()
            running.result(PATIENCE_S)

    assert [len(rows) for rows in session.batches] == [1]


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that should speak gRPC and cannot does not start."""
    monkeypatch.delitem(sys.modules, "serve.protocols.oip.oip_grpc", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)

    with pytest.raises(Unavailable) as caught:
        create_app(
            lambda: fake_served(tmp_path, FakeSession()), ServeSettings(), grpc_address=LOCAL
        )

    assert "spd-deploy[grpc]" in caught.value.fix
