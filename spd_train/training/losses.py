"""The terms of the distillation loss, each a mean over real rows or real tokens, without padding.

Each docstring names where a term departs from the released code of the paper, and why. With the
scale ``plain`` the attention and hidden terms are plain means, summed over the layers, as in the
paper. With the scale ``teacher`` they are averaged over the layers, and the hidden term is divided
by the variance of the teacher's hidden states.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from spd_deploy.domain.tasks import ProblemType, Task
from spd_train.config import LossRecipe
from spd_train.data.batching import TensorBatch
from spd_train.grafting import Trace
from spd_train.label_loss import PLAIN, LabelLoss


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenVariance:
    """Variance of the teacher's hidden states, which divides the hidden loss.

    It is measured once, on calibration texts. A variance measured on each batch would make the
    loss of a row depend on the other rows.

    Attributes:
        by_layer: variance of the output of each layer, in order.
    """

    by_layer: tuple[float, ...]


def hidden_variance(traces: Iterable[tuple[Trace, Tensor]]) -> HiddenVariance:
    """The variance over all real tokens.

    Args:
        traces: the teacher's traces, each with its attention mask ``[B, S]``.
    """
    tokens = 0
    sums: list[tuple[Tensor, Tensor]] = []
    for trace, mask_BS in traces:
        hidden_TH = [hidden[mask_BS.bool()].float() for hidden in trace.hidden_BSH]
        parts = [(x_TH.sum(0), x_TH.square().sum()) for x_TH in hidden_TH]
        totals = [(a + c, b + d) for (a, b), (c, d) in zip(sums, parts, strict=False)]
        sums = totals or parts
        tokens += int(mask_BS.sum())
    variances = [
        float((square - total_H.square().sum() / tokens) / (tokens * len(total_H)))
        for total_H, square in sums
    ]
    return HiddenVariance(
        by_layer=tuple(max(v, torch.finfo(torch.float32).tiny) for v in variances)
    )


def loss_terms(
    student: Trace,
    teacher: Trace | None,
    batch: TensorBatch,
    task: Task,
    recipe: LossRecipe,
    variance: HiddenVariance,
    *,
    empty: Collection[int] = (),
    weighing: LabelLoss = PLAIN,
) -> dict[str, Tensor]:
    """The weighted terms by name. Terms of weight 0 are left out. Training minimises the sum.

    Args:
        student: trace of the grafted network.
        teacher: trace of the teacher; None if no term needs one.
        batch: the batch that both traces are of.
        task: the task of the logits.
        recipe: weights, temperature and scale.
        variance: variance of the teacher's hidden states.
        empty: layers of the student that compute nothing. The layer before such a layer does its
            work too, so its hidden state is not compared; that after the empty layer is.
        weighing: class weights and focal loss of the term of the labels.
    """
    terms: dict[str, Tensor] = {}
    if teacher is not None and recipe.attention:
        terms["attention"] = recipe.attention * _attention(student, teacher, batch, recipe)
    if teacher is not None and recipe.hidden:
        terms["hidden"] = recipe.hidden * _hidden(student, teacher, batch, recipe, variance, empty)
    if teacher is not None and recipe.logits:
        terms["logits"] = recipe.logits * logits_loss(
            student.logits_BC, teacher.logits_BC, batch, task, recipe.temperature
        )
    if recipe.label:
        terms["label"] = recipe.label * label_loss(student.logits_BC, batch, task, weighing)
    return terms


def attention_loss(student_BASS: Tensor, teacher_BASS: Tensor, batch: TensorBatch) -> Tensor:
    """Squared distance of the attention distributions, averaged over heads and real queries.

    The distance is summed over the keys, so it lies in [0, 2] for every length. The released code
    compares the student's probabilities after dropout, which no student can match.
    """
    return token_mean(_distance_BS(student_BASS, teacher_BASS), batch)


def plain_attention_loss(student_BASS: Tensor, teacher_BASS: Tensor, batch: TensorBatch) -> Tensor:
    """Like :func:`attention_loss`, but averaged over the real keys too, as in the paper."""
    keys_B1 = batch.mask_BS.sum(1, keepdim=True)
    return token_mean(_distance_BS(student_BASS, teacher_BASS) / keys_B1, batch)


def hidden_loss(student_BSH: Tensor, teacher_BSH: Tensor, batch: TensorBatch) -> Tensor:
    """Mean squared difference over the real tokens. The released code includes the padding."""
    return token_mean((student_BSH.float() - teacher_BSH.float()).square().mean(-1), batch)


def logits_loss(
    student_BC: Tensor, teacher_BC: Tensor, batch: TensorBatch, task: Task, temperature: float
) -> Tensor:
    """KL divergence of the student's distribution from the teacher's, averaged over the rows.

    T^2 * KL(softmax(teacher / T) || softmax(student / T)), with the temperature T. The factor T^2
    keeps the size of the gradient (Hinton et al. 2015, section 2.1). The released code averages
    over the classes and has no such factor. Multi-label tasks use one Bernoulli distribution a
    label. A regression uses the squared difference of the outputs; the released code fits the
    label alone.
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


def label_loss(
    logits_BC: Tensor,
    batch: TensorBatch,
    task: Task,
    weighing: LabelLoss = PLAIN,
) -> Tensor:
    """:func:`label_losses`, averaged over the rows."""
    return row_mean(label_losses(logits_BC, batch.labels_B, task, weighing), batch)


def label_losses(
    logits_BC: Tensor,
    labels: Tensor,
    task: Task,
    weighing: LabelLoss = PLAIN,
) -> Tensor:
    """The loss ``[B]`` of each row to its true label.

    It is the cross-entropy to the class, or to the probabilities of soft labels; of several labels
    the mean of one binary cross-entropy a label, as Transformers has it; of a regression the
    squared error.

    With weights w and the focal exponent g, of the truth t and the model's probability p it is

        - sum_c w_c t_c (1 - p_c)^g log p_c                                          (one label)
        - mean_c (w_c t_c (1 - p_c)^g log p_c + (1 - t_c) p_c^g log(1 - p_c))        (several)

    Lin et al., "Focal Loss for Dense Object Detection", 2017, equation 5. For g = 0 w is PyTorch's
    ``weight`` of ``cross_entropy`` and ``pos_weight`` of ``binary_cross_entropy_with_logits``. The
    loss is not divided by the weights of the batch, so a row counts the same in every batch.

    Args:
        logits_BC: what the model answers.
        labels: the class or number ``[B]``, or a number for each label ``[B, C]``.
        task: the task of the labels.
        weighing: class weights and focal exponent; a regression has none.
    """
    logits_BC = logits_BC.float()
    weights = logits_BC.new_tensor(weighing.weights) if weighing.weights else None
    weight_C: Tensor | float = 1.0 if weights is None else weights
    match task.problem_type:
        case ProblemType.REGRESSION:
            return (logits_BC[:, 0] - labels).square()
        case ProblemType.MULTI_LABEL if not weighing.focal_gamma:
            binary = functional.binary_cross_entropy_with_logits
            return binary(logits_BC, labels, reduction="none", pos_weight=weights).mean(-1)
        case ProblemType.MULTI_LABEL:
            yes_BC, no_BC = functional.logsigmoid(logits_BC), functional.logsigmoid(-logits_BC)
            has_BC = weight_C * labels * _focal(yes_BC, weighing)
            return -(has_BC + (1 - labels) * _focal(no_BC, weighing)).mean(-1)
        case ProblemType.SINGLE_LABEL if not weighing.focal_gamma:
            truth = labels if labels.ndim == 2 else labels.long()
            return functional.cross_entropy(logits_BC, truth, weights, reduction="none")
        case ProblemType.SINGLE_LABEL:
            truth_BC = labels
            if labels.ndim == 1:
                truth_BC = functional.one_hot(labels.long(), logits_BC.shape[1])
            return -(weight_C * truth_BC * _focal(logits_BC.log_softmax(-1), weighing)).sum(-1)


def _focal(log_BC: Tensor, weighing: LabelLoss) -> Tensor:
    """Logarithms of probabilities, times the focal factor ``(1 - p)^gamma``."""
    # The root of 0 has no slope; a model that is this sure has none either.
    unsure_BC = (1 - log_BC.exp()).clamp_min(torch.finfo(log_BC.dtype).eps)
    return unsure_BC.pow(weighing.focal_gamma) * log_BC


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


def compared_layers(layers: int, empty: Collection[int]) -> list[int]:
    """The layers whose hidden states are compared: all but those before an empty layer."""
    return [i for i in range(layers) if i + 1 not in empty]


def _hidden(
    student: Trace,
    teacher: Trace,
    batch: TensorBatch,
    recipe: LossRecipe,
    variance: HiddenVariance,
    empty: Collection[int],
) -> Tensor:
    """The hidden term over the layers that are compared."""
    compared = compared_layers(len(student.hidden_BSH), empty)
    by_layer = torch.stack(
        [hidden_loss(student.hidden_BSH[i], teacher.hidden_BSH[i], batch) for i in compared]
    )
    if recipe.scale == "plain":
        return by_layer.sum()
    return (by_layer / by_layer.new_tensor([variance.by_layer[i] for i in compared])).mean()
