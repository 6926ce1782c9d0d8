"""The memory layouts of activations between the products of a torch artefact.

Token-major ``[tokens, features]`` is PyTorch's layout; dense and 2:4 products use it. The
block-sparse kernel needs feature-major ``[features, tokens]``, where a kept input is one contiguous
row.

The whole encoder stays in one layout. A linear layer that took and returned PyTorch's layout would
transpose its input and output each time. For BERT-base at 32x128 in fp16 that moves 63 MB more for
the first feed-forward product, which itself moves 31 MB. In a feature-major network there is one
transpose of ``[T, H]`` after the embeddings and one of ``[B, H]`` before the head.

A layer takes seven launches, which read and write each activation once: queries, keys and values;
attention; its output with the residual; norm; the first feed-forward product with its activation;
the second with the residual; norm. For H hidden features, T tokens and a feed-forward of 4 H that
is 26 H T numbers a layer, or 164 MB for BERT-base at 32x128. Most of it stays in the 50 MB of an
H100's L2 cache from one launch to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from spd_deploy.kernels.backends import Backend
from spd_deploy.kernels.eager import attention_mask
from spd_deploy.sessions.torch_network.rotary import Angles

if TYPE_CHECKING:
    from torch import Tensor


class TorchLayout(Protocol):
    """Operations on activations in one layout."""

    def enter(self, x_TH: "Tensor") -> "Tensor":
        """The embeddings ``[T, H]`` in this layout."""
        ...

    def leave(self, x: "Tensor") -> "Tensor":
        """The encoder's output for each row's first token, as ``[B, H]``."""
        ...

    def first_tokens(self, x: "Tensor", batch: int) -> "Tensor":
        """The first token of each row."""
        ...

    def split(self, x: "Tensor", sizes: Sequence[int]) -> Sequence["Tensor"]:
        """Split the features into parts of these sizes."""
        ...

    def add_bias(self, x: "Tensor", bias_H: "Tensor") -> "Tensor":
        """Add the bias of a product without remaining inputs to every token."""
        ...

    def norm(self, x: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float) -> "Tensor":
        """Layer norm over the features of each token; weight and bias are fp32."""
        ...

    def rotated(self, x: "Tensor", angles: Angles, heads: int, batch: int) -> "Tensor":
        """Queries or keys of all tokens, rotated by their positions in fp32."""
        ...

    def mean_pooled(self, x: "Tensor", share_BS: "Tensor") -> "Tensor":
        """The mean ``[B, H]`` of each row's tokens in fp32; ``share_BS`` is 1 / tokens."""
        ...

    def heads_of(self, x: "Tensor", heads: int, batch: int) -> "Tensor":
        """A view ``[B, A, S, D]`` of queries, keys or values."""
        ...

    def joined(self, x4: "Tensor") -> "Tensor":
        """The inverse of :meth:`heads_of`, copied."""
        ...

    def attention(
        self,
        q: "Tensor",
        k: "Tensor",
        v: "Tensor",
        bias_BS: "Tensor",
        heads: int,
        biases_AD: "Tensor | None",
    ) -> "Tensor":
        """The context of the queries: all B S tokens, or the B first tokens.

        Scores get ``bias_BS`` by their key, and ``biases_AD`` by their head and distance.
        """
        ...


class TorchTokenMajor:
    """``[tokens, features]``, computed by PyTorch's operators."""

    def enter(self, x_TH: "Tensor") -> "Tensor":
        """The embeddings ``[T, H]`` unchanged, since this layout is theirs."""
        return x_TH

    def leave(self, x: "Tensor") -> "Tensor":
        """The encoder's output unchanged."""
        return x

    def first_tokens(self, x: "Tensor", batch: int) -> "Tensor":
        """Every S-th row, copied: a 2:4 product ignores strides between rows."""
        return x.reshape(batch, -1, x.shape[1])[:, 0].contiguous()

    def split(self, x: "Tensor", sizes: Sequence[int]) -> Sequence["Tensor"]:
        """Views of so many columns each, features of every token."""
        import torch

        return torch.split(x, list(sizes), 1)

    def add_bias(self, x: "Tensor", bias_H: "Tensor") -> "Tensor":
        """Add the bias to every row."""
        return x + bias_H.to(x.dtype)

    def norm(self, x: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float) -> "Tensor":
        """PyTorch's layer norm, which accumulates in fp32."""
        from torch.nn.functional import layer_norm

        return layer_norm(x, weight_H.shape, weight_H.to(x.dtype), bias_H.to(x.dtype), epsilon)

    def rotated(self, x: "Tensor", angles: Angles, heads: int, batch: int) -> "Tensor":
        """Pairs of features are on an axis of their own, behind the heads."""
        x6 = x.float().reshape(batch, -1, heads, 2, x.shape[1] // heads // 2)
        S = x6.shape[1]
        cos_S1F, sin_S1F = (part_PF[:S, None] for part_PF in (angles.cos_PF, angles.sin_PF))
        both = _rotate(x6[:, :, :, 0], x6[:, :, :, 1], cos_S1F, sin_S1F)
        return _stacked(both, 3).reshape(x.shape).to(x.dtype)

    def mean_pooled(self, x: "Tensor", share_BS: "Tensor") -> "Tensor":
        """The product of the shares and the tokens of each row."""
        return (share_BS[:, None] @ x.float().reshape(*share_BS.shape, -1))[:, 0]

    def heads_of(self, x: "Tensor", heads: int, batch: int) -> "Tensor":
        """Heads are side by side in a row."""
        return x.reshape(batch, -1, heads, x.shape[1] // heads).transpose(1, 2)

    def joined(self, x4: "Tensor") -> "Tensor":
        """The heads side by side in each row again."""
        B, A, S, D = x4.shape
        return x4.transpose(1, 2).reshape(B * S, A * D)

    def attention(
        self,
        q: "Tensor",
        k: "Tensor",
        v: "Tensor",
        bias_BS: "Tensor",
        heads: int,
        biases_AD: "Tensor | None",
    ) -> "Tensor":
        """PyTorch's scaled dot-product attention on views of the heads."""
        from torch.nn.functional import scaled_dot_product_attention

        B, _ = bias_BS.shape
        q4, k4, v4 = (self.heads_of(x, heads, B) for x in (q, k, v))
        mask = attention_mask(q4, bias_BS, biases_AD)
        return self.joined(scaled_dot_product_attention(q4, k4, v4, attn_mask=mask))


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchFeatureMajor:
    """``[features, tokens]``, computed by the backend's operators."""

    backend: Backend

    def enter(self, x_TH: "Tensor") -> "Tensor":
        """The embeddings transposed into new memory."""
        return x_TH.T.contiguous()

    def leave(self, x: "Tensor") -> "Tensor":
        """The encoder's output transposed into new memory."""
        return x.T.contiguous()

    def first_tokens(self, x: "Tensor", batch: int) -> "Tensor":
        """Every S-th column, copied."""
        return x.reshape(len(x), batch, -1)[:, :, 0].contiguous()

    def split(self, x: "Tensor", sizes: Sequence[int]) -> Sequence["Tensor"]:
        """Views of so many rows each, features of every token."""
        import torch

        return torch.split(x, list(sizes), 0)

    def add_bias(self, x: "Tensor", bias_H: "Tensor") -> "Tensor":
        """Add the bias to every column."""
        return x + bias_H[:, None].to(x.dtype)

    def norm(self, x: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float) -> "Tensor":
        """The backend's layer norm."""
        return self.backend.layer_norm(x, weight_H, bias_H, epsilon)

    def rotated(self, x: "Tensor", angles: Angles, heads: int, batch: int) -> "Tensor":
        """Pairs of features are on an axis of their own, behind the heads."""
        x6 = x.float().reshape(heads, 2, len(x) // heads // 2, batch, -1)
        S = x6.shape[4]
        cos_F1S, sin_F1S = (part_PF[:S].T[:, None] for part_PF in (angles.cos_PF, angles.sin_PF))
        return (
            _stacked(_rotate(x6[:, 0], x6[:, 1], cos_F1S, sin_F1S), 1).reshape(x.shape).to(x.dtype)
        )

    def mean_pooled(self, x: "Tensor", share_BS: "Tensor") -> "Tensor":
        """A product of the features of a row's tokens with their shares."""
        rows_BHS = x.float().reshape(len(x), *share_BS.shape).permute(1, 0, 2)
        return (rows_BHS @ share_BS[:, :, None])[:, :, 0]

    def heads_of(self, x: "Tensor", heads: int, batch: int) -> "Tensor":
        """Heads are below each other."""
        return x.reshape(heads, -1, batch, x.shape[1] // batch).permute(2, 0, 3, 1)

    def joined(self, x4: "Tensor") -> "Tensor":
        """The heads below each other again."""
        B, A, S, D = x4.shape
        return x4.permute(1, 3, 0, 2).reshape(A * D, B * S)

    def attention(
        self,
        q: "Tensor",
        k: "Tensor",
        v: "Tensor",
        bias_BS: "Tensor",
        heads: int,
        biases_AD: "Tensor | None",
    ) -> "Tensor":
        """The backend's attention, which splits the heads itself."""
        return self.backend.attention(q, k, v, bias_BS, heads=heads, biases_AD=biases_AD)


def _rotate(a: "Tensor", b: "Tensor", cos: "Tensor", sin: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Both features of each pair, rotated by an angle."""
    return a * cos - b * sin, b * cos + a * sin


def _stacked(parts: tuple["Tensor", "Tensor"], axis: int) -> "Tensor":
    """Two tensors side by side on a new axis."""
    import torch

    return torch.stack(parts, axis)
