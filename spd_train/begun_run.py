"""The frame of every run: the number format, the processes, the output folder and its release."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from spd_deploy.domain.progress import Progress, Silent
from spd_train.run_folder import claim_folder, release_folder
from spd_train.train_config import TrainConfig
from spd_train.training.distributed import Distributed, init_distributed
from spd_train.training.mixed_precision import choose_precision
from spd_train.training.trackers import tracking


@dataclass(frozen=True, kw_only=True, slots=True)
class BegunRun:
    """A run that has its folder.

    Attributes:
        config: the run, with the number format that was chosen for ``auto``.
        distributed: the processes.
        progress: of the main process; silent in the others.
        finished: whether an earlier command finished the run.
    """

    config: TrainConfig
    distributed: Distributed
    progress: Progress
    finished: bool


@contextmanager
def begun_run(
    config: TrainConfig,
    progress: Progress,
    *,
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Iterator[BegunRun]:
    """Claim the output folder; after an error, release it if nothing was trained in it.

    Args:
        config: the run.
        progress: reports how far it is.
        settings: settings beside those of the configuration that decide the result.
        notes: told first if the run is not finished yet.

    Raises:
        NotWritten, BadCheckpoint, BadSetting: as :func:`spd_train.run_folder.claim_folder`.
    """
    precision = choose_precision(config.recipe.precision, config.recipe.device)
    # The number format decides the outcome, so it is stored and a resumed run must have the same.
    config = replace(config, recipe=replace(config.recipe, precision=precision.name))
    distributed = init_distributed(config.recipe.device)
    shown = progress if distributed.is_main else Silent()
    finished = False
    if distributed.is_main:
        finished = claim_folder(
            config.output,
            {**(settings or {}), **config.settings()},
            resume=config.resume,
            command=config.command,
            origins=config.origins,
        )
    finished = distributed.any(finished)
    reason = f"precision: {precision.name}, {precision.reason}"
    for note in [f"{config.output} is finished already"] if finished else [*notes, reason]:
        shown.note(note)
    names = config.track if distributed.is_main and not finished else ()
    on_cpu = distributed.kind == "cpu"
    try:
        with tracking(
            names, config.output, config.settings(), on_cpu=on_cpu, note=shown.note
        ) as on_record:
            yield BegunRun(
                config=replace(config, on_record=on_record),
                distributed=distributed,
                progress=shown,
                finished=finished,
            )
    except BaseException:  # also Ctrl-C: a folder without training must not block the next try
        if distributed.is_main and not config.resume:
            release_folder(config.output)
        raise
