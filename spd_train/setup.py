"""What both trainings need before they start: token ids, samples, calibration texts, the loop."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedModel

from spd_deploy.domain.checkpoint import Scores
from spd_deploy.domain.metrics import merged_scores
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.text import TOKENIZER_FILE, Lengths, Tokenizer
from spd_deploy.sessions.checkpoint_tokenizer import refuse_unembedded
from spd_train.data.batches import LabelledTokens, batches_per_epoch, by_length, tokenise
from spd_train.data.tensors import batch_of
from spd_train.model import encoder_sizes
from spd_train.pruning.calibration import Autocast, Calibration
from spd_train.training.device import Place
from spd_train.training.distributed import Distributed
from spd_train.training.loop import Loop
from spd_train.training.mixed_precision import choose_precision
from spd_train.training.scoring import Samples

if TYPE_CHECKING:
    from spd_train.run import TrainConfig

_CALIBRATION_BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Rows as token ids, where the training takes place, and the loop's settings."""

    rows: list[LabelledTokens]
    dev: Mapping[str, list[LabelledTokens]]
    place: Place
    loop: Loop

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return batches_per_epoch(len(self.rows), self.loop.batch_size)


def prepare(
    request: "TrainConfig",
    model: PreTrainedModel,
    folder: Path,
    processes: Distributed,
    progress: Progress,
) -> Prepared:
    """Tokenise the data as the model's tokenizer does, tell how long it is, set up the loop."""
    recipe = request.recipe
    encoder = encoder_sizes(model)
    max_tokens = min(recipe.max_tokens, encoder.positions)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE, max_tokens=max_tokens)
    types = getattr(model.config, "type_vocab_size", None)
    refuse_unembedded(tokenizer, encoder, request.teacher or request.model, types=types)
    rows = tokenise(request.data.train, tokenizer)
    samples = Samples.of(rows, tokenise(request.data.holdout, tokenizer))
    dev = {name: tokenise(part, tokenizer) for name, part in request.data.dev.items()}
    if processes.is_main and _is_first(request, folder):
        measured = [row for part in dev.values() for row in part]
        named = {"train": [*rows, *samples.holdout], "dev": measured}
        for line in lengths_told(named, max_tokens, raised=max_tokens == recipe.max_tokens):
            progress.note(line)
    precision = choose_precision(recipe.precision, recipe.device)
    settings = json.dumps(request.settings(), sort_keys=True)
    return Prepared(
        rows=rows,
        dev=dev,
        place=Place(
            samples=samples,
            precision=precision,
            seed=recipe.seed,
            pad_id=tokenizer.pad_id,
            special_ids=tokenizer.special_ids,
            processes=processes,
        ),
        loop=Loop(
            folder=folder,
            fingerprint=hashlib.sha256(settings.encode()).hexdigest(),
            metrics=request.task.metrics,
            batch_size=recipe.batch_size,
            accumulate=recipe.accumulate,
            pad_id=tokenizer.pad_id,
            seed=recipe.seed,
            processes=processes,
            precision=precision,
            should_stop=request.should_stop,
        ),
    )


def lengths_told(
    parts: Mapping[str, Sequence[LabelledTokens]], limit: int, *, raised: bool
) -> list[str]:
    """How long the texts of each part are, and how many are cut at ``limit`` tokens.

    Args:
        parts: rows by what they are for.
        limit: tokens that a text is cut to.
        raised: ``--max-tokens`` decides the limit, and not the model's positions.
    """
    lengths = {
        name: Lengths.of([row.tokens for row in rows], limit=limit) for name, rows in parts.items()
    }
    lines = [f"lengths of {name}: {found}" for name, found in lengths.items()]
    if any(found.cut for found in lengths.values()):
        why = (
            "a higher --max-tokens cuts fewer texts, and takes longer"
            if raised
            else "the model reads no longer texts"
        )
        lines[-1] += f" ({why})"
    return lines


def _is_first(request: "TrainConfig", folder: Path) -> bool:
    """Whether this is the run's first training: the student's follows a teacher's mostly."""
    follows = folder == request.output and request.recipe.pattern is not None
    return not follows or request.teacher is not None or request.resume


def calibration_of(prepared: Prepared, tokens: int) -> Calibration:
    """Training texts of about ``tokens`` in all, the same ones for every run on the same data."""
    place, loop = prepared.place, prepared.loop
    return calibration_on(
        prepared.rows,
        tokens,
        pad_id=place.pad_id,
        device=place.processes.device,
        autocast=lambda: loop.precision.autocast(loop.processes.kind),
    )


def calibration_on(
    rows: Sequence[LabelledTokens], tokens: int, *, pad_id: int, device: str, autocast: Autocast
) -> Calibration:
    """As many of ``rows``, drawn at random but the same every time, as have ``tokens`` in all."""
    shuffled = np.random.default_rng(0).permutation(len(rows)).tolist()
    ends = np.cumsum([len(rows[i].tokens) for i in shuffled])
    count = min(len(shuffled), int(np.searchsorted(ends, tokens)) + 1)
    texts = [rows[i] for i in shuffled[:count]]
    order = by_length([len(t.tokens) for t in texts], batch_size=_CALIBRATION_BATCH)
    return Calibration(
        batches=[batch_of([texts[i] for i in b], pad_id=pad_id, device=device) for b in order],
        autocast=autocast,
    )


def score_on_dev(
    dev: Mapping[str, Sequence[LabelledTokens]],
    score: Callable[[Sequence[LabelledTokens]], dict[str, float]],
) -> Scores:
    """The metrics on all of dev, and the loss."""
    return merged_scores({part: score(rows) for part, rows in dev.items()})
