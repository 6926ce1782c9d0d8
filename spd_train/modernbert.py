"""ModernBERT for training: each matrix in a linear layer of its own, with a bias.

Transformers computes query, key and value by one layer, and a gate with what it multiplies. Pruning
treats them as the matrices that they are, so they are taken apart here; a checkpoint has them
together again (``spd_train.stacked``). ModernBERT's own layers have no biases. Here they have, and
``attention_bias`` and ``mlp_bias`` of ``config.json`` say so: the mean of what was pruned away goes
into them. They start at 0, where they change nothing.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.modernbert.modeling_modernbert import (
    ModernBertAttention,
    ModernBertMLP,
    apply_rotary_pos_emb,
)


def adapt_modernbert(model: PreTrainedModel) -> None:
    """Put :class:`ApartAttention` and :class:`ApartMLP` in the place of each layer's parts."""
    layers: Any = model.base_model.get_submodule("layers")
    for layer in layers:
        layer.attn = ApartAttention(layer.attn, model.config)
        layer.mlp = ApartMLP(layer.mlp)
    model.config.attention_bias = model.config.mlp_bias = True
    model.config._attn_implementation = "sdpa"


class ApartAttention(nn.Module):
    """The attention of one layer, by the function that ``config._attn_implementation`` names."""

    is_causal = False

    def __init__(self, attention: ModernBertAttention, config: Any) -> None:
        """Copy the parameters of ``attention``."""
        super().__init__()
        self.config = config
        self.head_size = attention.head_dim
        self.Wq, self.Wk, self.Wv = _apart(attention.Wqkv, 3)
        (self.Wo,) = _apart(attention.Wo, 1)
        self.dropout = attention.attention_dropout
        self.out_drop = attention.out_drop

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        **keywords: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The output ``[B, S, H]`` and, where the function gives them, the probabilities."""
        rows = (*hidden_states.shape[:-1], -1, self.head_size)
        q, k, v = (f(hidden_states).view(rows).transpose(1, 2) for f in (self.Wq, self.Wk, self.Wv))
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, sdpa_attention_forward
        )
        context, probabilities = attend(
            self,
            q,
            k,
            v,
            attention_mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.head_size**-0.5,
            **keywords,
        )
        output = self.Wo(context.reshape(*hidden_states.shape[:-1], -1))
        return self.out_drop(output), probabilities


class ApartMLP(nn.Module):
    """The feed-forward part of one layer."""

    def __init__(self, mlp: ModernBertMLP) -> None:
        """Copy the parameters of ``mlp``."""
        super().__init__()
        self.Wi_input, self.Wi_gate = _apart(mlp.Wi, 2)
        (self.Wo,) = _apart(mlp.Wo, 1)
        self.act, self.drop = mlp.act, mlp.drop

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The output ``[B, S, H]``."""
        inner = self.act(self.Wi_input(hidden_states)) * self.Wi_gate(hidden_states)
        output: Tensor = self.Wo(self.drop(inner))
        return output


def _apart(linear: nn.Linear, count: int) -> list[nn.Linear]:
    """The linear layers whose rows lie one below the other in ``linear``, each with a bias."""
    weight_NK = linear.weight.detach()
    bias_N = weight_NK.new_zeros(len(weight_NK)) if linear.bias is None else linear.bias.detach()
    parts = []
    for part_NK, part_N in zip(weight_NK.chunk(count), bias_N.chunk(count), strict=True):
        part = nn.Linear(part_NK.shape[1], part_NK.shape[0], device="meta")
        part.weight = nn.Parameter(part_NK.clone(memory_format=torch.contiguous_format))
        part.bias = nn.Parameter(part_N.clone())
        parts.append(part)
    return parts
