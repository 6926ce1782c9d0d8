"""Sharing a batch out among threads changes no answer, loses no row, and leaves no thread idle."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.text import Batch, Tokens, pad
from spd_deploy.sessions import onnxruntime as onnxruntime_session
from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession
from spd_deploy.sessions.open import many_rows
from spd_deploy.sessions.row_parallel import CHUNK_TOKENS, chunks_of, joined, lengths_of, part_of


def rows_of(lengths: list[int], seed: int = 0) -> list[Tokens]:
    draw = np.random.default_rng(seed)
    return [Tokens(ids=tuple(draw.integers(1, 90, n).tolist()), types=(0,) * n) for n in lengths]


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40), threads=st.integers(1, 8))
def test_every_row_is_in_one_chunk(lengths: list[int], threads: int) -> None:
    """Chunks are a multiple of the threads, or one a row, or there is one alone."""
    batch = pad(rows_of(lengths), pad_id=0)

    chunks = chunks_of(batch.mask_BS, threads)

    assert sorted(np.concatenate(chunks).tolist()) == list(range(len(lengths)))
    if len(chunks) > 1:
        more = len(chunks) + threads - len(chunks) % threads  # the next multiple
        assert len(chunks) % threads == 0 or len(chunks) == len(lengths) < more
        assert max(map(len, chunks)) - min(map(len, chunks)) <= 1
        assert (max(map(len, chunks)) - 1) * batch.ids_BS.shape[1] < CHUNK_TOKENS + max(lengths)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40), threads=st.integers(2, 8))
def test_the_longest_rows_come_first(lengths: list[int], threads: int) -> None:
    """No row is longer than one of a chunk before, so the last chunk is the smallest."""
    chunks = chunks_of(pad(rows_of(lengths), pad_id=0).mask_BS, threads)

    if len(chunks) > 1:
        ordered = [lengths[i] for chunk in chunks for i in chunk]
        work = [len(chunk) * max(lengths[i] for i in chunk) for chunk in chunks]
        assert ordered == sorted(lengths, reverse=True)
        assert work[-1] == min(work)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12), threads=st.integers(2, 4))
def test_chunks_have_little_padding(lengths: list[int], threads: int) -> None:
    """A chunk is as wide as its longest row, and holds each row as it was."""
    rows = rows_of(lengths)
    batch = pad(rows, pad_id=0)
    assert lengths_of(batch.mask_BS).tolist() == lengths

    for numbers in chunks_of(batch.mask_BS, threads):
        part = part_of(batch, numbers)
        assert part.ids_BS.shape == (len(numbers), max(lengths[i] for i in numbers))
        for place, number in enumerate(numbers):
            kept = part.ids_BS[place][part.mask_BS[place] == 1]
            assert tuple(kept.tolist()) == rows[number].ids


def test_a_row_that_is_all_padding_stays() -> None:
    """It is one column wide, as no model takes less."""
    mask_BS = np.zeros((2, 5), np.int64)

    assert lengths_of(mask_BS).tolist() == [0, 0]
    empty = pad(rows_of([5, 5]), pad_id=0)
    part = part_of(type(empty)(ids_BS=empty.ids_BS, mask_BS=mask_BS, types_BS=empty.types_BS),
                   np.array([0]))  # fmt: skip
    assert part.ids_BS.shape == (1, 1)


@pytest.mark.parametrize(
    ("rows", "threads", "chunks"), [(1, 2, 1), (3, 2, 1), (8, 1, 1), (8, 2, 4)]
)
def test_few_rows_are_not_shared_out(rows: int, threads: int, chunks: int) -> None:
    """One row, one thread, or rows that would leave a thread idle too long: all in one."""
    assert len(chunks_of(np.ones((rows, 128), np.int64), threads)) == chunks


def test_results_come_in_the_order_of_the_batch() -> None:
    """Chunks may hold the rows in any order."""
    rows = [np.array([2, 0]), np.array([1])]
    parts = [np.array([[2.0], [0.0]], np.float32), np.array([[1.0]], np.float32)]

    assert joined(parts, rows).tolist() == [[0.0], [1.0], [2.0]]


@pytest.fixture(scope="module")
def artefact(block_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return artefact_from_checkpoint(block_checkpoint, tmp_path_factory.mktemp("chunks") / "a")


@pytest.mark.parametrize("lengths", [[5] * 8, [1, 64, 3, 17, 64, 2], [64] * 16])
def test_threads_of_their_own_change_no_answer(artefact: Artefact, lengths: list[int]) -> None:
    """Two threads with rows of their own give what one thread gives for the whole batch."""
    file: Path = artefact.folder / MODEL_FILE
    batch = pad(rows_of(lengths), pad_id=0)

    with OnnxSession(file, precision="fp32", threads=1) as whole:
        expected = whole.run(batch)
    with OnnxSession(file, precision="fp32", threads=2) as shared:
        found = [shared.run(batch) for _ in range(2)]

    for logits in found:
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_what_was_verified_is_what_runs(artefact: Artefact, tmp_path: Path) -> None:
    """A session shares nothing with the file once it is open: gone or replaced, it answers on."""
    folder = Path(shutil.copytree(artefact.folder, tmp_path / "served"))
    batch = pad(rows_of([5] * 8), pad_id=0)

    with OnnxSession(folder / MODEL_FILE, precision="fp32", threads=2) as session:
        expected = session.run(pad(rows_of([5] * 8)[:1], pad_id=0))
        shutil.rmtree(folder)
        found = session.run(batch)

    np.testing.assert_allclose(found[:1], expected, rtol=1e-4, atol=1e-5)


def test_many_rows_do_run_in_chunks(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight rows on two threads each run takes a chunk, and a chunk that fails is told."""
    sizes: list[int] = []
    real = onnxruntime_session._values

    def seen(session: Any, names: Any, batch: Batch) -> Any:
        sizes.append(len(batch.ids_BS))
        return real(session, names, batch)

    monkeypatch.setattr(onnxruntime_session, "_values", seen)
    batch = pad(rows_of([64] * 8), pad_id=0)
    with OnnxSession(artefact.folder / MODEL_FILE, precision="fp32", threads=2) as session:
        session.run(batch)
        assert sorted(sizes) == sorted(map(len, chunks_of(batch.mask_BS, 2)))
        beyond = Batch(ids_BS=batch.ids_BS + 10**6, mask_BS=batch.mask_BS, types_BS=batch.types_BS)
        with pytest.raises(EngineFailed):
            session.run(beyond)


def test_a_closed_session_does_not_run(artefact: Artefact) -> None:
    """Neither one row nor many: the model is gone."""
    session = OnnxSession(artefact.folder / MODEL_FILE, precision="fp32", threads=2)
    session.close()

    for rows in (1, 8):
        with pytest.raises(EngineFailed, match="closed"):
            session.run(pad(rows_of([5] * rows), pad_id=0))


def test_the_golden_rows_are_shared_out_too(artefact: Artefact) -> None:
    """The self-test runs rows enough for every thread, with the logits that belong to them."""
    golden = artefact.golden()

    many = many_rows(golden, threads=16)

    assert len(chunks_of(many.batch.mask_BS, 16)) >= 16
    with OnnxSession(artefact.folder / MODEL_FILE, precision="fp32", threads=1) as session:
        np.testing.assert_allclose(session.run(many.batch), many.logits_BC, rtol=1e-3, atol=1e-4)
