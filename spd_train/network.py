"""The grafted network: each encoder layer is a frozen teacher layer or its sparse student.

One network holds both. With every student in place it is the student; with none it is the teacher,
bit for bit, since embeddings, pooler and classifier are shared and frozen. So the same module gives
the teacher's targets, the grafted pass and the student's answers.

Attention probabilities are recorded before dropout, where the released code compares them after.
"""

import copy
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from spd_train.data.tensors import TensorBatch
from spd_train.model import inputs_of

_ATTENTION = "spd_recorded"
_recorded: ContextVar[list[Tensor] | None] = ContextVar("attention probabilities", default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What one pass computed, from which the distillation losses are made.

    Attributes:
        logits_BC: the classifier's outputs.
        hidden_BSH: hidden states after each layer, in order.
        attention_BASS: attention probabilities of each layer (A heads), before dropout.
    """

    logits_BC: Tensor
    hidden_BSH: tuple[Tensor, ...]
    attention_BASS: tuple[Tensor, ...]


class GraftedLayer(nn.Module):
    """A student layer and the frozen teacher layer whose place it may take."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.student = copy.deepcopy(teacher)
        self.teacher = teacher.requires_grad_(False)
        self.student_in_place = True
        self._outputs: list[Tensor] = []

    def forward(self, hidden_BSH: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run the one that is in place and keep its output for the trace."""
        layer = self.student if self.student_in_place else self.teacher
        output_BSH: Tensor = layer(hidden_BSH, *args, **kwargs)
        self._outputs = [output_BSH]
        return output_BSH

    def take_output(self) -> Tensor:
        """The hidden state of the last pass, which is then forgotten so that memory is freed."""
        return self._outputs.pop()

    def train(self, mode: bool = True) -> "GraftedLayer":
        """Only the student has dropout on: the teacher is a fixed function."""
        super().train(mode=False)
        self.student.train(mode)
        self.training = mode
        return self


class GraftedNetwork(nn.Module):
    """A classifier whose encoder layers are :class:`GraftedLayer`."""

    def __init__(self, teacher: PreTrainedModel) -> None:
        """Take over ``teacher``: freeze it and set a student, dense as yet, beside each layer."""
        super().__init__()
        self.model = record_attention(teacher).requires_grad_(False)
        encoder = encoder_of(teacher)
        self.layers = [GraftedLayer(layer) for layer in encoder.layer]
        encoder.layer = nn.ModuleList(self.layers)
        for layer in self.layers:
            layer.student.requires_grad_(True)

    def train(self, mode: bool = True) -> "GraftedNetwork":
        """Training mode for the students; what is frozen stays in evaluation mode."""
        super().train(mode=False)
        for layer in self.layers:
            layer.train(mode)
        self.training = mode
        return self

    def students(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The trained parameters, by the name they will have in the checkpoint."""
        prefix = encoder_prefix(self.model)
        for i, layer in enumerate(self.layers):
            for name, parameter in layer.student.named_parameters():
                yield f"{prefix}.{i}.{name}", parameter

    def graft(self, in_place: Sequence[bool]) -> None:
        """Say which student layers stand in for their teachers."""
        for layer, student in zip(self.layers, in_place, strict=True):
            layer.student_in_place = student

    def forward(self, batch: TensorBatch) -> Trace:
        """One pass with the layers that are in place."""
        attention: list[Tensor] = []
        token = _recorded.set(attention)
        try:
            answer = self.model(**inputs_of(self.model, batch))
        finally:
            _recorded.reset(token)
        hidden = tuple(layer.take_output() for layer in self.layers)
        return Trace(logits_BC=answer.logits, hidden_BSH=hidden, attention_BASS=tuple(attention))

    def teach(self, batch: TensorBatch) -> Trace:
        """What the teacher computes; the layers in place are as before afterwards."""
        before = [layer.student_in_place for layer in self.layers]
        self.graft([False] * len(before))
        try:
            with torch.no_grad():
                return self(batch)  # type: ignore[no-any-return]
        finally:
            self.graft(before)

    def student_state(self) -> dict[str, Tensor]:
        """The student alone, as the state of a plain model."""
        shared = {
            name: value
            for name, value in self.model.state_dict().items()
            if not name.startswith(f"{encoder_prefix(self.model)}.")
        }
        return {**shared, **{name: value.detach() for name, value in self.students()}}


def draw_graft(layers: int, probability: float, *, seed: int, step: int) -> list[bool]:
    """Which of the student layers are in place at ``step``: one independent draw each.

    A pure function of seed and step, so every process of a distributed run draws the same.
    """
    generator = torch.Generator().manual_seed(step_seed(seed, step))
    return (torch.rand(layers, generator=generator) < probability).tolist()


def step_seed(seed: int, step: int) -> int:
    """The seed of all randomness at ``step``; a resumed run needs no other state."""
    return (seed * 1_000_003 + step) % (1 << 63)


def encoder_of(model: PreTrainedModel) -> Any:
    """The module whose ``layer`` list is the encoder."""
    return model.base_model.encoder


def encoder_prefix(model: PreTrainedModel) -> str:
    """The name of the encoder's layers in the model's state."""
    return f"{model.base_model_prefix}.encoder.layer"


def record_attention(model: PreTrainedModel) -> PreTrainedModel:
    """Let the model's attention be the one that can be recorded."""
    model.config._attn_implementation = _ATTENTION
    return model


def _recorded_attention(
    module: nn.Module,
    query_BASD: Tensor,
    key_BASD: Tensor,
    value_BASD: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention over A heads of width D that keeps its probabilities, when recording."""
    score_BASS = query_BASD @ key_BASD.transpose(2, 3) * scaling
    if attention_mask is not None:
        score_BASS = score_BASS + attention_mask
    probability_BASS = score_BASS.softmax(-1)
    if (record := _recorded.get()) is not None:
        record.append(probability_BASS)
    kept_BASS = nn.functional.dropout(probability_BASS, dropout, training=module.training)
    return (kept_BASS @ value_BASD).transpose(1, 2).contiguous(), probability_BASS


AttentionInterface.register(_ATTENTION, _recorded_attention)
AttentionMaskInterface.register(_ATTENTION, eager_mask)
