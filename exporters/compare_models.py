"""Checkpoints beside each other as they are exported: scored, and timed in interleaved rounds.

Each checkpoint is exported once a precision into a scratch folder. The session that scores a model
is of the same files as the one that is timed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import geometric_mean

from exporters.autotune.networks import random_run
from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.precision import CalibrationSet, Precision, Scores
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.compared_model import ComparedModel
from spd_deploy.domain.progress import Advance, Progress, Silent
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.shapes import Shape
from spd_deploy.sessions.open import session_from_artefact
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.host_clock import TimingSettings
from spd_deploy.timing.interleaved import Run, time_interleaved

# As long as an arm of `spd bench` is timed at one shape.
_TIMING = TimingSettings(seconds=5.0, rounds=6)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelForm:
    """A checkpoint in one of the forms in which it can be served.

    Attributes:
        name: name of the model.
        checkpoint: folder of the checkpoint.
        runtime: runtime of the form.
        precision: ``fp32``, ``int8``, or OpenVINO's ``bf16``.
    """

    name: str
    checkpoint: Path
    runtime: CpuRuntime
    precision: str

    @property
    def stored(self) -> Precision:
        """The precision of the exported files. OpenVINO rounds fp32 files to bf16 itself."""
        return Precision.FP32 if self.precision == "bf16" else Precision(self.precision)


def compare_models(
    forms: Sequence[ModelForm],
    shapes: Sequence[Shape],
    *,
    threads: int,
    texts: Callable[[Checkpoint], CalibrationSet],
    timing: TimingSettings = _TIMING,
    progress: Progress | None = None,
) -> tuple[ComparedModel, ...]:
    """Export, score and time the forms, in their order.

    Args:
        forms: models in the forms to compare.
        shapes: shapes of the batches to time.
        threads: threads of the runtimes.
        texts: gives the texts that a checkpoint is calibrated and scored on.
        timing: time of a form at one shape, and its rounds.
        progress: reports what is done.

    Raises:
        SpdError: a checkpoint cannot be exported, or a runtime does not run here.
    """
    progress = progress or Silent()
    with scratch_folder("compare") as scratch:
        scored = list(_scored(forms, scratch, threads, texts, progress))
        with progress.stage("time in turns", timing.rounds * len(forms)) as advance:
            openers = {
                form: partial(_opened, form, artefact, shapes, threads, advance)
                for form, (artefact, _) in zip(forms, scored, strict=True)
            }
            times = time_interleaved(openers, shapes, timing)
    return tuple(
        ComparedModel(
            name=form.name,
            runtime=form.runtime,
            precision=form.precision,
            rounds_s=tuple(map(geometric_mean, zip(*times[form], strict=True))),
            scores=dict(scores),
        )
        for form, (_, scores) in zip(forms, scored, strict=True)
    )


def _scored(
    forms: Sequence[ModelForm],
    scratch: Path,
    threads: int,
    texts: Callable[[Checkpoint], CalibrationSet],
    progress: Progress,
) -> Iterator[tuple[Artefact, Scores]]:
    """The artefact of each form, and its scores. Forms of the same files share an artefact."""
    artefacts: dict[tuple[Path, Precision], Artefact] = {}
    texts_of: dict[Path, CalibrationSet] = {}
    with progress.stage("export and score", len(forms)) as advance:
        for form in forms:
            checkpoint = open_checkpoint(form.checkpoint)
            if form.checkpoint not in texts_of:
                texts_of[form.checkpoint] = texts(checkpoint)
            found = texts_of[form.checkpoint]
            key = (form.checkpoint, form.stored)
            if key not in artefacts:
                folder = scratch / str(len(artefacts))
                artefacts[key] = _exported(checkpoint, form.stored, folder, found)
            with _session(form, artefacts[key], threads) as session:
                scores = found.score(session)
            advance(note=form.name)
            yield artefacts[key], scores


def _exported(
    checkpoint: Checkpoint, precision: Precision, folder: Path, texts: CalibrationSet
) -> Artefact:
    """The checkpoint as an artefact of ONNX graphs in ``precision``."""
    calibration_set = texts if precision.calibrated else None
    request = ExportRequest(precision=precision, calibration_set=calibration_set)
    return artefact_from_checkpoint(checkpoint, folder, request)


def _session(form: ModelForm, artefact: Artefact, threads: int) -> Session:
    """A session of the form."""
    return session_from_artefact(
        artefact, runtime=form.runtime, precision=form.precision, threads=threads
    )


@contextmanager
def _opened(
    form: ModelForm,
    artefact: Artefact,
    shapes: Sequence[Shape],
    threads: int,
    advance: Advance,
) -> Iterator[Run]:
    """A function that runs the form once at a shape, on random token ids."""
    with _session(form, artefact, threads) as session:
        yield random_run(session, artefact.encoder.vocabulary, shapes)
    advance()
