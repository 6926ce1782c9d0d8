"""What an architecture is made of: the names of its tensors, and what surrounds its layers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spd_deploy.domain.models.relative_positions import RelativePositions

Role = Literal["query", "key", "value", "attention_output", "intermediate", "output"]

ROLES: tuple[Role, ...] = (
    "query",
    "key",
    "value",
    "attention_output",
    "intermediate",
    "output",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """What a family of models calls the modules of a layer."""

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str

    def of(self, role: Role) -> str:
        """The module of a role, as seen from its layer."""
        return str(getattr(self, role))

    def tensors(self) -> Iterator[str]:
        """Every tensor of a layer, as seen from it."""
        for module in (*map(self.of, ROLES), self.attention_norm, self.output_norm):
            yield from (f"{module}.weight", f"{module}.bias")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLayer:
    """A linear layer of the head, and the operator that follows it."""

    name: str
    activation: Literal["Tanh", "Relu", "Gelu"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Names of tensors, a way to feed encoder layers, and to classify by what they give.

    Attributes:
        base: the base model's name in a classifier's tensors.
        model_types: ``model_type`` of ``config.json``, of all models that are stored so.
        naming: what the modules of a layer are called.
        head: what the first token goes through; the last layer gives the logits.
        token_types: whether there is a table of token types.
        projected: whether embeddings may be narrower than the encoder, and projected to its width.
        task_types: whether ``use_task_id`` of ``config.json`` adds a table of task types, of which
            a classifier reads row 0 for every token.
        counts_from_padding: whether positions are counted from behind the padding token's id, as in
            RoBERTa; otherwise the first token has position 0.
        activation_field: what ``config.json`` calls the activation of the feed-forward part.
        epsilon: what layer norms add to the variance; None where ``config.json`` says it.
        relative_positions: biases of attention scores by relative position; None where there are
            none.
        fixed: fields of ``config.json`` that Transformers' code does not read, or not throughout,
            and the one value that it computes with.
    """

    base: str
    model_types: tuple[str, ...]
    naming: Naming
    head: tuple[HeadLayer, ...]
    token_types: bool = True
    projected: bool = False
    task_types: bool = False
    counts_from_padding: bool = False
    activation_field: str = "hidden_act"
    epsilon: float | None = None
    relative_positions: RelativePositions | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
