"""The grafted network: each part of an encoder layer is the frozen teacher's or its sparse student.

One network holds both. With every student in place it is the student; with none it is the teacher,
bit for bit, since embeddings and head are shared and frozen. So the same module gives the teacher's
targets, the grafted pass and the student's answers.

A graft unit is a whole encoder layer, as in the paper, or its attention and its feed-forward part
apart. Attention probabilities are recorded before dropout, where the released code compares them
after it; where nobody asks for them the fused kernel runs and none exist.
"""

import copy
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from spd_deploy.domain.encoder import Encoder
from spd_train.config import GraftUnit
from spd_train.data.batching import TensorBatch

_RECORDED = "spd_recorded"
_FUSED = "sdpa"
_recorded: ContextVar[list[Tensor] | None] = ContextVar("attention probabilities", default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What one pass computed, from which the distillation losses are made.

    Attributes:
        logits_BC: the classifier's outputs.
        hidden_BSH: hidden states after each layer, in order; empty if they were not wanted.
        attention_BASS: attention probabilities of each layer (A heads) before dropout; likewise.
    """

    logits_BC: Tensor
    hidden_BSH: tuple[Tensor, ...] = ()
    attention_BASS: tuple[Tensor, ...] = ()


@dataclass(slots=True)
class Unit:
    """What is grafted at once: its switches turn together."""

    student_in_place: bool = True
    switches: list["Switch"] = field(default_factory=list)


class Switch(nn.Module):
    """A module of the student and the frozen one of the teacher whose place it may take."""

    def __init__(self, teacher: nn.Module, unit: Unit) -> None:
        super().__init__()
        self.student = copy.deepcopy(teacher).requires_grad_(True)
        self.teacher = teacher.requires_grad_(False)
        self.unit = unit
        unit.switches.append(self)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the one that is in place."""
        module = self.student if self.unit.student_in_place else self.teacher
        return module(*args, **kwargs)

    def train(self, mode: bool = True) -> "Switch":
        """Only the student ever has dropout on: the teacher is a fixed function."""
        super().train(mode=False)
        self.student.train(mode)
        return self


class GraftedNetwork(nn.Module):
    """A classifier whose encoder layers are made of :class:`Switch`."""

    def __init__(
        self,
        teacher: PreTrainedModel,
        encoder: Encoder,
        *,
        unit: GraftUnit = "layer",
        attention: bool = True,
        hidden: bool = True,
    ) -> None:
        """Take over ``teacher``: freeze it and set a student, dense as yet, beside each part.

        Args:
            teacher: a fine-tuned classifier.
            encoder: where its encoder layers are.
            unit: what is grafted at once.
            attention: whether traces hold attention probabilities; without, attention is fused.
            hidden: whether traces hold hidden states.
        """
        super().__init__()
        teacher.config._attn_implementation = _RECORDED if attention else _FUSED
        self.model = teacher.requires_grad_(False)
        self.encoder = encoder
        self.record_attention = attention
        self.record_hidden = hidden
        self.units: list[Unit] = []
        self._hidden: list[Tensor] | None = None
        self._switches: dict[str, Switch] = {}
        self.layers = list(teacher.get_submodule(encoder.prefix).children())
        for i, layer in enumerate(self.layers):
            self._split(i, layer, unit)
            layer.register_forward_hook(self._keep_hidden)

    def train(self, mode: bool = True) -> "GraftedNetwork":
        """Training mode for the students; what is frozen stays in evaluation mode."""
        super().train(mode=False)
        for switch in self._switches.values():
            switch.train(mode)
        self.training = mode
        return self

    def students(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The trained parameters, by the name they have in a plain model."""
        for path, switch in self._switches.items():
            for name, parameter in switch.student.named_parameters():
                yield f"{path}.{name}", parameter

    def linear(self, name: str, *, teacher: bool = False) -> nn.Linear:
        """The student's (or the teacher's) linear layer, by its name in a plain model."""
        path = next(p for p in self._switches if name == p or name.startswith(f"{p}."))
        switch = self._switches[path]
        module = switch.teacher if teacher else switch.student
        found = module.get_submodule(name[len(path) + 1 :])
        assert isinstance(found, nn.Linear)  # noqa: S101 - the encoder names linear layers only
        return found

    def graft(self, in_place: Sequence[bool]) -> None:
        """Say of each unit whether the student stands in for its teacher."""
        for unit, student in zip(self.units, in_place, strict=True):
            unit.student_in_place = student

    def graft_all(self, in_place: bool) -> None:
        """The student alone, or the teacher alone."""
        self.graft([in_place] * len(self.units))

    def forward(self, batch: TensorBatch) -> Trace:
        """One pass with what is in place."""
        attention: list[Tensor] = []
        token = _recorded.set(attention if self.record_attention else None)
        hidden: list[Tensor] = []
        self._hidden = hidden if self.record_hidden else None
        try:
            answer = self.model(**batch.model_inputs(self.model.config))
            return Trace(
                logits_BC=answer.logits,
                hidden_BSH=tuple(hidden),
                attention_BASS=tuple(attention),
            )
        finally:
            _recorded.reset(token)
            self._hidden = None

    def teach(self, batch: TensorBatch) -> Trace:
        """What the teacher computes; what is in place is as before afterwards."""
        before = [unit.student_in_place for unit in self.units]
        self.graft_all(False)
        try:
            with torch.no_grad():
                return self(batch)  # type: ignore[no-any-return]
        finally:
            self.graft(before)

    def compile_parts(self) -> None:
        """Compile each part by itself: which of them run changes from step to step."""
        for switch in self._switches.values():
            for module in (switch.student, switch.teacher):
                module.compile(dynamic=True)

    def student_state(self) -> dict[str, Tensor]:
        """The student alone, as the state of a plain model."""
        inside = tuple(f"{path}." for path in self._switches)
        shared = {
            name: value
            for name, value in self.model.state_dict().items()
            if not name.startswith(inside)
        }
        students = {
            f"{path}.{name}": value
            for path, switch in self._switches.items()
            for name, value in switch.student.state_dict().items()
        }
        return {**shared, **students}

    def _split(self, i: int, layer: nn.Module, unit: GraftUnit) -> None:
        """Put a switch in the place of each child of a layer, in one unit or two."""
        children = list(layer.named_children())
        first = feed_forward_child(self.encoder, i)
        names = [name for name, _ in children]
        at = names.index(first)
        parts = [children] if unit == "layer" else [children[:at], children[at:]]
        for part in parts:
            made = Unit()
            self.units.append(made)
            for name, child in part:
                switch = Switch(child, made)
                setattr(layer, name, switch)
                self._switches[f"{self.encoder.prefix}.{i}.{name}"] = switch

    def _keep_hidden(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        """Keep a layer's output for the trace."""
        if self._hidden is not None:
            self._hidden.append(output)


def feed_forward_child(encoder: Encoder, layer: int) -> str:
    """The child of a layer that its feed-forward part begins with."""
    name = next(m.name for m in encoder.matrices() if m.layer == layer and m.role == "intermediate")
    return name.removeprefix(f"{encoder.prefix}.{layer}.").split(".")[0]


def draw_graft(units: int, probability: float, *, seed: int, step: int) -> list[bool]:
    """Which of the units have their student in place at ``step``: one independent draw each.

    A pure function of seed and step, so every process of a distributed run draws the same.
    """
    generator = torch.Generator().manual_seed(step_seed(seed, step))
    return (torch.rand(units, generator=generator) < probability).tolist()


def step_seed(seed: int, step: int, part: int = 0) -> int:
    """The seed of all randomness in one part of ``step``; a resumed run needs no other state."""
    return ((seed * 1_000_003 + step) * 1_009 + part) % (1 << 63)


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


AttentionInterface.register(_RECORDED, _recorded_attention)
AttentionMaskInterface.register(_RECORDED, eager_mask)
