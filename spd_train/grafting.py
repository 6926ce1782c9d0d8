"""The grafted network: each part of an encoder layer is the frozen teacher's or its sparse student.

One network holds both. With every student in place it is the student. With none it is the teacher,
bit for bit, since embeddings and head are shared and frozen. The same module therefore gives the
teacher's targets, the grafted pass and the student's logits.

A graft unit is a whole encoder layer, as in the paper, or its attention and its feed-forward part
separately. Attention probabilities are recorded before dropout; the released code compares them
after it. If no loss needs them, the fused attention kernel runs and they are never computed.
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
from spd_train.student_linear import StudentLinear

_RECORDED = "spd_recorded"
_FUSED = "sdpa"
_recorded: ContextVar[list[Tensor] | None] = ContextVar("attention probabilities", default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """The values of one forward pass that the distillation losses compare.

    Attributes:
        logits_BC: logits of the classifier for each text, pooled over its windows.
        hidden_BSH: hidden states after each layer, in order; empty if they are not recorded.
        attention_BASS: attention probabilities of each layer (A heads), before dropout; empty if
            they are not recorded.
    """

    logits_BC: Tensor
    hidden_BSH: tuple[Tensor, ...] = ()
    attention_BASS: tuple[Tensor, ...] = ()


@dataclass(slots=True)
class Unit:
    """A graft unit: its switches always have the same position."""

    student_in_place: bool = True
    switches: list["Switch"] = field(default_factory=list)


class Switch(nn.Module):
    """A module of the student and the frozen one of the teacher that it may replace."""

    def __init__(self, teacher: nn.Module, unit: Unit) -> None:
        super().__init__()
        self.student = copy.deepcopy(teacher).requires_grad_(True)
        self.teacher = teacher.requires_grad_(False).eval()
        self.unit = unit
        unit.switches.append(self)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the student's module if the student is in place, otherwise the teacher's."""
        module = self.student if self.unit.student_in_place else self.teacher
        return module(*args, **kwargs)

    def train(self, mode: bool = True) -> "Switch":
        """Set the mode of the student's module. The teacher's stays in evaluation mode."""
        self.training = False
        self.student.train(mode)
        return self


class GraftedNetwork(nn.Module):
    """A classifier whose encoder layers consist of :class:`Switch` modules."""

    def __init__(
        self,
        teacher: PreTrainedModel,
        encoder: Encoder,
        *,
        unit: GraftUnit = "layer",
        attention: bool = True,
        hidden: bool = True,
    ) -> None:
        """Freeze ``teacher``, and put a trainable copy beside each part of its layers.

        Args:
            teacher: a fine-tuned classifier; it becomes part of the network.
            encoder: names its encoder layers.
            unit: the parts that are grafted together.
            attention: record attention probabilities; without them attention is fused.
            hidden: record hidden states.
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
        """Set the mode of the students. Everything frozen stays in evaluation mode."""
        super().train(mode=False)
        for switch in self._switches.values():
            switch.train(mode)
        self.training = mode
        return self

    def student_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The trained parameters, with the names that they have in a plain model."""
        for path, switch in self._switches.items():
            for name, parameter in switch.student.named_parameters():
                yield f"{path}.{name}", parameter

    def linear(self, name: str, *, teacher: bool = False) -> nn.Linear:
        """A linear layer of the student or the teacher, by its name in a plain model."""
        linear = self.part(name, teacher=teacher)
        assert isinstance(linear, nn.Linear)  # noqa: S101 - the encoder names linear layers only
        return linear

    def part(self, name: str, *, teacher: bool = False) -> nn.Module:
        """A module of the student or the teacher, by its name in a plain model."""
        path = next(p for p in self._switches if name == p or name.startswith(f"{p}."))
        switch = self._switches[path]
        module = switch.teacher if teacher else switch.student
        return module.get_submodule(name[len(path) + 1 :])

    def replace_linear(self, name: str, linear: nn.Linear) -> None:
        """Put another module in the place of a student's linear layer."""
        path = next(p for p in self._switches if name == p or name.startswith(f"{p}."))
        switch = self._switches[path]
        if name == path:
            switch.student = linear
        else:
            switch.student.set_submodule(name[len(path) + 1 :], linear)

    def student_linears(self) -> dict[str, StudentLinear]:
        """The students' prunable matrices by name; plain layers are replaced first."""
        found: dict[str, StudentLinear] = {}
        for matrix in self.encoder.matrices():
            linear = self.linear(matrix.name)
            if not isinstance(linear, StudentLinear):
                linear = StudentLinear(linear)
                self.replace_linear(matrix.name, linear)
            found[matrix.name] = linear
        return found

    def graft(self, in_place: Sequence[bool]) -> None:
        """Set for each unit, in order, whether the student is in place."""
        for unit, student in zip(self.units, in_place, strict=True):
            unit.student_in_place = student

    def graft_all(self, in_place: bool) -> None:
        """Put every student in place (True), or every teacher (False)."""
        self.graft([in_place] * len(self.units))

    def forward(self, batch: TensorBatch) -> Trace:
        """One forward pass with the parts that are in place."""
        attention: list[Tensor] = []
        token = _recorded.set(attention if self.record_attention else None)
        hidden: list[Tensor] = []
        self._hidden = hidden if self.record_hidden else None
        try:
            answer = self.model(**batch.model_inputs(self.model.config))
            return Trace(
                logits_BC=batch.pooled(answer.logits),
                hidden_BSH=tuple(hidden),
                attention_BASS=tuple(attention),
            )
        finally:
            _recorded.reset(token)
            self._hidden = None

    def teacher_forward(self, batch: TensorBatch) -> Trace:
        """A forward pass of the teacher without gradients. The graft is restored afterwards."""
        before = [unit.student_in_place for unit in self.units]
        self.graft_all(False)
        try:
            with torch.no_grad():
                return self(batch)  # type: ignore[no-any-return]
        finally:
            self.graft(before)

    def compile_parts(self) -> None:
        """Compile each part on its own, since the parts that run change from step to step."""
        for switch in self._switches.values():
            for module in (switch.student, switch.teacher):
                module.compile(dynamic=True)

    def student_state(self) -> dict[str, Tensor]:
        """The state dict of the student as a plain model."""
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
        """Replace each child of a layer by a switch, in one unit or two."""
        children = list(layer.named_children())
        first = feed_forward_child(self.encoder)
        names = [name for name, _ in children]
        at = names.index(first)
        parts = [children] if unit == "layer" else [children[:at], children[at:]]
        for part in parts:
            graft_unit = Unit()
            self.units.append(graft_unit)
            for name, child in part:
                switch = Switch(child, graft_unit)
                setattr(layer, name, switch)
                self._switches[f"{self.encoder.prefix}.{i}.{name}"] = switch

    def _keep_hidden(self, layer: nn.Module, args: Any, output: Any) -> None:
        """Forward hook: record a layer's output."""
        if self._hidden is not None:
            self._hidden.append(hidden_of(output))


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a layer returns: some layers put them into a tuple."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def feed_forward_child(encoder: Encoder) -> str:
    """The name of the child of a layer that starts its feed-forward part."""
    naming = encoder.naming
    return (naming.output_norm if naming.norm_first else naming.intermediate).split(".")[0]


def draw_graft(units: int, probability: float, *, seed: int, step: int) -> list[bool]:
    """Which units have their student in place at ``step``: one independent draw each.

    The draw depends on seed and step alone, so every process of a distributed run has the same.

    Args:
        units: number of units.
        probability: of the student, in [0, 1].
        seed: seed of the run.
        step: the step, from 0.
    """
    generator = torch.Generator().manual_seed(step_seed(seed, step))
    return (torch.rand(units, generator=generator) < probability).tolist()


def step_seed(seed: int, step: int, part: int = 0) -> int:
    """The seed of all randomness in one micro-batch of ``step``.

    It depends on its arguments alone, so a resumed run needs no saved random state.

    Args:
        seed: seed of the run.
        step: the step, from 0.
        part: number of the micro-batch over all processes.
    """
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
    """Softmax attention over A heads of width D, which records its probabilities if asked to."""
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
