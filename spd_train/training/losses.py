"""The three distillation losses, each a plain mean over what is real.

They depart from the released code where that is wrong: attention is compared before dropout,
padding is left out of every mean, hidden states are measured in units of the teacher's own spread
so that no term drowns the others, and the soft cross-entropy sums over classes and is multiplied by
the squared temperature, so that its gradient keeps its size (Hinton et al. 2015, section 2.1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from spd_deploy.domain.tasks import ProblemType, Task
from spd_train.network import Trace
from spd_train.recipe import SpdRecipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Three scalars, each weighted as the recipe says; training minimises their sum."""

    attention: Tensor
    hidden: Tensor
    logits: Tensor

    @property
    def total(self) -> Tensor:
        """The sum."""
        return self.attention + self.hidden + self.logits


def distillation_losses(
    student: Trace, teacher: Trace, mask_BS: Tensor, task: Task, recipe: SpdRecipe
) -> Losses:
    """How far the grafted network is from the teacher, layer by layer and in its answer."""
    pairs = zip(student.attention_BASS, teacher.attention_BASS, strict=True)
    attention = torch.stack([attention_loss(s, t, mask_BS) for s, t in pairs]).mean()
    pairs = zip(student.hidden_BSH, teacher.hidden_BSH, strict=True)
    hidden = torch.stack([hidden_loss(s, t, mask_BS) for s, t in pairs]).mean()
    logits = logits_loss(student.logits_BC, teacher.logits_BC, task, recipe.temperature)
    return Losses(
        attention=recipe.attention_weight * attention,
        hidden=recipe.hidden_weight * hidden,
        logits=recipe.logits_weight * logits,
    )


def attention_loss(student_BASS: Tensor, teacher_BASS: Tensor, mask_BS: Tensor) -> Tensor:
    """Squared distance of the attention distributions, mean over heads and real queries.

    Between 0 and 2, whatever the length: it is summed over the keys, not averaged.
    """
    distance_BAS = (student_BASS.float() - teacher_BASS.float()).square().sum(-1)
    return masked_mean(distance_BAS.mean(1), mask_BS)


def hidden_loss(student_BSH: Tensor, teacher_BSH: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean squared difference over real tokens, as a share of the teacher's variance there."""
    student_BSH, teacher_BSH = student_BSH.float(), teacher_BSH.float()
    error = masked_mean((student_BSH - teacher_BSH).square().mean(-1), mask_BS)
    weight_BS1 = (mask_BS / mask_BS.sum())[..., None]
    mean_H = (teacher_BSH * weight_BS1).sum((0, 1))
    spread = masked_mean((teacher_BSH - mean_H).square().mean(-1), mask_BS)
    return error / spread.clamp_min(torch.finfo(torch.float32).tiny)


def logits_loss(student_BC: Tensor, teacher_BC: Tensor, task: Task, temperature: float) -> Tensor:
    """Soft cross-entropy to the teacher's answer; squared difference for a regression.

    The teacher's own entropy is taken off (a Kullback-Leibler divergence): the gradient is the
    same and a perfect student's loss is 0.
    """
    student_BC, teacher_BC = student_BC.float(), teacher_BC.float()
    match task.problem_type:
        case ProblemType.REGRESSION:
            return (student_BC - teacher_BC).square().mean()
        case ProblemType.MULTI_LABEL:
            soft_BC = (teacher_BC / temperature).sigmoid()
            cross = functional.binary_cross_entropy_with_logits
            loss_BC = cross(student_BC / temperature, soft_BC, reduction="none") - cross(
                teacher_BC / temperature, soft_BC, reduction="none"
            )
            return loss_BC.sum(-1).mean() * temperature**2
        case ProblemType.SINGLE_LABEL:
            divergence = functional.kl_div(
                (student_BC / temperature).log_softmax(-1),
                (teacher_BC / temperature).log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            )
            return divergence * temperature**2


def label_loss(logits_BC: Tensor, labels_B: Tensor, task: Task) -> Tensor:
    """The loss to the true labels, by which the teacher is fine-tuned."""
    logits_BC = logits_BC.float()
    if task.is_regression:
        return (logits_BC[:, 0] - labels_B).square().mean()
    return functional.cross_entropy(logits_BC, labels_B.long())


def masked_mean(value_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean over the real tokens."""
    return (value_BS * mask_BS).sum() / mask_BS.sum()
