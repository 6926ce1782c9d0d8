"""MPNet's attention for training: by Transformers' interface, for as many heads as there are.

Transformers' own module computes softmax attention step by step, so its probabilities cannot be
recorded, nor the fused kernel be used. It also adds the biases of all heads, of which a compact
student computes a part.
"""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention

from spd_train.student_linear import computed_rows


def adapt_mpnet(model: PreTrainedModel) -> None:
    """Put :class:`InterfacedAttention` in the place of each layer's attention.

    Names and values of the parameters stay as they are.
    """
    layers: Any = model.base_model.get_submodule("encoder.layer")
    for layer in layers:
        layer.attention.attn = InterfacedAttention(layer.attention.attn, model.config)
    model.config._attn_implementation = "sdpa"


class InterfacedAttention(nn.Module):
    """The attention of one layer, by the function that ``config._attn_implementation`` names."""

    is_causal = False

    def __init__(self, attention: MPNetSelfAttention, config: Any) -> None:
        """Share the modules of ``attention``."""
        super().__init__()
        self.config = config
        self.head_size = attention.attention_head_size
        self.q, self.k, self.v, self.o = attention.q, attention.k, attention.v, attention.o
        self.dropout = attention.dropout

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **_: Any,
    ) -> tuple[Tensor, ...]:
        """The output ``[B, S, H]``, and the probabilities if they are asked for."""
        rows = (*hidden_states.shape[:-1], -1, self.head_size)
        q, k, v = (f(hidden_states).view(rows).transpose(1, 2) for f in (self.q, self.k, self.v))
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, sdpa_attention_forward
        )
        context, probabilities = attend(
            self,
            q,
            k,
            v,
            self._added(position_bias, attention_mask, q),
            dropout=self.dropout.p if self.training else 0.0,
            scaling=self.head_size**-0.5,
        )
        output = self.o(context.reshape(*hidden_states.shape[:-1], -1))
        return (output, probabilities) if output_attentions else (output,)

    def _added(
        self, position_bias: Tensor | None, mask: Tensor | None, query: Tensor
    ) -> Tensor | None:
        """The biases of the scores of the heads that are computed.

        Args:
            position_bias: biases ``[B, A, S, S]`` of all heads, the same for each row.
            mask: ``[B, 1, S, S]``, True at tokens that are seen, or 0 there and low elsewhere.
            query: gives the type.
        """
        if position_bias is None:
            return mask
        bias = position_bias[:1]
        if (rows := computed_rows(self.q)) is not None:
            bias = bias[:, rows[:: self.head_size] // self.head_size]
        bias = bias.to(query.dtype)
        if mask is None:
            return bias
        if mask.dtype.is_floating_point:
            return bias + mask.to(query.dtype)
        return bias.masked_fill(~mask, float("-inf"))
