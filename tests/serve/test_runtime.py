"""The server in OpenVINO."""

from pathlib import Path

from starlette.testclient import TestClient

from serve.open_model import open_served
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from tests.portable import with_portable
from tests.serve.clients import client_of

BODY = {
    "inputs": [
        {"text": "a great film", "text_pair": "a bad film"},
        {"text": "I hate it", "text_pair": "never , but it was not the ending that I hate"},
    ],
    "raw_scores": True,
}


def scores_by(client: TestClient) -> list[dict[str, float]]:
    """The logits of each input, by label."""
    results = client.post("/v1/classify", json=BODY).raise_for_status().json()["results"]
    return [{one["label"]: one["score"] for one in result["labels"]} for result in results]


def test_the_server_answers_from_the_runtime_asked_for(
    pair_artefact: Artefact, pairs: TestClient, tmp_path: Path
) -> None:
    """OpenVINO, in the engine's thread, gives ONNX Runtime's logits; /info says which one ran."""
    artefact = with_portable(pair_artefact, tmp_path / "a")
    served = open_served(artefact.folder, runtime_choice=RUNTIME_CHOICES["openvino"], threads=1)
    with client_of(served) as client:
        found, info = scores_by(client), client.get("/info").json()

    assert info["runtime"]["runtime"] == "openvino"
    assert info["self_test"] <= artefact.manifest.parity.tolerance
    for one, other in zip(found, scores_by(pairs), strict=True):
        assert one.keys() == other.keys()
        assert all(abs(one[label] - other[label]) < 1e-4 for label in one)
