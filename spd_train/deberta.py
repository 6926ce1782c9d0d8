"""DeBERTa's attention for training: by Transformers' interface, for as many heads as there are.

Transformers' own module computes softmax attention step by step, so its probabilities cannot be
recorded, nor the fused kernel be used. What positions add to the scores is handed to the interface
as a mask.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

from spd_train.student_linear import projected


def adapt_deberta(model: PreTrainedModel) -> None:
    """Put :class:`InterfacedDisentangledAttention` in the place of each layer's attention.

    Names and values of the parameters stay as they are.
    """
    layers: Any = model.base_model.get_submodule("encoder.layer")
    for layer in layers:
        layer.attention.self = InterfacedDisentangledAttention(layer.attention.self, model.config)
    model.config._attn_implementation = "sdpa"


class InterfacedDisentangledAttention(nn.Module):
    """The attention of one layer, by the function that ``config._attn_implementation`` names."""

    is_causal = False

    def __init__(self, attention: DisentangledSelfAttention, config: Any) -> None:
        """Share the modules of ``attention``."""
        super().__init__()
        self.config = config
        self.head_size = attention.attention_head_size
        self.terms = tuple(term for term in ("c2p", "p2c") if term in attention.pos_att_type)
        self.scale = (self.head_size * (1 + len(self.terms))) ** -0.5
        self.span = attention.pos_ebd_size
        self.query_proj, self.key_proj = attention.query_proj, attention.key_proj
        self.value_proj = attention.value_proj
        self.dropout, self.pos_dropout = attention.dropout, attention.pos_dropout

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The context ``[B, S, A D]``, and the probabilities if they are asked for.

        Args:
            hidden_states: what queries, keys and values are made of.
            attention_mask: ``[B, 1, S, S]``, 0 at what is not seen.
            output_attentions: whether probabilities are wanted.
            query_states: None: an encoder asks of its own tokens.
            relative_pos: bucket of each distance, ``[1, S, S]``.
            rel_embeddings: the table ``[U, H]``, normed.
        """
        modules = (self.query_proj, self.key_proj, self.value_proj)
        q, k, v = (self._heads(module(hidden_states)) for module in modules)
        added = self._added(q, k, relative_pos, rel_embeddings)
        added = added.masked_fill(~attention_mask.bool(), torch.finfo(added.dtype).min / 2)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, sdpa_attention_forward
        )
        context, probabilities = attend(
            self,
            q,
            k,
            v,
            added,
            dropout=self.dropout.p if self.training else 0.0,
            scaling=self.scale,
        )
        return context.reshape(*hidden_states.shape[:-1], -1), probabilities

    def _heads(self, x: Tensor) -> Tensor:
        """``[..., S, A D]`` as ``[..., A, S, D]``."""
        return x.view(*x.shape[:-1], -1, self.head_size).transpose(-3, -2)

    def _added(
        self, q: Tensor, k: Tensor, relative_pos: Tensor | None, rel_embeddings: Tensor | None
    ) -> Tensor:
        """The terms of the scores that positions add, ``[B, A, S, S]``."""
        assert relative_pos is not None  # noqa: S101 - others are refused
        assert rel_embeddings is not None  # noqa: S101
        table = self.pos_dropout(rel_embeddings)
        row_SS = (relative_pos[0].long() + self.span).clamp(0, 2 * self.span - 1)
        added = q.new_zeros(())
        if "c2p" in self.terms:
            by_row = q @ self._heads(projected(self.key_proj, table)).transpose(-2, -1)
            added = added + by_row.gather(-1, row_SS.expand(*q.shape[:2], -1, -1))
        if "p2c" in self.terms:
            by_row = k @ self._heads(projected(self.query_proj, table)).transpose(-2, -1)
            by_key = by_row.gather(-1, row_SS.T.expand(*k.shape[:2], -1, -1))
            added = added + by_key.transpose(-2, -1)
        scaled: Tensor = added * self.scale
        return scaled
