"""The terms of the loss, each a mean over what is real.

They depart from the released code of the paper where that is wrong, and each docstring says how.
Under the scale ``plain`` the first two are plain means, summed over layers unweighted, as the paper
has them; under ``teacher`` they are means over layers, of hidden states in shares of the teacher's
own spread, and of distances between attention distributions, which have a scale of their own.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from spd_deploy.domain.tasks import ProblemType, Task
from spd_train.config import LossRecipe
from spd_train.data.batching import TensorBatch
from spd_train.grafting import Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Variance of the teacher's hidden states after each layer: the unit of the hidden loss.

    Measured once, on calibration texts: a unit that changed from batch to batch would make the
    loss of a batch depend on what else is in it.
    """

    hidden: tuple[float, ...]


def spread_of(traces: Iterable[tuple[Trace, Tensor]]) -> Spread:
    """The spread over all real tokens of the teacher's traces, each with its mask ``[B, S]``."""
    tokens = 0
    sums: list[tuple[Tensor, Tensor]] = []
    for trace, mask_BS in traces:
        real = [hidden[mask_BS.bool()].float() for hidden in trace.hidden_BSH]
        parts = [(x_TH.sum(0), x_TH.square().sum()) for x_TH in real]
        added = [(a + c, b + d) for (a, b), (c, d) in zip(sums, parts, strict=False)]
        sums = added or parts
        tokens += int(mask_BS.sum())
    found = [
        float((square - total_H.square().sum() / tokens) / (tokens * len(total_H)))
        for total_H, square in sums
    ]
    return Spread(hidden=tuple(max(v, torch.finfo(torch.float32).tiny) for v in found))


def loss_terms(
    student: Trace,
    teacher: Trace | None,
    batch: TensorBatch,
    task: Task,
    recipe: LossRecipe,
    spread: Spread,
) -> dict[str, Tensor]:
    """The weighted terms by name, those of weight 0 left out; training minimises their sum.

    Args:
        student: the grafted network's pass.
        teacher: the teacher's; None where the recipe has no term that needs it.
        batch: the part of a step that both passes read.
        task: what the logits mean.
        recipe: weights, temperature and scale.
        spread: the unit of hidden states.
    """
    found: dict[str, Tensor] = {}
    if teacher is not None and recipe.attention:
        found["attention"] = recipe.attention * _attention(student, teacher, batch, recipe)
    if teacher is not None and recipe.hidden:
        found["hidden"] = recipe.hidden * _hidden(student, teacher, batch, recipe, spread)
    if teacher is not None and recipe.logits:
        found["logits"] = recipe.logits * logits_loss(
            student.logits_BC, teacher.logits_BC, batch, task, recipe.temperature
        )
    if recipe.label:
        found["label"] = recipe.label * label_loss(student.logits_BC, batch, task)
    return found


def attention_loss(student_BASS: Tensor, teacher_BASS: Tensor, batch: TensorBatch) -> Tensor:
    """Squared distance of the attention distributions, mean over heads and real queries.

    Between 0 and 2, whatever the length: it is summed over the keys, not averaged. The released
    code compares the student's probabilities after dropout, which no student can match.
    """
    return token_mean(_distance_BS(student_BASS, teacher_BASS), batch)


def plain_attention_loss(student_BASS: Tensor, teacher_BASS: Tensor, batch: TensorBatch) -> Tensor:
    """The same as a mean over the keys too, as the paper has it; only real ones are counted."""
    keys_B1 = batch.mask_BS.sum(1, keepdim=True)
    return token_mean(_distance_BS(student_BASS, teacher_BASS) / keys_B1, batch)


def hidden_loss(student_BSH: Tensor, teacher_BSH: Tensor, batch: TensorBatch) -> Tensor:
    """Mean squared difference over real tokens; the released code counts the padding too."""
    return token_mean((student_BSH.float() - teacher_BSH.float()).square().mean(-1), batch)


def logits_loss(
    student_BC: Tensor, teacher_BC: Tensor, batch: TensorBatch, task: Task, temperature: float
) -> Tensor:
    """Divergence from the teacher's answer; squared difference for a regression.

    Summed over classes and times the squared temperature, so that its gradient keeps its size
    (Hinton et al. 2015, section 2.1); the released code averages over classes and has no such
    factor. The teacher's entropy is taken off: the gradient is the same, and a perfect student's
    loss is 0. A regression is distilled to the teacher; the released code fits the label alone.
    """
    student_BC, teacher_BC = student_BC.float(), teacher_BC.float()
    match task.problem_type:
        case ProblemType.REGRESSION:
            return row_mean((student_BC - teacher_BC).square().sum(-1), batch)
        case ProblemType.MULTI_LABEL:
            soft_BC = (teacher_BC / temperature).sigmoid()
            cross = functional.binary_cross_entropy_with_logits
            loss_BC = cross(student_BC / temperature, soft_BC, reduction="none") - cross(
                teacher_BC / temperature, soft_BC, reduction="none"
            )
            return row_mean(loss_BC.sum(-1), batch) * temperature**2
        case ProblemType.SINGLE_LABEL:
            divergence_BC = functional.kl_div(
                (student_BC / temperature).log_softmax(-1),
                (teacher_BC / temperature).log_softmax(-1),
                reduction="none",
                log_target=True,
            )
            return row_mean(divergence_BC.sum(-1), batch) * temperature**2


def label_loss(logits_BC: Tensor, batch: TensorBatch, task: Task) -> Tensor:
    """The loss to the true labels, by which the teacher is fine-tuned."""
    logits_BC = logits_BC.float()
    if task.is_regression:
        return row_mean((logits_BC[:, 0] - batch.labels_B).square(), batch)
    loss_B = functional.cross_entropy(logits_BC, batch.labels_B.long(), reduction="none")
    return row_mean(loss_B, batch)


def token_mean(value_BS: Tensor, batch: TensorBatch) -> Tensor:
    """This part's share of the mean over all real tokens of the step."""
    return (value_BS * batch.mask_BS).sum() / batch.step_tokens


def row_mean(value_B: Tensor, batch: TensorBatch) -> Tensor:
    """This part's share of the mean over all rows of the step."""
    return value_B.sum() / batch.step_rows


def _distance_BS(student_BASS: Tensor, teacher_BASS: Tensor) -> Tensor:
    """Squared distance of each query's distributions, summed over keys, mean over heads."""
    return (student_BASS.float() - teacher_BASS.float()).square().sum(-1).mean(1)


def _attention(student: Trace, teacher: Trace, batch: TensorBatch, recipe: LossRecipe) -> Tensor:
    """The attention term over all layers."""
    pairs = zip(student.attention_BASS, teacher.attention_BASS, strict=True)
    plain = recipe.scale == "plain"
    loss = plain_attention_loss if plain else attention_loss
    by_layer = torch.stack([loss(s, t, batch) for s, t in pairs])
    return by_layer.sum() if plain else by_layer.mean()


def _hidden(
    student: Trace, teacher: Trace, batch: TensorBatch, recipe: LossRecipe, spread: Spread
) -> Tensor:
    """The hidden term over all layers."""
    pairs = zip(student.hidden_BSH, teacher.hidden_BSH, strict=True)
    by_layer = torch.stack([hidden_loss(s, t, batch) for s, t in pairs])
    if recipe.scale == "plain":
        return by_layer.sum()
    return (by_layer / by_layer.new_tensor(spread.hidden)).mean()
