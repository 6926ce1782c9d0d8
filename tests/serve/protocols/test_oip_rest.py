"""The Open Inference Protocol over REST: NVIDIA's client, and bodies of the documented shape."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from serve.http_errors import ErrorBody
from serve.open_model import open_served
from serve.protocols.oip.oip_rest import HEADER_LENGTH
from serve.settings import ServeSettings
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadArtefact
from tests.serve.clients import client_of
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.wire import listening

TEXTS = ["a good film", "the bus", "naïve 日本 🙂", "not very good " * 30]
INFER = "/v2/models/{}/infer"

CONTROLLED = ServeSettings(model_control=True)


@pytest.fixture(scope="module")
def client(single_artefact: Artefact) -> Iterator[Any]:
    """NVIDIA's client of a server of single texts."""
    with listening(open_served(single_artefact.folder, threads=1), CONTROLLED) as wire:
        found = triton.InferenceServerClient(f"127.0.0.1:{wire.port}")
        yield found
        found.close()


def native(client: TestClient, texts: list[str], **more: object) -> list[dict[str, float]]:
    """The scores of the native protocol by label."""
    body = {"inputs": [{"text": text} for text in texts], **more}
    results = client.post("/v1/classify", json=body).json()["results"]
    return [{one["label"]: one["score"] for one in result["labels"]} for result in results]


def text_input(texts: list[str], *, binary: bool, column: bool = False) -> Any:
    """The texts as an input of NVIDIA's client."""
    values = np.array([text.encode() for text in texts], dtype=object)
    values = values.reshape(-1, 1) if column else values
    tensor = triton.InferInput("text", list(values.shape), "BYTES")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def one_text(text: object = "a film", **more: object) -> dict[str, Any]:
    """A body with one text."""
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
    return {"inputs": [{**tensor, **more}]}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("column", [True, False])
def test_tritonclient_classifies_texts(
    client: Any, single: TestClient, binary_in: bool, binary_out: bool, column: bool
) -> None:
    """Raw bytes and JSON both ways give the native scores with their labels."""
    outputs = [triton.InferRequestedOutput(n, binary_data=binary_out) for n in ("scores", "labels")]

    found = client.infer(
        "single", [text_input(TEXTS, binary=binary_in, column=column)], outputs=outputs
    )

    labels = found.as_numpy("labels")
    scores = found.as_numpy("scores")
    assert scores.shape == labels.shape == (len(TEXTS), 2)
    names = [[x.decode() if isinstance(x, bytes) else x for x in row] for row in labels]
    for row, of, expected in zip(scores, names, native(single, TEXTS), strict=True):
        assert dict(zip(of, row.tolist(), strict=True)) == pytest.approx(expected, abs=1e-6)
        assert row[0] >= row[1]
    assert found.as_numpy("logits") is None


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_runs_token_ids(
    client: Any,
    single: TestClient,
    single_artefact: Artefact,
    dtype: type,
    padding: int,
    binary: bool,
) -> None:
    """Ids with their mask give the native logits in the order of the model's outputs."""
    tokens = single.post("/tokenize", json={"inputs": ["a good film", "the bus"]}).json()
    rows = [[one["id"] for one in row] for row in tokens]
    width = max(map(len, rows)) + padding
    ids: Any = np.array([row + [0] * (width - len(row)) for row in rows], dtype)
    mask: Any = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype)
    inputs = []
    for name, values in (("input_ids", ids), ("attention_mask", mask)):
        tensor = triton.InferInput(name, list(values.shape), np.dtype(dtype).name.upper())
        tensor.set_data_from_numpy(values, binary_data=binary)
        inputs.append(tensor)

    found = client.infer("single", inputs, outputs=[triton.InferRequestedOutput("logits")])

    expected = native(single, ["a good film", "the bus"], raw_scores=True)
    for row, of in zip(found.as_numpy("logits").tolist(), expected, strict=True):
        assert row == pytest.approx([of[x] for x in single_artefact.task.labels], abs=1e-5)


def test_tritonclient_gets_everything_by_default(client: Any) -> None:
    """Without a list of outputs all three come, with the request's id."""
    found = client.infer("single", [text_input(TEXTS, binary=True)], request_id="mine")

    reply = found.get_response()
    assert [one["name"] for one in reply["outputs"]] == ["labels", "scores", "logits"]
    assert (reply["id"], reply["model_name"], reply["model_version"]) == ("mine", "single", "1")


@pytest.mark.parametrize("name", ["scores", "logits"])
def test_tritonclient_gets_the_best_classes_as_text(client: Any, name: str) -> None:
    """The classification extension: value, index and label, best first."""
    outputs = [triton.InferRequestedOutput(name, class_count=1)]

    found = client.infer("single", [text_input(["a film"], binary=True)], outputs=outputs)

    (((best,),),) = (found.as_numpy(name).tolist(),)
    value, index, label = best.decode().split(":")
    assert label == ["negative", "positive"][int(index)]
    assert float(value) == float(value)


def test_tritonclient_reads_the_metadata(client: Any) -> None:
    """Health, the server's extensions, and the model's inputs and outputs."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("single")
    assert client.is_model_ready("single", "1")
    assert not client.is_model_ready("single", "2")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    model = client.get_model_metadata("single", "1")
    assert (model["name"], model["versions"]) == ("single", ["1"])
    assert [one["name"] for one in model["inputs"]] == [
        "text", "input_ids", "attention_mask", "token_type_ids",
    ]  # fmt: skip
    assert model["outputs"][1] == {"name": "scores", "datatype": "FP32", "shape": [-1, 2]}


def test_tritonclient_is_told_what_is_wrong(client: Any) -> None:
    """Its exception has our text, for a model, a version and an input that do not exist."""
    good = text_input(["a"], binary=True)
    with pytest.raises(InferenceServerException, match="no such model; got other"):
        client.infer("other", [good])
    with pytest.raises(InferenceServerException, match="no such version"):
        client.infer("single", [good], model_version="2")
    with pytest.raises(InferenceServerException, match="a text is empty"):
        client.infer("single", [text_input([" "], binary=True)])
    with pytest.raises(InferenceServerException, match="no such output"):
        client.infer("single", [good], outputs=[triton.InferRequestedOutput("x")])
    with pytest.raises(InferenceServerException, match="compressed bodies"):
        client.infer("single", [good], request_compression_algorithm="gzip")


def test_tritonclient_unloads_and_loads(single_artefact: Artefact) -> None:
    """An unloaded model takes no requests and is listed with the reason, until it is loaded."""
    with client_of(lambda: open_served(single_artefact.folder, threads=1), CONTROLLED) as server:
        index, model = "/v2/repository/index", "/v2/repository/models/single"
        body = one_text()
        before = server.post(INFER.format("single"), json=body).json()

        for _ in range(2):  # what is done already is no error
            assert server.post(f"{model}/unload").status_code == 200
            assert server.post(INFER.format("single"), json=body).status_code == 503
            assert server.post("/predict", json={"inputs": "a"}).status_code == 503
            assert server.get("/v2/health/ready").status_code == 503
            assert (server.get("/livez").status_code, server.get("/readyz").status_code) == (
                200,
                503,
            )
        (listed,) = server.post(index).json()
        assert listed == {
            "name": "single", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded",
        }  # fmt: skip
        assert server.post(index, json={"ready": True}).json() == []

        for _ in range(2):
            assert server.post(f"{model}/load", json={}).status_code == 200
            assert server.post(INFER.format("single"), json=body).json() == before
        (listed,) = server.post(index, json={"ready": True}).json()
        assert (listed["state"], listed["reason"]) == ("READY", "")
        assert "spd_build_info" in server.get("/metrics").text


def test_tritonclient_manages_the_repository(client: Any) -> None:
    """Its calls of the repository work; another model, and other files, are refused."""
    assert client.get_model_repository_index()[0]["state"] == "READY"
    client.load_model("single")
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="no such model"):
            call("other")
    with pytest.raises(InferenceServerException, match="no other files"):
        client.load_model("single", config="{}")
    assert client.is_server_ready()


def test_a_model_that_does_not_open_again_is_told(tmp_path: Path) -> None:
    """A load that fails is 400 with the reason, also in the index; the server goes on."""
    opened: list[int] = []

    def once() -> Any:
        opened.append(1)
        if len(opened) == 2:
            raise BadArtefact("the folder is gone", fix="bring it back")
        return fake_served(tmp_path, FakeSession())

    with client_of(once, CONTROLLED) as server:
        model = "/v2/repository/models/fake"
        server.post(f"{model}/unload")

        failed = server.post(f"{model}/load")

        assert failed.status_code == 400
        assert "the folder is gone" in failed.json()["error"]
        (listed,) = server.post("/v2/repository/index").json()
        assert "the folder is gone" in listed["reason"]
        assert server.get("/livez").status_code == 200
        assert server.post(f"{model}/load").status_code == 200
        assert server.get("/readyz").status_code == 200


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_clients_control_the_model_only_where_they_may(fake: TestClient, verb: str) -> None:
    """Without the operator's word the request is refused, and the model goes on."""
    answer = fake.post(f"/v2/repository/models/fake/{verb}", json={})

    assert answer.status_code == 400
    assert "--model-control" in answer.json()["error"]
    assert fake.get("/readyz").status_code == 200


def test_a_page_of_another_site_cannot_unload(fake: TestClient) -> None:
    """A browser says where a request comes from; a body without JSON's media type needs it."""
    other = {"Sec-Fetch-Site": "cross-site"}

    answer = fake.post("/v2/repository/models/fake/unload", headers=other)

    assert answer.status_code == 415
    assert fake.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "SPD_MALFORMED"),
        ({"inputs": []}, "SPD_MALFORMED"),
        (one_text(4), "SPD_MALFORMED"),
        (one_text(data="a"), "SPD_MALFORMED"),
        (one_text(data=None), "SPD_MALFORMED"),
        (one_text(""), "SPD_EMPTY_TEXT"),
        (one_text(shape=[2]), "SPD_MALFORMED"),
        (one_text(shape=[-1]), "SPD_MALFORMED"),
        (one_text(shape=[1, 1, 1]), "SPD_MALFORMED"),
        (one_text(shape=[]), "SPD_MALFORMED"),
        (one_text(shape=[0], data=[]), "SPD_EMPTY_TEXT"),
        (one_text(shape=[33], data=["a"] * 33), "SPD_TOO_MANY_INPUTS"),
        (one_text(datatype="FP32"), "SPD_MALFORMED"),
        (one_text(datatype="INT64", data=[1]), "SPD_MALFORMED"),
        (one_text(name="x"), "SPD_MALFORMED"),
        (one_text(name="text_pair"), "SPD_MALFORMED"),
        (one_text(parameters={"binary_data_size": 5}), "SPD_MALFORMED"),
        (one_text(parameters={"binary_data_size": -1}), "SPD_MALFORMED"),
        ({"inputs": one_text()["inputs"] * 2}, "SPD_MALFORMED"),
        ({**one_text(), "outputs": [{"name": "x"}]}, "SPD_MALFORMED"),
        ({**one_text(), "parameters": {"truncate": 1}}, "SPD_MALFORMED"),
        ({**one_text("a " * 60), "parameters": {"truncate": False}}, "SPD_TEXT_TOO_LONG"),
        ({**one_text(), "outputs": [{"name": "labels", "parameters": {"classification": 1}}]},
         "SPD_MALFORMED"),
        (one_text(name="input_ids", shape=[1, 1], datatype="INT64", data=[10**9]), "SPD_MALFORMED"),
        (one_text(name="input_ids", shape=[1, 1], datatype="INT64", data=[-1]), "SPD_MALFORMED"),
        (one_text(name="input_ids", shape=[1, 1], datatype="INT64", data=[True]), "SPD_MALFORMED"),
        (one_text(name="input_ids", shape=[1, 0], datatype="INT64", data=[]), "SPD_EMPTY_TEXT"),
        (one_text(name="input_ids", shape=[1], datatype="INT64", data=[1]), "SPD_MALFORMED"),
        (one_text(name="input_ids", shape=[1, 33], datatype="INT64", data=[1] * 33),
         "SPD_TEXT_TOO_LONG"),
    ],
)  # fmt: skip
def test_a_bad_request_is_400(single: TestClient, body: object, code: str) -> None:
    """Whatever is wrong is told in a small body whose ``error`` is a text."""
    answer = single.post(INFER.format("single"), json=body)

    assert answer.status_code == 400
    assert ErrorBody.model_validate_json(answer.content, strict=True).code == code
    assert len(answer.content) < 600


def ids_with(**other: list[list[int]]) -> dict[str, Any]:
    """A body of three token ids with other tensors."""
    tensors = {"input_ids": [[1, 2, 3]], **other}
    return {
        "inputs": [
            {"name": name, "shape": [len(v), len(v[0])], "datatype": "INT64", "data": v}
            for name, v in tensors.items()
        ]
    }


@pytest.mark.parametrize(
    "other",
    [
        {"attention_mask": [[0, 1, 1]]},
        {"attention_mask": [[1, 0, 1]]},
        {"attention_mask": [[2, 1, 1]]},
        {"attention_mask": [[0, 0, 0]]},
        {"attention_mask": [[1, 1]]},
        {"token_type_ids": [[0, 0, 2]]},
        {"text": [[1, 2, 3]]},
    ],
)
def test_a_mask_or_type_that_the_model_was_not_trained_with_is_refused(
    single: TestClient, other: dict[str, list[list[int]]]
) -> None:
    """Padding is on the right, and types are those of the tokenizer."""
    assert single.post(INFER.format("single"), json=ids_with(**other)).status_code == 400


def test_a_pair_by_its_ids_is_the_pair(pairs: TestClient, pair_artefact: Artefact) -> None:
    """Ids with their types give the scores of the two texts."""
    tokenizer = open_served(pair_artefact.folder, threads=1).tokenizer
    row = tokenizer.encode("a film", "the bus")
    body = ids_with(input_ids=[list(row.ids)], token_type_ids=[list(row.types)])
    texts = {
        "inputs": [
            {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}
            for name, text in (("text", "a film"), ("text_pair", "the bus"))
        ]
    }

    by_ids = pairs.post(INFER.format("pair"), json=body).json()["outputs"]
    by_text = pairs.post(INFER.format("pair"), json=texts).json()["outputs"]

    assert by_ids[2]["data"] == pytest.approx(by_text[2]["data"], abs=1e-6)


def test_a_whole_number_is_whole_however_it_is_written(single: TestClient) -> None:
    """JSON has one kind of number, so 2.0 is taken where 2 is, in every protocol with ids."""
    tensor = {"name": "input_ids", "shape": [1.0, 3.0], "datatype": "INT64", "data": [2.0, 5.0, 3]}
    plain = {**tensor, "shape": [1, 3], "data": [2, 5, 3]}

    found, expected = (
        single.post(INFER.format("single"), json={"inputs": [one]}).json()
        for one in (tensor, plain)
    )

    assert found == expected
    vllm = single.post("/classify", json={"input": [2.0, 5.0, 3], "truncate_prompt_tokens": -1.0})
    assert vllm.json()["data"][0]["label"] == found["outputs"][0]["data"][0]


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        (struct.pack("<I", 9) + b"a", None),
        (b"\1", None),
        (struct.pack("<I", 1) + b"\xff", None),
        (struct.pack("<I", 1) + b"a", "x"),
        (struct.pack("<I", 1) + b"a", "9999999"),
        (struct.pack("<I", 1) + b"a" + b"more", None),
    ],
)
def test_raw_bytes_that_do_not_fit_are_400(
    single: TestClient, raw: bytes, length: str | None
) -> None:
    """Bytes that end within an element, are no UTF-8, or are too many are refused."""
    told = len(raw) - 4 if raw.endswith(b"more") else len(raw)
    head = json.dumps(one_text(parameters={"binary_data_size": told}, data=None)).encode()

    answer = single.post(
        INFER.format("single"),
        content=head + raw,
        headers={HEADER_LENGTH: length or str(len(head))},
    )

    assert answer.status_code == 400
    assert ErrorBody.model_validate_json(answer.content).code == "SPD_MALFORMED"


def test_every_answer_has_its_timing(single: TestClient) -> None:
    """``Server-Timing`` is there in JSON and in binary replies."""
    body = one_text()
    binary = {**body, "parameters": {"binary_data_output": True}}

    for one in (body, binary):
        assert "run;dur=" in single.post(INFER.format("single"), json=one).headers["Server-Timing"]
