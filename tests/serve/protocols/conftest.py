"""A model that reranks: a pair has one score, as of a cross-encoder."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from exporters.export import artefact_from_checkpoint
from serve.open_model import open_served
from spd_deploy.domain.artefact import Artefact
from tests.serve.clients import client_of
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def reranker_artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """A cross-encoder: one output, read as a probability."""
    folder = tmp_path_factory.mktemp("reranker")
    checkpoint = tiny_checkpoint(folder / "model", task="stsb", seed=2)
    cross_encoder = replace(checkpoint, task=replace(checkpoint.task, sigmoid=True))
    return artefact_from_checkpoint(cross_encoder, folder / "reranker")


@pytest.fixture(scope="module")
def reranker(reranker_artefact: Artefact) -> Iterator[TestClient]:
    """A client of a server of it."""
    with client_of(lambda: open_served(reranker_artefact.folder, threads=1)) as client:
        yield client
