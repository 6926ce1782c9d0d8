"""The encoder of a classifier, as far as sparsity is concerned.

Which matrices may be pruned, their shapes, and which of their slices stand or fall together: a
head's rows of query, key and value with its columns of the attention output; a neuron's row of the
first feed-forward matrix with its column of the second. Found in the names and shapes of the
model's tensors (``domain.layers``); ``config.json`` adds what no shape tells, such as the number of
heads.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, assert_never

from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.layers import Shapes, find_layers, refusal, refuse_other_tensors
from spd_deploy.domain.models.architecture import (
    FEED_FORWARD,
    POSITIONS,
    READERS,
    WORDS,
    Architecture,
    Naming,
    Pooling,
    Role,
)
from spd_deploy.domain.models.disentangled import DisentangledAttention
from spd_deploy.domain.models.known import ARCHITECTURES, BASE_OF
from spd_deploy.domain.models.layer_attention import LayerAttention
from spd_deploy.domain.models.relative_positions import RelativePositions
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured

_ORIGINAL = "use the model's original config.json"


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

    def moved_bytes(self, tokens: int, *, density: float = 1.0, number_bytes: int = 2) -> float:
        """Bytes of the kept weights and the inputs, read once, and the outputs, written once."""
        N, K = self.shape
        return number_bytes * (N * K * density + tokens * (N + K))


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """Layers that are alike, and the sizes of what they are fed.

    Attributes:
        prefix: what all layers' names begin with: layer i is the module ``prefix.i``.
        naming: what the modules of a layer are called.
        positions: how many tokens a text may have.
        first_position: the row of the position table that a text's first token reads.
        attention: rotary positions and window of each layer; empty where positions are embedded,
            and every layer attends to the whole text.
        pooling: what the classifier's head reads.
        disentangled: the terms by relative position of attention scores; None where there are none.
    """

    prefix: str
    naming: Naming
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    first_position: int = 0
    attention: tuple[LayerAttention, ...] = ()
    pooling: Pooling = "first"
    disentangled: DisentangledAttention | None = None

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def score_scale(self) -> float:
        """The factor of the product of a query and a key."""
        if self.disentangled is not None:
            return self.disentangled.scale(self.head_size)
        return float(self.head_size**-0.5)

    @property
    def base(self) -> str:
        """The base model's name in the classifier's tensors, such as ``bert``."""
        return _base_of(self.prefix)

    @property
    def relative_positions(self) -> RelativePositions | None:
        """The biases of attention scores by relative position, where the model has them."""
        known = ARCHITECTURES.get(self.base)
        return None if known is None else known.relative_positions

    @classmethod
    def found_in(cls, shapes: Shapes, config: Mapping[str, Any]) -> Self:
        """The encoder of a model with tensors of these names and shapes.

        Raises:
            BadModel: a model that is not handled, with the reason; or tensors and ``config.json``
                that do not fit together.
        """
        layers = find_layers(shapes, config)
        _refuse_other_base(_base_of(layers.prefix), config)
        refuse_other_tensors(shapes, layers, config)
        table = _position_table(ARCHITECTURES.get(_base_of(layers.prefix)), layers.prefix)
        if table is not None and table not in shapes:
            raise refusal(f"it has no {table}, the table of absolute positions", config)
        return cls.of_matrices(shapes, config)

    @classmethod
    def of_matrices(cls, shapes: Shapes, config: Mapping[str, Any]) -> Self:
        """The encoder where no more than its prunable matrices may be known, as of an artefact.

        Raises:
            BadModel: as :meth:`found_in` does, without looking at the other tensors.
        """
        found = find_layers(shapes, config)
        base = _base_of(found.prefix)
        known = ARCHITECTURES.get(base)
        shape = shapes.get(f"{found.prefix}.0.{found.naming.intermediate}.weight", ())
        intermediate, hidden = shape if len(shape) == 2 else (0, 0)
        first_position = _first_position(base, config)
        encoder = cls(
            prefix=found.prefix,
            naming=found.naming,
            layers=found.count,
            hidden=hidden,
            heads=_size(config, "num_attention_heads", "n_heads"),
            intermediate=intermediate,
            vocabulary=_rows(shapes, _word_table(known, found.prefix), config, "vocab_size"),
            positions=_rows(
                shapes,
                _position_table(known, found.prefix),
                config,
                "max_position_embeddings",
            )
            - first_position,
            first_position=first_position,
            attention=known.attention_of(config, found.count)
            if known is not None and known.attention_of is not None
            else (),
            pooling=known.pooling_of(config)
            if known is not None and known.pooling_of is not None
            else "first",
            disentangled=known.disentangled_of(config)
            if known is not None and known.disentangled_of is not None
            else None,
        )
        encoder._refuse_misfits(shapes, config)
        return encoder

    def matrices(self) -> Iterator[Matrix]:
        """All prunable matrices in network order."""
        for layer in range(self.layers):
            for role in self.naming.roles:
                yield Matrix(
                    name=f"{self.prefix}.{layer}.{self.naming.of(role)}",
                    layer=layer,
                    role=role,
                    shape=self.shape_of(role),
                )

    def shape_of(self, role: Role) -> tuple[int, int]:
        """``[N, K]`` of the matrices in this role."""
        match role:
            case "intermediate" | "gate":
                return self.intermediate, self.hidden
            case "output":
                return self.hidden, self.intermediate
            case "query" | "key" | "value" | "attention_output":
                return self.hidden, self.hidden
            case never:
                assert_never(never)

    def density(self, densities: Mapping[str, float]) -> float:
        """Share of non-zeros over all prunable weights together; matrices count by their size.

        Args:
            densities: share of non-zeros by matrix name; a matrix without one is dense.
        """
        sizes = {m.name: m.shape[0] * m.shape[1] for m in self.matrices()}
        kept = sum(size * densities.get(name, 1.0) for name, size in sizes.items())
        return kept / sum(sizes.values())

    def attention_flops(self, batch: int, queries: int, keys: int) -> float:
        """Operations of one layer's attention: ``queries`` of a row over ``keys`` tokens.

        Scores and weighted sum are a product of the hidden width each; heads share it among them.
        """
        return 2 * 2.0 * batch * queries * keys * self.hidden

    def attention_bytes(self, batch: int, queries: int, keys: int, number_bytes: int) -> float:
        """Bytes of queries, keys, values and context; scores need never leave the chip."""
        return number_bytes * batch * self.hidden * 2.0 * (queries + keys)

    def pattern_on(self, matrix: Matrix, pattern: Pattern) -> Pattern:
        """``pattern`` as it applies to ``matrix``: the structured one gets its axis and width."""
        match pattern:
            case Structured():
                axis = 1 if matrix.role in READERS else 0
                return pattern.on(axis=axis, width=self.unit_width(matrix.role))
            case Unstructured() | NM() | Block():
                return pattern
            case never:
                assert_never(never)

    def unit_width(self, role: Role) -> int:
        """How many rows or columns of a matrix one head or neuron has."""
        return 1 if role in FEED_FORWARD else self.head_size

    def coupled(self) -> Iterator[tuple[Matrix, ...]]:
        """Groups of matrices whose slices stand or fall together: heads, then neurons.

        The last of a group reads what the others give.
        """
        for layer in range(self.layers):
            of_layer = [m for m in self.matrices() if m.layer == layer]
            yield tuple(m for m in of_layer if m.role not in FEED_FORWARD)
            yield tuple(m for m in of_layer if m.role in FEED_FORWARD)

    def _refuse_misfits(self, shapes: Shapes, config: Mapping[str, Any]) -> None:
        """Matrices must have the shapes of their roles, and ``config.json`` must agree."""
        for matrix in self.matrices():
            if shapes.get(matrix.weight_name) != matrix.shape:
                raise BadModel(
                    f"{matrix.weight_name} does not fit into an encoder of width {self.hidden}",
                    got=f"shape {shapes.get(matrix.weight_name)}, expected {matrix.shape}",
                    fix="use a model whose layers are whole and alike",
                )
        for found, *names in (
            (self.layers, "num_hidden_layers", "n_layers"),
            (self.hidden, "hidden_size", "dim"),
            (self.intermediate, "intermediate_size", "hidden_dim"),
        ):
            for name in names:
                if config.get(name, found) != found:
                    raise BadModel(
                        f"the weights and config.json disagree about {name}",
                        got=f"{found} and {config[name]}",
                        fix=f"use complete weights, or {_ORIGINAL.removeprefix('use ')}",
                    )
        if self.positions < 1:
            raise BadModel(
                "the table of positions has no room for a token",
                got=f"{self.positions + self.first_position} rows, "
                f"{self.first_position} for padding",
                fix=_ORIGINAL,
            )
        if self.hidden % self.heads:
            raise BadModel(
                "the hidden size is no multiple of the number of heads",
                got=f"{self.hidden} and {self.heads}",
                fix=_ORIGINAL,
            )


def _refuse_other_base(base: str, config: Mapping[str, Any]) -> None:
    """Tensors must be named as Transformers reads them, or it loads none of them."""
    expected = BASE_OF.get(str(config.get("model_type")))
    if expected is not None and base != expected:
        raise refusal(
            f"its tensors are named {base}. ..., where Transformers reads {expected}. ... of a "
            f"model of type {config['model_type']}",
            config,
        )


def _base_of(prefix: str) -> str:
    """The base model's name: mostly all but the last two parts of the layers' prefix."""
    for base, known in ARCHITECTURES.items():
        if prefix == f"{base}.{known.layers}":
            return base
    return ".".join(prefix.split(".")[:-2])


def _word_table(known: Architecture | None, prefix: str) -> str:
    """The tensor of the word embeddings; a base model stored alone has no name before it."""
    words = WORDS if known is None else known.words
    return f"{_base_of(prefix)}.{words}.weight".removeprefix(".")


def _position_table(known: Architecture | None, prefix: str) -> str | None:
    """The tensor of the absolute positions; None where positions are not embedded."""
    positions = POSITIONS if known is None else known.positions
    if positions is None:
        return None
    return f"{_base_of(prefix)}.{positions}.weight".removeprefix(".")


def _first_position(base: str, config: Mapping[str, Any]) -> int:
    """The row of the position table that the first token reads.

    A base model that is not known is taken to count from the padding token's id; if it does not, it
    loses a position, no more.
    """
    known = ARCHITECTURES.get(base)
    if known is not None and not known.counts_from_padding:
        return 0
    fixed = {} if known is None else known.fixed
    return _size({**fixed, **config}, "pad_token_id", least=0) + 1


def _rows(shapes: Shapes, table: str | None, config: Mapping[str, Any], name: str) -> int:
    """The number of rows of a table, from ``config.json`` where the table is not known."""
    return shapes[table][0] if table and shapes.get(table) else _size(config, name)


def _size(config: Mapping[str, Any], *names: str, least: int = 1) -> int:
    """The whole number that ``config.json`` has under one of ``names``."""
    found = next((config[name] for name in names if config.get(name) is not None), None)
    if not isinstance(found, int) or found < least:
        raise BadModel(
            f"config.json has no {' or '.join(names)}, or a wrong one", got=found, fix=_ORIGINAL
        )
    return found
