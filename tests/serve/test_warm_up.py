"""The warm-up: which shapes run before a model is ready, in which order, and for how long."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import serve.open_model
from serve.model_plan import RuntimeSettings, models_from
from serve.settings import ServeSettings
from serve.warm_up import shapes_to_warm, warm_up
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadArtefact, EngineFailed
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.tasks import task_named
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.torch_network.buckets import bucket_for
from spd_deploy.sessions.torch_network.graphs import MAX_GRAPHS
from tests.serve.fakes import FakeSession, fake_served


class GpuSession(FakeSession):
    """A session that says it is on a GPU, and has memory for so many tokens."""

    def __init__(self, memory: int = 1 << 20) -> None:
        super().__init__()
        self.memory = memory
        self.tried: list[Shape] = []
        self.description = replace(self.description, device="cuda", threads=None)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Remembers the shape; refuses what exceeds the memory."""
        shape = Shape(batch=len(batch), seq=batch.ids_BS.shape[1])
        self.tried.append(shape)
        if shape.tokens > self.memory:
            raise EngineFailed("out of memory", fix="send less")
        return np.zeros((shape.batch, 2), np.float32)


def warmed(
    session: FakeSession,
    folder: Path,
    *,
    task: str = "sst2",
    timeout_s: float = 60.0,
    clock: Iterator[float] | None = None,
) -> list[str]:
    """Warm a fake model up, with batches of 8 rows and 64 tokens, and return what was said."""
    served, said = fake_served(folder, session), list[str]()
    ticks = clock or count(0.0, 0.0)
    warm_up(
        "fake", session, served.tokenizer, task_named(task),
        max_rows=8, max_batch_tokens=64, timeout_s=timeout_s,
        say=said.append, clock=lambda: next(ticks),
    )  # fmt: skip
    return said


@given(max_seq=st.integers(1, 512), max_rows=st.integers(1, 300), tokens=st.integers(1, 20_000))
def test_no_single_text_meets_a_cold_bucket(max_seq: int, max_rows: int, tokens: int) -> None:
    """Every length of one row has its bucket run, by the buckets that a torch session captures."""
    shapes = shapes_to_warm("cuda", max_seq=max_seq, max_rows=max_rows, max_batch_tokens=tokens)
    warm = {bucket_for(one.batch, one.seq, positions=max_seq) for one in shapes}

    singles = {bucket_for(1, seq, positions=max_seq) for seq in range(1, max_seq + 1)}
    assert {one for one in singles if one.tokens <= tokens or one.seq == max_seq} <= warm
    assert len(shapes) == len(set(shapes)) <= MAX_GRAPHS
    assert all(one.batch <= max_rows and one.seq <= max_seq for one in shapes)
    assert all(one.tokens <= tokens or one == Shape(batch=1, seq=max_seq) for one in shapes)


def test_what_needs_most_memory_runs_first() -> None:
    """After the largest shape come the longest row, then few rows before many."""
    shapes = shapes_to_warm("cuda", max_seq=128, max_rows=256, max_batch_tokens=16_384)

    assert list(map(str, shapes[:4])) == ["128x128", "1x128", "1x16", "1x32"]
    assert list(shapes[2:]) == sorted(shapes[2:])


def test_a_cpu_runs_the_shortest_and_the_longest_row() -> None:
    """Shapes cost nothing there, so the server is ready soon."""
    shapes = shapes_to_warm("cpu", max_seq=128, max_rows=256, max_batch_tokens=16_384)

    assert list(map(str, shapes)) == ["1x2", "1x128"]


def test_the_shapes_run_in_the_session(tmp_path: Path) -> None:
    """On a GPU the session gets each shape once, in the order of the plan."""
    session = GpuSession()
    said = warmed(session, tmp_path)
    longest = fake_served(tmp_path, session).tokenizer.max_tokens

    plan = shapes_to_warm("cuda", max_seq=longest, max_rows=8, max_batch_tokens=64)
    assert session.tried == list(plan)
    assert said == []


def test_a_shape_that_does_not_fit_is_told_and_larger_ones_are_left_out(tmp_path: Path) -> None:
    """The model serves what it can, and the operator reads what it cannot."""
    session = GpuSession(memory=40)
    said = warmed(session, tmp_path)

    assert said[0].startswith("model fake does not run ")
    assert sum(one.tokens > 40 for one in session.tried) == len(said)
    assert sum(one.tokens <= 40 for one in session.tried) >= 2


def test_a_model_that_runs_no_row_does_not_serve(tmp_path: Path) -> None:
    """If not even the longest row runs, the model is refused."""
    with pytest.raises(EngineFailed):
        warmed(GpuSession(memory=1), tmp_path)


def test_the_time_is_bounded_and_told(tmp_path: Path) -> None:
    """Progress is told every few seconds; when the time is over, so is what was left."""
    session = GpuSession()
    said = warmed(session, tmp_path, timeout_s=10, clock=count(0.0, 3.0))

    assert len(session.tried) == 3
    assert said[0] == "model fake warms up: 1 of 6 shapes ran in 6 s"
    assert said[1].startswith("model fake: 3 of 6 shapes ran within 10 s")


def test_each_version_is_warmed_up_for_the_batches_of_the_server(
    single_artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What opens a version, at start or for a reload, warms it up by the server's limits."""
    given = list[dict[str, object]]()
    monkeypatch.setattr(serve.open_model, "warm_up", lambda *_, **limits: given.append(limits))
    runtime = RuntimeSettings(choice=RUNTIME_CHOICES["auto"], threads=1)
    settings = ServeSettings(max_batch_rows=3, max_batch_tokens=77, warm_up_timeout_s=5)

    (source,) = models_from([("a", single_artefact.folder)], None, [], runtime, settings).sources
    for _ in range(2):
        source.candidates()[0].open().session.close()

    expected = {"max_rows": 3, "max_batch_tokens": 77, "timeout_s": 5}
    assert [{key: one[key] for key in expected} for one in given] == [expected] * 2


def test_a_model_with_too_many_labels_is_refused(tmp_path: Path) -> None:
    """The number of logits must be the task's, or scores would get wrong names."""
    with pytest.raises(BadArtefact, match="2 logits, 3 expected"):
        warmed(FakeSession(), tmp_path, task="mnli")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_without_numbers_is_refused(tmp_path: Path, value: float) -> None:
    """A model whose logits are not numbers never gets ready."""

    class Empty(FakeSession):
        def run(self, batch: Batch) -> NDArray[np.float32]:
            return np.full((len(batch), 2), value, np.float32)

    with pytest.raises(BadArtefact, match="NaN or infinite"):
        warmed(Empty(), tmp_path)
