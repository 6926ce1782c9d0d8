"""A file on Ray: the output of one machine, whoever dies meanwhile."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from spd_deploy.api.loading import Model
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import Interrupted, Unavailable
from spd_deploy.domain.long_texts import LongTextChoice, LongTexts
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.runtime_choice import RuntimeChoice
from spd_deploy.domain.text import Tokens
from spd_deploy.scale.answer_formats import format_of
from spd_deploy.scale.chunks import Chunk
from spd_deploy.scale.file_request import FileRequest
from spd_deploy.scale.predict_file import Streams, predict_file
from spd_deploy.scale.ray_model import RaySession, model_on_ray
from spd_deploy.sessions.open import OpenedModel
from spd_train.data.broken_rows import BrokenRows
from spd_train.data.rows import DataRow
from tests.scale.predictions import LIMITS, ROWS, WORDS, after, lines, predict
from tests.scale.ray_processes import kill_workers, wait_until_free

pytestmark = pytest.mark.usefixtures("started_ray")


@contextlib.contextmanager
def on_ray(artefact: Artefact, threads: int = 1) -> Iterator[OpenedModel]:
    with model_on_ray(
        artefact.folder,
        "local",
        choice=RuntimeChoice(),
        device=None,
        threads=threads,
        note=lambda _: None,
    ) as opened:
        yield opened


def test_a_file_on_ray_is_that_of_one_machine(
    artefact: Artefact, model: Model, tmp_path: Path
) -> None:
    """Byte for byte, with texts in windows, where all actors die, or a stopped run goes on."""
    rows = [*ROWS, {"id": 100, "text": " ".join(WORDS * 40)}]
    (tmp_path / "in.jsonl").write_text(lines(rows))
    windows = LongTextChoice(long_texts=LongTexts.WINDOWS)
    predict(model, tmp_path / "in.jsonl", tmp_path / "home.csv", windows=windows)

    with on_ray(artefact) as opened:
        killed = iter([True])

        def kill_once() -> bool:
            if next(killed, False):
                kill_workers("ModelActor")
            return False

        for name, stopped in (("whole.csv", kill_once), ("stopped.csv", after(3))):
            request = FileRequest(
                input=tmp_path / "in.jsonl",
                output=tmp_path / name,
                format=format_of(tmp_path / name, None, "jsonl"),
                limits=LIMITS,
                windows=windows,
            )
            expected = pytest.raises(Interrupted) if name == "stopped.csv" else None
            with expected or contextlib.nullcontext():
                predict_file(
                    opened,
                    request,
                    progress=Silent(),
                    streams=Streams(input=io.BytesIO(), output=io.BytesIO()),
                    stopped=stopped,
                )
    predict(model, tmp_path / "in.jsonl", tmp_path / "stopped.csv", resume=True, windows=windows)

    home = (tmp_path / "home.csv").read_bytes()
    assert (tmp_path / "whole.csv").read_bytes() == home
    assert (tmp_path / "stopped.csv").read_bytes() == home


def test_rows_that_fail_on_ray_are_named(artefact: Artefact, started_ray: ModuleType) -> None:
    """The error has the lines of the chunk and the reason; who keeps it keeps no actor."""
    rows = [DataRow(file=Path("in.jsonl"), line=line) for line in (41, 47)]
    unknown = Tokens(ids=(10**6,), types=(0,))
    chunk = Chunk(rows=rows, tokens=[unknown, unknown], read=47, broken=BrokenRows())

    with on_ray(artefact) as opened, pytest.raises(Unavailable) as failed:
        assert isinstance(opened.session, RaySession)
        list(opened.session.answered(iter([chunk]), lambda _: None, lambda _: None))

    assert failed.value.what == "in.jsonl, line 41 to 47: these rows failed"
    assert failed.value.got
    wait_until_free(started_ray)


def test_what_does_not_fit_into_ray_is_refused(artefact: Artefact, started_ray: ModuleType) -> None:
    """Actors larger than the largest machine would wait for ever, and so would those for a GPU."""
    with (
        pytest.raises(Unavailable, match=r"has 3 cores; got 2 on the largest"),
        on_ray(artefact, 3),
    ):
        pass
    assert started_ray.is_initialized()
