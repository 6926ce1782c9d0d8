"""The encoder of a BERT classifier, as far as sparsity is concerned.

Which matrices may be pruned, their shapes, and which of their slices stand or fall together: a
head's rows of query, key and value with its columns of the attention output; a neuron's row of the
first feed-forward matrix with its column of the second. Read from ``config.json`` alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.patterns import Pattern, Structured

Role = Literal["query", "key", "value", "attention_output", "intermediate", "output"]

_NAMES: Mapping[Role, str] = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """One prunable linear layer: its module name, role and ``[N, K]`` shape."""

    name: str
    layer: int
    role: Role
    shape: tuple[int, int]

    @property
    def weight_name(self) -> str:
        """The key of its weight in ``model.safetensors``."""
        return f"{self.name}.weight"

    def flops(self, tokens: int, *, density: float = 1.0) -> float:
        """Floating-point operations for ``tokens``: one multiply and one add a kept weight."""
        return 2.0 * self.shape[0] * self.shape[1] * tokens * density


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """The sizes of a BERT encoder; everything else about it follows from them."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    prefix: str = "bert.encoder.layer"

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the sizes from a Hugging Face ``config.json``.

        Raises:
            BadModel: another architecture, or sizes that are missing or do not fit together.
        """
        kind = config.get("model_type")
        if kind != "bert":
            raise BadModel(
                "not a BERT model", got=f"model_type {kind!r}", fix="use a model of type 'bert'"
            )
        try:
            sizes = cls(
                layers=int(config["num_hidden_layers"]),
                hidden=int(config["hidden_size"]),
                heads=int(config["num_attention_heads"]),
                intermediate=int(config["intermediate_size"]),
                vocabulary=int(config["vocab_size"]),
                positions=int(config["max_position_embeddings"]),
            )
        except (KeyError, TypeError, ValueError) as err:
            raise BadModel(
                "config.json lacks a size or holds a wrong one",
                got=repr(err),
                fix="use the model's original config.json",
            ) from err
        sizes._refuse_misfits(config)
        return sizes

    def matrices(self) -> Iterator[Matrix]:
        """All prunable matrices in network order."""
        for layer in range(self.layers):
            for role, name in _NAMES.items():
                yield Matrix(
                    name=f"{self.prefix}.{layer}.{name}",
                    layer=layer,
                    role=role,
                    shape=self.shape_of(role),
                )

    def shape_of(self, role: Role) -> tuple[int, int]:
        """``[N, K]`` of the matrices in this role."""
        match role:
            case "intermediate":
                return self.intermediate, self.hidden
            case "output":
                return self.hidden, self.intermediate
            case _:
                return self.hidden, self.hidden

    def pattern_on(self, matrix: Matrix, pattern: Pattern) -> Pattern:
        """``pattern`` as it applies to ``matrix``: the structured one gets its axis and width."""
        if not isinstance(pattern, Structured):
            return pattern
        axis = 1 if matrix.role in ("attention_output", "output") else 0
        width = 1 if matrix.role in ("intermediate", "output") else self.head_size
        return pattern.on(axis=axis, width=width)

    def coupled(self) -> Iterator[tuple[Matrix, ...]]:
        """Groups of matrices whose slices stand or fall together: heads, then neurons."""
        for layer in range(self.layers):
            of_layer = {m.role: m for m in self.matrices() if m.layer == layer}
            yield tuple(of_layer[r] for r in ("query", "key", "value", "attention_output"))
            yield tuple(of_layer[r] for r in ("intermediate", "output"))

    def check(self, pattern: Pattern) -> None:
        """Refuse a pattern that does not fit every matrix."""
        for matrix in self.matrices():
            self.pattern_on(matrix, pattern).check(matrix.shape)

    def _refuse_misfits(self, config: Mapping[str, Any]) -> None:
        """Sizes must be positive and fit together, and the variant must be the plain one."""
        if min(self.layers, self.hidden, self.heads, self.intermediate) < 1:
            raise BadModel(
                "a size in config.json is not positive", got=self, fix="mend config.json"
            )
        if self.hidden % self.heads:
            raise BadModel(
                "the hidden size is no multiple of the number of heads",
                got=f"{self.hidden} and {self.heads}",
                fix="use the model's original config.json",
            )
        position = config.get("position_embedding_type", "absolute")
        if position != "absolute" or config.get("is_decoder") or config.get("add_cross_attention"):
            raise BadModel(
                "only encoders with absolute positions are supported",
                got=f"position_embedding_type {position!r}, is_decoder {config.get('is_decoder')}",
                fix="use a plain BERT encoder",
            )
