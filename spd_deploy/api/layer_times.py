"""The times of an artefact's layers beside those of a dense model of its sizes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import OptionConflict
from spd_deploy.domain.progress import Progress

if TYPE_CHECKING:
    from spd_deploy.benchmark.layers.analysis import Analysis

# What is measured where nothing else is asked for: rows, tokens, turns, and time for each model.
BATCH, SEQ, ROUNDS, SECONDS = 1, 128, 6, 6.0


def refuse_unused(settings: Mapping[str, object]) -> None:
    """Refuse settings of a measurement that was not asked for.

    Raises:
        OptionConflict: one of them is given.
    """
    for name, value in settings.items():
        if value is not None:
            raise OptionConflict(
                f"--{name} goes with --measure", got=value, fix="add --measure, or leave it out"
            )


def measure_layers(
    artefact: Artefact,
    *,
    batch: int | None,
    seq: int | None,
    threads: int | None,
    seconds: float | None,
    progress: Progress,
) -> "Analysis":
    """The time that each layer of an artefact gained or lost, in ONNX Runtime in fp32.

    Raises:
        BadArtefact: an artefact of another format, or one that reads shorter texts.
    """
    from spd_deploy.benchmark.artefact_arms import check_source, open_source, sources_of
    from spd_deploy.benchmark.layers.analysis import analyse
    from spd_deploy.benchmark.layers.profile_layers import profile_layers, refuse_unmeasurable
    from spd_deploy.benchmark.records import BenchmarkSettings, Shape
    from spd_deploy.domain.cores import default_threads
    from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

    (source,) = sources_of([artefact], [RUNTIME_CHOICES["onnxruntime"]])  # whose profiler it is
    settings = BenchmarkSettings(
        shapes=(Shape(batch=batch or BATCH, seq=seq or min(SEQ, source.max_tokens)),),
        threads=threads or default_threads(),
        rounds=ROUNDS,
        seconds=seconds or SECONDS,
    )
    refuse_unmeasurable(source, settings)
    with open_source(source, settings) as session:
        check_source(source, session)
    (profile,) = profile_layers(source, settings, progress=progress)
    return analyse(profile)
