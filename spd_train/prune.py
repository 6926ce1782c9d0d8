"""One shot: a dense classifier and some texts in, a sparse classifier out; no labels, no training.

The masks are tightened in a few rounds, and after each the kept weights are solved again against
the dense model's outputs (``spd_train.pruning.reconstruct``). How often the sparse model answers
as the dense one does is measured on texts that were not calibrated on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spd_deploy.domain.architectures import refuse_unexportable
from spd_deploy.domain.checkpoint import Checkpoint, Scores, open_checkpoint, read_config
from spd_deploy.domain.errors import BadData, BadSetting
from spd_deploy.domain.files import refuse_existing, replacing
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Tokenizer
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of
from spd_train.config import Device, PrecisionWish, PruneRecipe, refuse_unspreadable
from spd_train.data.batches import LabelledTokens, tokenise
from spd_train.data.examples import Example
from spd_train.grafting import GraftedNetwork
from spd_train.model import copy_tokenizer, load_classifier, save_classifier
from spd_train.pruning.importance import needs_gradients
from spd_train.pruning.masks import targets_of
from spd_train.pruning.permutation.permute import reorder
from spd_train.pruning.pruner import Pruner
from spd_train.save_checkpoint import describe
from spd_train.setup import calibration_on, score_on_dev
from spd_train.training.mixed_precision import choose_precision
from spd_train.training.schedule import cubic_share
from spd_train.training.scoring import Forward, logits_for, score_rows

# Texts that the agreement is measured on: the last tenth, and no more than tells it well enough.
_COMPARED_SHARE = 0.1
_MOST_COMPARED = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Dev:
    """Labelled rows to score on, by file, and the task whose metrics are taken of them.

    Attributes:
        name: what the rows are, for the record: ``dev``, or what was held out of train.
    """

    task: Task
    parts: Mapping[str, Sequence[Example]]
    name: str = "dev"


@dataclass(frozen=True, kw_only=True, slots=True)
class OneShot:
    """What to prune, on what, how, to where.

    Attributes:
        source: a fine-tuned classifier, ours or any Hugging Face folder.
        texts: like those that it will be used on; their labels are not looked at.
        dev: what both models are scored on in the end; nothing is chosen by it.
        recipe: ``updates`` is the number of rounds.
    """

    source: Path
    texts: Sequence[Example]
    pattern: Pattern
    recipe: PruneRecipe
    output: Path
    dev: Dev | None = None
    overwrite: bool = False
    precision: PrecisionWish = "auto"
    device: Device = "cpu"

    def __post_init__(self) -> None:
        """Refuse a sparsity that cannot be spread as asked."""
        refuse_unspreadable(self.pattern, self.recipe)

    def to_json(self) -> dict[str, Any]:
        """How it was pruned, for the checkpoint."""
        return {
            "name": "one-shot without labels",
            "pattern": str(self.pattern),
            "sparsity": self.pattern.sparsity,
            "pruning": {**asdict(self.recipe), "exclude": list(self.recipe.exclude)},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How the sparse model's answers compare with the dense one's on texts apart.

    Attributes:
        value: share of equal answers, or Pearson's correlation for a regression.
        what: which of the two.
        rows: how many texts.
    """

    value: float
    what: str
    rows: int

    @property
    def said(self) -> str:
        """A sentence for who pruned."""
        on = f"{self.rows} held-out texts"
        if self.what == "correlation":
            return f"correlates {self.value:.4f} with the dense model on {on}"
        return f"agrees with the dense model on {100 * self.value:.0f} % of {on}"


def prune(request: OneShot, progress: Progress) -> tuple[Checkpoint, Agreement]:
    """Prune in one shot, and return the checkpoint and how far it agrees with the dense model.

    Raises:
        SpdError: whatever of the input is amiss; nothing is written then.
    """
    recipe = request.recipe
    if needs_gradients(recipe.importance):
        raise BadSetting(
            "this importance is made of gradients, which need labels and training",
            got=f"--importance {recipe.importance}",
            fix="use magnitude, activation or second-order here, or spd train",
        )
    refuse_existing(request.output, overwrite=request.overwrite)
    source = open_checkpoint(request.source)
    goals = targets_of(source.encoder, request.pattern, recipe.exclude)
    refuse_unexportable(source.encoder, read_config(request.source))
    tokenizer = tokenizer_of(source)
    for note in source.notes:
        progress.note(note)
    precision = choose_precision(request.precision, request.device)
    progress.note(f"precision: {precision.name}, {precision.reason}")
    with replacing(request.output) as draft:
        copy_tokenizer(str(request.source), draft)
        compared, rows = _apart(tokenise(request.texts, tokenizer))
        model = load_classifier(str(request.source), source.task, trained=True)
        if recipe.permute:
            reorder(model, source.encoder, goals, progress)
        network = GraftedNetwork(model, source.encoder, attention=False, hidden=False)
        network.to(request.device)
        calibration = calibration_on(
            rows,
            recipe.calibration_tokens,
            pad_id=tokenizer.pad_id,
            device=request.device,
            autocast=lambda: precision.autocast(request.device),
        )
        pruner = Pruner(network, goals, recipe, calibration)
        with progress.stage("prune", recipe.updates) as advance:
            for update in range(1, recipe.updates + 1):
                pruner.tighten(cubic_share(update, recipe.updates), last=update == recipe.updates)
                advance(note=f"sparsity {pruner.sparsity:.3f}")
        pruner.verify()
        agreement = _agreement(network, source, compared, tokenizer.pad_id, request.device)
        if request.dev is None:
            scores, split = _known(source), source.split
        else:
            scores = _scores(network, request.dev, tokenizer, request.device, progress)
            split = request.dev.name
        save_classifier(model.config, network.student_state(), draft)
        describe(
            draft,
            task=source.task,
            max_tokens=source.max_tokens,
            pattern=request.pattern,
            pruner=pruner,
            scores=scores,
            split=split,
            recipe={**request.to_json(), "precision": precision.name},
            parents={"dense": source.weights_sha256},
        )
    return open_checkpoint(request.output), agreement


def _apart(
    rows: Sequence[LabelledTokens],
) -> tuple[Sequence[LabelledTokens], Sequence[LabelledTokens]]:
    """Some rows to compare on, and the others to calibrate on."""
    if len(rows) < 2:
        raise BadData("that is too few texts", got=len(rows), fix="give a hundred or more")
    count = min(_MOST_COMPARED, max(1, round(len(rows) * _COMPARED_SHARE)))
    shuffled = np.random.default_rng(0).permutation(len(rows)).tolist()
    return [rows[i] for i in shuffled[:count]], [rows[i] for i in shuffled[count:]]


def _agreement(
    network: GraftedNetwork,
    source: Checkpoint,
    rows: Sequence[LabelledTokens],
    pad_id: int,
    device: str,
) -> Agreement:
    """Compare the answers of student and teacher."""
    network.eval()
    network.graft_all(True)
    sparse_BC = logits_for(lambda b: network(b).logits_BC, rows, pad_id=pad_id, device=device)
    dense_BC = logits_for(lambda b: network.teach(b).logits_BC, rows, pad_id=pad_id, device=device)
    if source.task.is_regression:
        value = float(np.corrcoef(sparse_BC[:, 0], dense_BC[:, 0])[0, 1]) if len(rows) > 1 else 1.0
        return Agreement(value=value, what="correlation", rows=len(rows))
    equal = (sparse_BC.argmax(1) == dense_BC.argmax(1)).mean()
    return Agreement(value=float(equal), what="equal answers", rows=len(rows))


def _scores(
    network: GraftedNetwork, dev: Dev, tokenizer: Tokenizer, device: str, progress: Progress
) -> Mapping[str, Scores]:
    """Both models on the same labelled rows."""
    rows = {part: tokenise(examples, tokenizer) for part, examples in dev.parts.items()}
    network.eval()
    network.graft_all(True)
    forwards: dict[str, Forward] = {
        "dense": lambda b: network.teach(b).logits_BC,
        "sparse": lambda b: network(b).logits_BC,
    }
    found: dict[str, Scores] = {}
    with progress.stage("score on dev", len(forwards)) as advance:
        for arm, forward in forwards.items():
            score = partial(score_rows, forward, dev.task, pad_id=tokenizer.pad_id, device=device)
            found[arm] = score_on_dev(rows, score)
            advance()
    return found


def _known(source: Checkpoint) -> Mapping[str, Scores]:
    """What is known of the dense model."""
    return {"dense": source.scores["dense"]} if "dense" in source.scores else {}
