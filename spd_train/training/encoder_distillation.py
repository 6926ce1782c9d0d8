"""Distillation of an encoder without a head, scored by how well it repeats its teacher's states."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from spd_train.data.batching import LabelledTokens, batch_of, by_length
from spd_train.grafting import Trace
from spd_train.training.distil import Distillation
from spd_train.training.losses import compared_layers, hidden_variance

EXPLAINED_VARIANCE = "explained_variance"
_BATCH_ROWS = 64


class EncoderDistillation(Distillation):
    """Distils hidden states alone. Its score needs no labels; higher is better."""

    name = "encoder"

    def score(self, rows: Sequence[LabelledTokens]) -> dict[str, float]:
        """The share of the teacher's hidden variance that the student explains, and the rest.

        The share is the mean over the layers of the coefficient of determination (R^2), over all
        real tokens: 1 if the student repeats the teacher, 0 if it does as well as each layer's mean
        state, negative if it does worse.
        """
        self.network.eval()
        self.network.graft_all(True)
        errors: list[Tensor] = []
        tokens = 0

        def teacher_traces() -> Iterator[tuple[Trace, Tensor]]:
            """The teacher's traces; the student's errors are added up on the way."""
            nonlocal errors, tokens
            for numbers in by_length(rows, batch_size=_BATCH_ROWS):
                batch = batch_of(
                    [rows[i] for i in numbers],
                    pad_id=self.context.pad_id,
                    device=self.context.distributed.device,
                )
                teacher, student = self.network.teacher_forward(batch), self.network(batch)
                real_BS = batch.mask_BS.bool()
                pairs = zip(student.hidden_BSH, teacher.hidden_BSH, strict=True)
                found = [(s - t)[real_BS].float().square().mean(-1).sum() for s, t in pairs]
                errors = [a + b for a, b in zip(errors, found, strict=True)] if errors else found
                tokens += batch.step_tokens
                yield teacher, batch.mask_BS

        with torch.inference_mode():
            variances = hidden_variance(teacher_traces()).by_layer
        compared = compared_layers(len(errors), self.distillation.empty)
        lost = [float(errors[i]) / tokens / variances[i] for i in compared]
        loss = sum(lost) / len(lost)
        return {EXPLAINED_VARIANCE: 1 - loss, "loss": loss}
