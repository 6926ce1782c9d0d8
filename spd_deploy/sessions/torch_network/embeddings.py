"""Embeddings of a torch artefact: words, positions and token types, normalised, projected.

Rotary positions are not embedded.
"""

from typing import TYPE_CHECKING

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.export_shapes import architecture_of
from spd_deploy.sessions.torch_network.network_plan import NetworkPlan
from spd_deploy.sessions.torch_network.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


class Embeddings:
    """Maps token ids and token types to the encoder's input ``[T, H]``."""

    def __init__(self, plan: NetworkPlan, encoder: Encoder, tensors: Tensors) -> None:
        """Look up the embedding tables, which have the precision of the network.

        Raises:
            BadArtefact: a table is missing or has another shape.
        """
        base, architecture = f"{encoder.base}.embeddings", architecture_of(encoder)
        words = f"{encoder.base}.{architecture.words}.weight"
        self.epsilon, self.first_position = plan.epsilon, encoder.first_position
        self.words = tensors.get(words)
        E = self.words.shape[1]
        tensors.get(words, encoder.vocabulary, E)
        self.positions: Tensor | None = None
        if architecture.positions is not None:
            table = f"{encoder.base}.{architecture.positions}.weight"
            self.positions = tensors.get(table, encoder.first_position + encoder.positions, E)
        self.types: Tensor | None = None
        if plan.token_types:
            table = f"{base}.token_type_embeddings.weight"
            self.types = tensors.get(table, plan.token_types, E)
        norm = f"{encoder.base}.{architecture.embedding_norm}"
        self.weight_E = tensors.get(f"{norm}.weight", E).to(self.words.dtype)
        self.bias_E = tensors.get(f"{norm}.bias", E).to(self.words.dtype)
        self.project: tuple[Tensor, Tensor] | None = None
        if plan.projected:
            weight = tensors.get(f"{base}_project.weight", encoder.hidden, E)
            bias = tensors.get(f"{base}_project.bias", encoder.hidden)
            self.project = (weight.to(self.words.dtype), bias.to(self.words.dtype))

    def __call__(self, ids_BS: "Tensor", types_BS: "Tensor") -> "Tensor":
        """The input ``[T, H]``; a table of one type ignores ids, since tokenizers give 1 anyway."""
        from torch.nn.functional import embedding, layer_norm, linear

        x = embedding(ids_BS, self.words)
        if self.positions is not None:
            x = x + self._positions(ids_BS, self.positions)
        if self.types is not None:
            x = x + (self.types[0] if len(self.types) == 1 else embedding(types_BS, self.types))
        x = layer_norm(x, self.weight_E.shape, self.weight_E, self.bias_E, self.epsilon)
        x = x.reshape(-1, x.shape[-1])
        return x if self.project is None else linear(x, *self.project)

    def _positions(self, ids_BS: "Tensor", table_PE: "Tensor") -> "Tensor":
        """The position embeddings; models of the RoBERTa family count non-padding tokens only."""
        from torch.nn.functional import embedding

        if self.first_position == 0:
            return table_PE[: ids_BS.shape[1]]
        padding = self.first_position - 1
        real_BS = (ids_BS != padding).long()
        return embedding(real_BS.cumsum(1) * real_BS + padding, table_PE)
