"""The parts of a training: parameters, a loss, a schedule. The loop owns everything else."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from spd_deploy.domain.collapse import constant_answer
from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.metrics import truth_of
from spd_deploy.domain.tasks import Task
from spd_train.data.batching import LabelledTokens, TensorBatch
from spd_train.training.context import TrainContext
from spd_train.training.scoring import Forward, SampleScores, logits_of, score_rows

CLIP_NORM = 1.0
Record = dict[str, float | str]


class Training(ABC):
    """One training, driven step by step by :func:`spd_train.training.loop.run_loop`.

    Attributes:
        name: name of the stage in progress lines.
        total_steps: number of optimiser steps.
        parameters: the trained parameters by name.
        optimizer: updates ``parameters``.
        objective: module that maps a batch to the weighted terms of its loss, by name.
    """

    name: str

    def __init__(
        self,
        objective: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        *,
        task: Task,
        context: TrainContext,
        total_steps: int,
        weight_decay: float,
    ) -> None:
        self.objective = objective
        self.parameters = parameters
        self.task = task
        self.context = context
        self.total_steps = total_steps
        self.optimizer: torch.optim.Optimizer = adamw(parameters, weight_decay)

    @abstractmethod
    def begin_step(self, step: int) -> Record:
        """Set the model up for ``step`` (from 0). Returns values for the log."""

    @abstractmethod
    def learning_rate(self, step: int) -> float:
        """The learning rate at ``step`` (from 0)."""

    @abstractmethod
    def logits(self, batch: TensorBatch) -> Tensor:
        """Logits ``[B, C]`` of the model that is trained, without dropout."""

    @property
    def slow_steps(self) -> Collection[int]:
        """The steps (from 0) that take longer than the others."""
        return [step for step in range(self.total_steps) if self.slow_work(step)]

    def slow_work(self, step: int) -> str | None:
        """The work that makes ``step`` take longer than the others; None if there is none."""
        return None

    @property
    def has_gradients(self) -> bool:
        """Whether any parameter takes part in the step that has begun."""
        return True

    def rows_for(self, rows: Sequence[LabelledTokens], step: int) -> Sequence[LabelledTokens]:
        """The rows to train on at ``step``, made from the batch's ``rows``, as many as those."""
        return rows

    def clip_gradients(self) -> Tensor:
        """Clip the gradients to a total norm of ``CLIP_NORM``. Returns the norm before clipping."""
        return nn.utils.clip_grad_norm_(self.parameters.values(), CLIP_NORM)

    def optimizer_step(self) -> None:
        """Update the parameters from their gradients."""
        self.optimizer.step()

    def may_be_best(self, step: int) -> bool:
        """Whether the weights after ``step`` may become the best checkpoint."""
        return True

    def extra_state(self) -> dict[str, Tensor]:
        """Tensors that a resumed run needs besides parameters and optimiser moments."""
        return {}

    def load_extra_state(self, extra: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`extra_state` returned.

        Raises:
            BadCheckpoint: the state holds tensors that this training does not have.
        """
        if extra:
            raise BadCheckpoint(
                "the saved state belongs to another kind of training",
                got=", ".join(sorted(extra)[:5]),
                fix="remove the folder and train again",
            )

    def score_samples(self) -> SampleScores:
        """Metrics on the samples, by sample and metric, in the precision of the training."""
        context = self.context
        with context.precision.autocast(context.distributed.kind):
            return {name: self.score(rows) for name, rows in context.samples.parts().items()}

    def score(self, rows: Sequence[LabelledTokens]) -> dict[str, float]:
        """Metrics of the trained model on ``rows``, and its ``loss``."""
        context = self.context
        return score_rows(
            self.logits,
            self.task,
            rows,
            pad_id=context.pad_id,
            device=context.distributed.device,
        )

    def constant_answer(
        self, rows: Sequence[LabelledTokens], forward: Forward | None = None
    ) -> str | None:
        """The answer that the model gives to nearly all ``rows``, in words; None if they differ.

        Args:
            rows: the rows.
            forward: maps a batch to logits ``[B, C]``, in place of :meth:`logits`.
        """
        device, pad_id = self.context.distributed.device, self.context.pad_id
        logits_BC = logits_of(forward or self.logits, rows, pad_id=pad_id, device=device)
        truth = truth_of(self.task, [row.label for row in rows])
        return constant_answer(self.task, logits_BC, truth)


_NO_DECAY = ("bias", "LayerNorm.weight", "layer_norm.weight")


def adamw(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """AdamW without decay of biases and layer norms, as BERT was trained.

    Args:
        parameters: the trained parameters by name.
        weight_decay: decay of all other parameters.
    """
    decayed = [p for name, p in parameters.items() if not name.endswith(_NO_DECAY)]
    others = [p for name, p in parameters.items() if name.endswith(_NO_DECAY)]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=0.0,  # set at every step
    )
