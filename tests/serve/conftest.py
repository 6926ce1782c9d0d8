"""Fixtures of the server's tests: real tiny artefacts, each exported once, and clients of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from exporters.export import artefact_from_checkpoint
from serve.open_model import open_served
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from tests.serve.clients import client_of
from tests.serve.fakes import FakeSession, fake_served


@pytest.fixture(scope="session")
def single_artefact(
    dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Artefact:
    """An artefact that takes single texts."""
    return artefact_from_checkpoint(dense_checkpoint, tmp_path_factory.mktemp("served") / "single")


@pytest.fixture(scope="session")
def pair_artefact(
    block_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Artefact:
    """A block-sparse artefact that takes pairs."""
    return artefact_from_checkpoint(block_checkpoint, tmp_path_factory.mktemp("served") / "pair")


@pytest.fixture(scope="module")
def single(single_artefact: Artefact) -> Iterator[TestClient]:
    """A client of a server of single texts."""
    with client_of(lambda: open_served(single_artefact.folder, threads=1)) as client:
        yield client


@pytest.fixture(scope="module")
def pairs(pair_artefact: Artefact) -> Iterator[TestClient]:
    """A client of a server of pairs."""
    with client_of(lambda: open_served(pair_artefact.folder, threads=1)) as client:
        yield client


@pytest.fixture
def session() -> FakeSession:
    """A fake session."""
    return FakeSession()


@pytest.fixture
def fake(session: FakeSession, tmp_path: Path) -> Iterator[TestClient]:
    """A client of a server of the fake session."""
    with client_of(fake_served(tmp_path, session)) as client:
        yield client
