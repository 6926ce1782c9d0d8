"""Other people's clients against a running server: what they send is answered as they expect."""

from collections.abc import Iterator

import pytest
from huggingface_hub import InferenceClient, constants

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.answers import answers_of
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.sessions.open import open_path
from tests.cli.test_serve import Server, serving


@pytest.fixture(scope="module")
def artefact(dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """An artefact to serve."""
    return artefact_from_checkpoint(dense_checkpoint, tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture(scope="module")
def server(artefact: Artefact) -> Iterator[Server]:
    """A running server."""
    with serving(artefact.folder) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/predict", {}),
        ("/predict", {"top_k": 1}),
        ("/predict", {"function_to_apply": "softmax"}),
        ("/", {}),
        ("/invocations", {}),
    ],
)
def test_hugging_faces_client_is_answered_as_by_tei(
    server: Server,
    artefact: Artefact,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    more: dict[str, object],
) -> None:
    """``InferenceClient.text_classification`` gives the best label, as it does of TEI."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the server is on this machine
    client = InferenceClient(f"http://127.0.0.1:{server.port}{path}")

    found = client.text_classification("a good film", **more)  # type: ignore[arg-type]

    opened = open_path(artefact.folder, threads=1)
    with opened.session:
        row = opened.tokenizer.encode("a good film")
        (logits_C,) = opened.session.run(opened.tokenizer.pad([row]))
    best = answers_of(artefact.task, logits_C)[0]
    assert (found.label, found.score) == (best.label, pytest.approx(best.score))  # type: ignore[attr-defined]
