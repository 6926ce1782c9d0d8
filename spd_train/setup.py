"""The inputs of both trainings before their first step: token ids, samples, settings."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from spd_deploy.domain.checkpoint import Scores
from spd_deploy.domain.long_texts import TextWindows
from spd_deploy.domain.metrics import merged_scores
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_deploy.domain.text_lengths import Lengths
from spd_deploy.sessions.checkpoint_tokenizer import refuse_unembedded
from spd_train.data.batching import (
    LabelledTokens,
    batch_of,
    batches_per_epoch,
    by_length,
    tokenise,
)
from spd_train.model import encoder_sizes
from spd_train.pruning.calibration import Autocast, Calibration
from spd_train.train_config import TrainConfig
from spd_train.training.context import TrainContext
from spd_train.training.distributed import Distributed
from spd_train.training.loop import LoopConfig
from spd_train.training.mixed_precision import choose_precision
from spd_train.training.scoring import Samples

_CALIBRATION_BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRun:
    """The inputs of one training.

    Attributes:
        rows: the training rows as token ids.
        more: unlabelled rows for the student, as token ids.
        dev: the rows to score on at the end, by part; MNLI has two parts.
        context: devices, precision, seed and samples.
        loop: settings of the loop.
        windows: how long texts are read, with the stride that fits the model; None cuts them.
    """

    rows: list[LabelledTokens]
    more: list[LabelledTokens]
    dev: Mapping[str, list[LabelledTokens]]
    context: TrainContext
    loop: LoopConfig
    windows: TextWindows | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch of the labelled rows."""
        return batches_per_epoch(len(self.rows), self.loop.batch_size)

    @property
    def student_rows(self) -> list[LabelledTokens]:
        """The rows of the student: the labelled ones and those that only the teacher labels."""
        return [*self.rows, *self.more]

    @property
    def student_steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch of the student's rows."""
        return batches_per_epoch(len(self.student_rows), self.loop.batch_size)


def prepare_run(
    config: TrainConfig,
    model: PreTrainedModel,
    folder: Path,
    distributed: Distributed,
    progress: Progress,
) -> PreparedRun:
    """Tokenise the data, report how long the texts are, and put the settings together.

    Args:
        config: the run.
        model: gives the largest number of tokens.
        folder: has the tokenizer, and gets the files of the training.
        distributed: the processes of the run.
        progress: reports the lengths, once in a run.
    """
    recipe = config.recipe
    encoder = encoder_sizes(model)
    max_tokens = min(recipe.max_tokens, encoder.positions)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE, max_tokens=max_tokens)
    types = getattr(model.config, "type_vocab_size", None)
    refuse_unembedded(tokenizer, encoder, config.teacher or config.model, types=types)
    tokenizer = tokenizer.in_windows(config.windows, pairs=config.task.has_pair)
    rows = tokenise(config.data.train, tokenizer)
    samples = Samples.of(rows, tokenise(config.data.holdout, tokenizer))
    dev = {name: tokenise(part, tokenizer) for name, part in config.data.dev.items()}
    if distributed.is_main and _is_first_training(config, folder):
        texts = {"train": [*rows, *samples.holdout], "dev": [*chain.from_iterable(dev.values())]}
        for line in length_lines(texts, max_tokens, by_option=max_tokens == recipe.max_tokens):
            progress.note(line)
    settings = json.dumps(config.settings(), sort_keys=True)
    return PreparedRun(
        rows=rows,
        more=tokenise(config.data.more, tokenizer),
        dev=dev,
        context=TrainContext(
            samples=samples,
            precision=choose_precision(recipe.precision, recipe.device),
            seed=recipe.seed,
            pad_id=tokenizer.pad_id,
            special_ids=tokenizer.special_ids,
            distributed=distributed,
        ),
        loop=LoopConfig(
            folder=folder,
            fingerprint=hashlib.sha256(settings.encode()).hexdigest(),
            metrics=config.chosen_by,
            batch_size=recipe.batch_size,
            accumulate=recipe.accumulate,
            should_stop=config.should_stop,
            on_record=partial(config.on_record, folder),
        ),
        windows=tokenizer.windows,
    )


def length_lines(
    parts: Mapping[str, Sequence[LabelledTokens]], limit: int, *, by_option: bool
) -> list[str]:
    """A line for each part: how long its texts are, and how many are cut at ``limit`` tokens.

    Args:
        parts: rows by the name of their part.
        limit: number of tokens that a text is cut to.
        by_option: ``--max-tokens`` sets the limit; False if the model's positions do.
    """
    lengths = {
        name: Lengths.of([row.tokens for row in rows], limit=limit)
        for name, rows in parts.items()
        if rows
    }
    lines = [f"lengths of {name}: {part}" for name, part in lengths.items()]
    if any(part.cut for part in lengths.values()):
        why = "the model reads no longer texts; --long-texts windows reads all of a text"
        if by_option:
            why = "a higher --max-tokens cuts fewer texts, and takes longer"
        if any(part.windowed for part in lengths.values()):
            why = "a higher --max-windows cuts fewer texts, and takes longer"
        lines[-1] += f" ({why})"
    return lines


def _is_first_training(config: TrainConfig, folder: Path) -> bool:
    """Whether this training is the first of the run: a student mostly follows its teacher."""
    follows = folder == config.output and config.recipe.pattern is not None
    return not follows or config.teacher is not None or config.resume


def calibration_of(prepared: PreparedRun, tokens: int) -> Calibration:
    """Training texts of about ``tokens`` tokens in all, the same for every run on the data."""
    context = prepared.context
    return calibration_on(
        prepared.rows,
        tokens,
        pad_id=context.pad_id,
        device=context.distributed.device,
        autocast=lambda: context.precision.autocast(context.distributed.kind),
    )


def calibration_on(
    rows: Sequence[LabelledTokens], tokens: int, *, pad_id: int, device: str, autocast: Autocast
) -> Calibration:
    """A random sample of ``rows``, the same every time, with about ``tokens`` tokens in all.

    Args:
        rows: the rows to draw from.
        tokens: size of the sample; all rows if they have fewer.
        pad_id: id of the padding token.
        device: where the batches are put.
        autocast: context of the passes over the batches.
    """
    shuffled = np.random.default_rng(0).permutation(len(rows)).tolist()
    ends = np.cumsum([rows[i].tokens.n_read for i in shuffled])
    count = min(len(shuffled), int(np.searchsorted(ends, tokens)) + 1)
    texts = [rows[i] for i in shuffled[:count]]
    order = by_length(texts, batch_size=_CALIBRATION_BATCH)
    return Calibration(
        batches=[batch_of([texts[i] for i in b], pad_id=pad_id, device=device) for b in order],
        autocast=autocast,
    )


def score_on_dev(
    dev: Mapping[str, Sequence[LabelledTokens]],
    score: Callable[[Sequence[LabelledTokens]], dict[str, float]],
) -> Scores:
    """The metrics and the loss on all parts of dev, merged as GLUE reports them."""
    return merged_scores({part: score(rows) for part, rows in dev.items()})
