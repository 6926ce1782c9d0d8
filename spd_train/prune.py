"""One-shot pruning: a dense classifier and texts in, a sparse classifier out, no training.

The masks are updated in a few rounds. After each round the kept weights are solved again against
the dense model's outputs (``spd_train.pruning.reconstruct``). No labels are needed. The share of
texts that both models classify alike is measured on texts that were not calibrated on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spd_deploy.domain.checkpoint import Checkpoint, Scores, open_checkpoint, read_config
from spd_deploy.domain.errors import BadData, BadSetting
from spd_deploy.domain.export_shapes import exportable_architecture
from spd_deploy.domain.files import refuse_existing, replacing
from spd_deploy.domain.metrics import given_labels_BC
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Tokenizer
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_as_trained
from spd_train.config import Device, PrecisionChoice
from spd_train.data.batching import LabelledTokens, tokenise
from spd_train.data.examples import Example
from spd_train.grafting import GraftedNetwork
from spd_train.model import copy_tokenizer, load_classifier, save_classifier
from spd_train.prune_recipe import PruneRecipe, refuse_unshrinkable, refuse_unspreadable
from spd_train.pruning.importance import needs_gradients
from spd_train.pruning.masks import targets_of
from spd_train.pruning.permutation.permute import reorder_for
from spd_train.pruning.pruner import Pruner
from spd_train.pruning.structured.plan import SpeedTarget
from spd_train.save_checkpoint import describe_checkpoint, rows_of_one
from spd_train.setup import calibration_on, score_on_dev
from spd_train.training.mixed_precision import choose_precision
from spd_train.training.schedule import cubic_share
from spd_train.training.scoring import Forward, logits_of, score_rows

# Share and largest number of texts that the agreement is measured on.
_COMPARED_SHARE = 0.1
_MAX_COMPARED = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class DevSplit:
    """Labelled rows to score both models on.

    Attributes:
        task: its metrics are computed.
        parts: the rows by file; MNLI has two.
        name: name of the rows in the checkpoint: ``dev``, or the tenth of a file in its place.
    """

    task: Task
    parts: Mapping[str, Sequence[Example]]
    name: str = "dev"


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneConfig:
    """The arguments of :func:`prune`: a model, data, a recipe, and the output.

    Attributes:
        source: folder of a fine-tuned classifier, of spd or of Transformers.
        texts: texts like those that the model will classify; their labels are not read.
        pattern: pattern and sparsity.
        speed: the speed-up that decides what each layer keeps, under the structured pattern; None
            if the pattern's sparsity does.
        recipe: importance, allocation and reconstruction; ``updates`` is the number of rounds.
        output: folder to write.
        dev: rows to score both models on at the end; the scores do not affect the pruning.
        overwrite: replace a checkpoint that is in ``output``.
        precision: number format of the forward passes.
        device: where the passes run.
        origin: where ``source`` was read, if that is no folder that was named.
    """

    source: Path
    texts: Sequence[Example]
    pattern: Pattern
    recipe: PruneRecipe
    output: Path
    speed: SpeedTarget | None = None
    dev: DevSplit | None = None
    overwrite: bool = False
    precision: PrecisionChoice = "auto"
    device: Device = "cpu"
    origin: Origin | None = None

    def __post_init__(self) -> None:
        """Refuse a sparsity that the allocation cannot spread."""
        refuse_unspreadable(self.pattern, self.recipe)
        if self.speed is not None:
            refuse_unshrinkable(self.pattern, self.recipe)

    def to_json(self) -> dict[str, Any]:
        """How the model was pruned, as JSON values for the checkpoint."""
        return {
            "name": "one-shot without labels",
            "pattern": str(self.pattern),
            "sparsity": self.pattern.sparsity if self.speed is None else None,
            "speedup": None if self.speed is None else self.speed.factor,
            "pruning": {**asdict(self.recipe), "exclude": list(self.recipe.exclude)},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How the sparse model's outputs compare with the dense model's on texts that were not used.

    Attributes:
        value: share of equal classes in [0, 1], or Pearson's correlation for a regression.
        what: ``equal answers`` or ``correlation``.
        rows: number of texts.
    """

    value: float
    what: str
    rows: int

    @property
    def sentence(self) -> str:
        """The comparison as a sentence for the user."""
        on = f"{self.rows} texts that it was not calibrated on"
        if self.what == "correlation":
            return f"correlates {self.value:.4f} with the dense model on {on}"
        return f"agrees with the dense model on {100 * self.value:.0f} % of {on}"


def prune(config: PruneConfig, progress: Progress) -> tuple[Checkpoint, Agreement]:
    """Prune a classifier. Returns its checkpoint and how far it agrees with the dense model.

    Raises:
        SpdError: the configuration, the texts or the model is wrong; nothing is written then.
    """
    recipe = config.recipe
    source = _checked_source(config)
    targets = targets_of(source.encoder, config.pattern, recipe.exclude)
    tokenizer = tokenizer_as_trained(source)
    for note in source.notes:
        progress.note(note)
    precision = choose_precision(config.precision, config.device)
    progress.note(f"precision: {precision.name}, {precision.reason}")
    with replacing(config.output) as draft:
        copy_tokenizer(str(config.source), draft)
        compared, rows = _apart(tokenise(config.texts, tokenizer))
        model = load_classifier(str(config.source), source.task, trained=True)
        if recipe.permute:
            reorder_for(model, source.encoder, targets, progress)
        network = GraftedNetwork(model, source.encoder, attention=False, hidden=False)
        network.to(config.device)
        calibration = calibration_on(
            rows,
            recipe.calibration_tokens,
            pad_id=tokenizer.pad_id,
            device=config.device,
            autocast=lambda: precision.autocast(config.device),
        )
        pruner = Pruner(
            network, targets, recipe, calibration, speed=config.speed, progress=progress
        )
        _tighten(pruner, recipe.updates, progress)
        agreement = _agreement(network, source, compared, tokenizer.pad_id, config.device)
        if config.dev is None:
            scores, split, count = _known(source), source.split, source.scored_rows
        else:
            scores = _scores(network, config.dev, tokenizer, config.device, progress)
            split, count = config.dev.name, rows_of_one(config.dev.parts)
        save_classifier(model.config, network.student_state(), draft)
        describe_checkpoint(
            draft,
            task=source.task,
            max_tokens=source.max_tokens,
            pattern=config.pattern if config.speed is None else pruner.reached(config.pattern),
            zeros=pruner,
            scores=scores,
            split=split,
            scored_rows=count,
            recipe={**config.to_json(), "precision": precision.name},
            parents={"dense": source.weights_sha256},
            origins={
                **source.origins,
                **({} if config.origin is None else {"dense": config.origin}),
            },
        )
    return open_checkpoint(config.output), agreement


def _checked_source(config: PruneConfig) -> Checkpoint:
    """The dense classifier, once it is known that it can be pruned as configured.

    Raises:
        BadSetting: the importance needs gradients.
        NotWritten: the output exists and is not to be replaced.
        BadModel: the model is damaged, or could not be exported.
    """
    importance = config.recipe.importance
    if needs_gradients(importance):
        raise BadSetting(
            "this importance needs gradients, and so labels and training",
            got=f"--importance {importance}",
            fix="use magnitude, activation or second-order here, or spd train",
        )
    refuse_existing(config.output, overwrite=config.overwrite)
    source = open_checkpoint(config.source)
    exportable_architecture(source.encoder, read_config(config.source))
    return source


def _tighten(pruner: Pruner, updates: int, progress: Progress) -> None:
    """Raise the sparsity to its target in ``updates`` mask updates, and verify the result."""
    with progress.stage("prune", updates) as advance:
        for update in range(1, updates + 1):
            pruner.tighten(cubic_share(update, updates), last=update == updates)
            advance(note=f"sparsity {pruner.sparsity:.3f}")
    pruner.verify()


def _apart(
    rows: Sequence[LabelledTokens],
) -> tuple[Sequence[LabelledTokens], Sequence[LabelledTokens]]:
    """Split ``rows`` at random into rows to compare on and rows to calibrate on."""
    if len(rows) < 2:
        raise BadData("there are too few texts", got=len(rows), fix="give a hundred or more")
    count = min(_MAX_COMPARED, max(1, round(len(rows) * _COMPARED_SHARE)))
    shuffled = np.random.default_rng(0).permutation(len(rows)).tolist()
    return [rows[i] for i in shuffled[:count]], [rows[i] for i in shuffled[count:]]


def _agreement(
    network: GraftedNetwork,
    source: Checkpoint,
    rows: Sequence[LabelledTokens],
    pad_id: int,
    device: str,
) -> Agreement:
    """Compare the outputs of student and teacher on ``rows``."""
    network.eval()
    network.graft_all(True)
    sparse_BC = logits_of(lambda b: network(b).logits_BC, rows, pad_id=pad_id, device=device)
    dense_BC = logits_of(
        lambda b: network.teacher_forward(b).logits_BC, rows, pad_id=pad_id, device=device
    )
    if source.task.is_regression:
        value = float(np.corrcoef(sparse_BC[:, 0], dense_BC[:, 0])[0, 1]) if len(rows) > 1 else 1.0
        return Agreement(value=value, what="correlation", rows=len(rows))
    dense, sparse = (given_labels_BC(source.task, logits) for logits in (dense_BC, sparse_BC))
    equal = (dense == sparse).all(1).mean()
    return Agreement(value=float(equal), what="equal answers", rows=len(rows))


def _scores(
    network: GraftedNetwork, dev: DevSplit, tokenizer: Tokenizer, device: str, progress: Progress
) -> Mapping[str, Scores]:
    """The metrics of both models on the dev rows, by owner."""
    rows = {part: tokenise(examples, tokenizer) for part, examples in dev.parts.items()}
    network.eval()
    network.graft_all(True)
    forwards: dict[str, Forward] = {
        "dense": lambda b: network.teacher_forward(b).logits_BC,
        "sparse": lambda b: network(b).logits_BC,
    }
    scores: dict[str, Scores] = {}
    with progress.stage("score on dev", len(forwards)) as advance:
        for owner, forward in forwards.items():
            score = partial(score_rows, forward, dev.task, pad_id=tokenizer.pad_id, device=device)
            scores[owner] = score_on_dev(rows, score)
            advance()
    return scores


def _known(source: Checkpoint) -> Mapping[str, Scores]:
    """The dense model's scores that its checkpoint records, by owner."""
    return {"dense": source.scores["dense"]} if "dense" in source.scores else {}
