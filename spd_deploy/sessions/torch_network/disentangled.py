"""Disentangled attention of a torch artefact, by PyTorch's operators in either layout.

A layer has its projected relative positions as constants, with the scale of the scores in them. The
attention kernel adds no such terms, so scores are made in memory, ``[B, A, Q, S]``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spd_deploy.domain.encoder import Encoder
from spd_deploy.sessions.torch_network.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


def key_table(encoder: Encoder, layer: int) -> str:
    """The name of the tensor ``[A, D, U]`` that queries of a layer are multiplied with."""
    return f"{encoder.prefix}.{layer}.projected_positions.key"


def query_table(encoder: Encoder, layer: int) -> str:
    """The name of the tensor ``[A, D, U]`` that keys of a layer are multiplied with."""
    return f"{encoder.prefix}.{layer}.projected_positions.query"


@dataclass(frozen=True, kw_only=True, slots=True)
class Disentangled:
    """The attention of one layer.

    Attributes:
        key_ADU, query_ADU: the projected positions; None where scores have no such term.
        row_L: the row of the distances ``1 - P`` to ``P - 1`` of a query from its key.
        scale: what the product of queries and keys is multiplied by.
    """

    key_ADU: "Tensor | None"
    query_ADU: "Tensor | None"
    row_L: "Tensor"
    scale: float

    @classmethod
    def of(
        cls, encoder: Encoder, tensors: Tensors, layer: int, heads: int
    ) -> "Disentangled | None":
        """The attention of a layer with so many heads; None where it is not disentangled.

        Raises:
            BadArtefact: a table is missing or has another shape.
        """
        if (attention := encoder.disentangled) is None or not heads:
            return None
        import torch

        shape = (heads, encoder.head_size, 2 * attention.span)
        key, query = key_table(encoder, layer), query_table(encoder, layer)
        key_ADU = tensors.get(key, *shape) if attention.content_to_position else None
        query_ADU = tensors.get(query, *shape) if attention.position_to_content else None
        of = key_ADU if key_ADU is not None else query_ADU
        assert of is not None  # noqa: S101 - a model without both is refused
        rows = list(attention.rows_of(range(1 - encoder.positions, encoder.positions)))
        return cls(
            key_ADU=key_ADU,
            query_ADU=query_ADU,
            row_L=torch.tensor(rows, device=of.device),
            scale=attention.scale(encoder.head_size),
        )

    def __call__(self, q4: "Tensor", k4: "Tensor", v4: "Tensor", bias_BS: "Tensor") -> "Tensor":
        """The context ``[B, A, Q, D]`` of queries of the first Q tokens; keys have S tokens."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        Q, S = q4.shape[2], k4.shape[2]
        position_S = torch.arange(S, device=q4.device)
        row_QS = self.row_L[position_S[:Q, None] - position_S + len(self.row_L) // 2]
        added = bias_BS[:, None, None, :]
        if self.key_ADU is not None:
            by_row = q4 @ self.key_ADU
            added = added + by_row.gather(-1, row_QS.expand(*q4.shape[:2], -1, -1))
        if self.query_ADU is not None:
            by_row = k4 @ self.query_ADU
            by_key = by_row.gather(-1, row_QS.T.expand(*k4.shape[:2], -1, -1))
            added = added + by_key.transpose(-2, -1)
        mask = added.clamp(min=torch.finfo(q4.dtype).min / 2).to(q4.dtype)
        return scaled_dot_product_attention(q4, k4, v4, attn_mask=mask, scale=self.scale)
