"""How activations lie between the products of a torch artefact.

Token-major ``[tokens, features]`` is PyTorch's own layout; dense and 2:4 products want it. The
block-sparse kernel wants feature-major ``[features, tokens]``, where a kept input is one contiguous
row. A linear layer that takes PyTorch's layout and gives it back would turn its input and its
output each time: for BERT-base at 32x128 in fp16 that is 63 MB more for the first feed-forward
product, which itself moves 31 MB. So the layers are not kept as modules whose linears are replaced:
the whole stack stays feature-major, with one turn of ``[T, H]`` after the embeddings and one of
``[B, H]`` before the head. Seven launches a layer (queries, keys and values in one; attention; its
output with the residual; norm; the first feed-forward product with its activation; the second with
the residual; norm) read and write each activation once. For H hidden features, T tokens and a
feed-forward of 4 H that is 26 H T numbers a layer, 164 MB for BERT-base at 32x128, most of which
the 50 MB of an H100's L2 cache hold from one launch to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from spd_deploy.kernels.backends import Backend

if TYPE_CHECKING:
    from torch import Tensor


class TorchLayout(Protocol):
    """One of the two."""

    def enter(self, x_TH: "Tensor") -> "Tensor":
        """The embeddings, as the layers want them."""
        ...

    def leave(self, x: "Tensor") -> "Tensor":
        """What the layers gave for each row's first token, as ``[B, H]``."""
        ...

    def first_tokens(self, x: "Tensor", batch: int) -> "Tensor":
        """Of each row the first token alone."""
        ...

    def split(self, x: "Tensor", sizes: Sequence[int]) -> Sequence["Tensor"]:
        """The features in parts."""
        ...

    def add_bias(self, x: "Tensor", bias_H: "Tensor") -> "Tensor":
        """The bias of a product that is gone, to every token."""
        ...

    def norm(self, x: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float) -> "Tensor":
        """Layer norm of each token; weight and bias are fp32."""
        ...

    def attention(
        self, q: "Tensor", k: "Tensor", v: "Tensor", bias_BS: "Tensor", heads: int
    ) -> "Tensor":
        """The context of the queries, of B S keys, or of B first tokens."""
        ...


class TorchTokenMajor:
    """``[tokens, features]``, in PyTorch's operators."""

    def enter(self, x_TH: "Tensor") -> "Tensor":
        """As it is."""
        return x_TH

    def leave(self, x: "Tensor") -> "Tensor":
        """As it is."""
        return x

    def first_tokens(self, x: "Tensor", batch: int) -> "Tensor":
        """Every S-th row, close together: a 2:4 product reads a row's length on, whatever it is."""
        return x.reshape(batch, -1, x.shape[1])[:, 0].contiguous()

    def split(self, x: "Tensor", sizes: Sequence[int]) -> Sequence["Tensor"]:
        """Columns."""
        import torch

        return torch.split(x, list(sizes), 1)

    def add_bias(self, x: "Tensor", bias_H: "Tensor") -> "Tensor":
        """To every row."""
        return x + bias_H.to(x.dtype)

    def norm(self, x: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float) -> "Tensor":
        """PyTorch's own, which sums in fp32."""
        from torch.nn.functional import layer_norm

        return layer_norm(x, weight_H.shape, weight_H.to(x.dtype), bias_H.to(x.dtype), epsilon)

    def attention(
        self, q: "Tensor", k: "Tensor", v: "Tensor", bias_BS: "Tensor", heads: int
    ) -> "Tensor":
        """PyTorch's own; heads are views."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        B, _ = bias_BS.shape
        q4, k4, v4 = (
            x.reshape(B, -1, heads, x.shape[1] // heads).transpose(1, 2) for x in (q, k, v)
        )
        lowest = torch.finfo(q.dtype).min / 2
        mask = bias_BS[:, None, None, :].clamp(min=lowest).to(q.dtype)
        context = scaled_dot_product_attention(q4, k4, v4, attn_mask=mask)
        return context.transpose(1, 2).reshape(q.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchFeatureMajor:
    """``[features, tokens]``, in the backend's operators."""

    backend: Backend

    def enter(self, x_TH: "Tensor") -> "Tensor":
        """Turned, in memory."""
        return x_TH.T.contiguous()

    def leave(self, x: "Tensor") -> "Tensor":
        """Turned back, in memory."""
        return x.T.contiguous()

    def first_tokens(self, x: "Tensor", batch: int) -> "Tensor":
        """Every S-th column."""
        return x.reshape(len(x), batch, -1)[:, :, 0].contiguous()

    def split(self, x: "Tensor", sizes: Sequence[int]) -> Sequence["Tensor"]:
        """Rows."""
        import torch

        return torch.split(x, list(sizes), 0)

    def add_bias(self, x: "Tensor", bias_H: "Tensor") -> "Tensor":
        """To every column."""
        return x + bias_H[:, None].to(x.dtype)

    def norm(self, x: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float) -> "Tensor":
        """The backend's."""
        return self.backend.layer_norm(x, weight_H, bias_H, epsilon)

    def attention(
        self, q: "Tensor", k: "Tensor", v: "Tensor", bias_BS: "Tensor", heads: int
    ) -> "Tensor":
        """The backend's; heads are views."""
        return self.backend.attention(q, k, v, bias_BS, heads=heads)
