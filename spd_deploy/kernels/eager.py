"""The kernels' operations in eager PyTorch, which a torch artefact runs on the CPU.

The block-sparse product gathers the kept inputs of each group and multiplies them by ``bmm``, as
the exported graphs do. Accumulation and epilogues are in fp32, as in the kernels.
"""

from typing import TYPE_CHECKING

from spd_deploy.kernels.distances import biases_between
from spd_deploy.kernels.weights import BlockWeight

if TYPE_CHECKING:
    from torch import Tensor


def activated(y: "Tensor", activation: str) -> "Tensor":
    """``y`` after an activation: ``none``, ``relu``, ``gelu``, ``gelu_tanh`` or ``silu``."""
    from torch.nn.functional import gelu, relu, silu

    match activation:
        case "none":
            return y
        case "relu":
            return relu(y)
        case "gelu":
            return gelu(y)
        case "gelu_tanh":
            return gelu(y, approximate="tanh")
        case "silu":
            return silu(y)
        case _:
            raise AssertionError(activation)


def block_linear(
    x_KT: "Tensor",
    weight: BlockWeight,
    *,
    activation: str = "none",
    residual_NT: "Tensor | None" = None,
) -> "Tensor":
    """Block-sparse product ``[K, T]`` to ``[N, T]``, with bias, activation and residual."""
    import torch

    G, _, J = weight.values_GRJ.shape
    read_GJT = x_KT.index_select(0, weight.rows_GJ.reshape(-1)).reshape(G, J, -1)
    y_NT = torch.bmm(weight.values_GRJ, read_GJT).reshape(weight.outputs, -1).float()
    y_NT = activated(y_NT + weight.bias_N[:, None], activation)
    if residual_NT is not None:
        y_NT = y_NT + residual_NT.float()
    return y_NT.to(x_KT.dtype)


def layer_norm(x_HT: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float) -> "Tensor":
    """Layer norm over the features of each token of ``[H, T]``."""
    from torch.nn.functional import layer_norm as norm

    x_TH = x_HT.T.float()
    y_TH = norm(x_TH, weight_H.shape, weight_H, bias_H, epsilon)
    return y_TH.T.to(x_HT.dtype).contiguous()


def attention(
    q: "Tensor",
    k: "Tensor",
    v: "Tensor",
    bias_BS: "Tensor",
    *,
    heads: int,
    biases_AD: "Tensor | None" = None,
) -> "Tensor":
    """The context ``[A D, B SQ]`` of queries ``[A D, B SQ]``; keys and values have B S tokens."""
    from torch.nn.functional import scaled_dot_product_attention

    B, _ = bias_BS.shape
    q4, k4, v4 = (x.reshape(heads, -1, B, x.shape[1] // B).permute(2, 0, 3, 1) for x in (q, k, v))
    mask = attention_mask(q4, bias_BS, biases_AD)
    context = scaled_dot_product_attention(q4, k4, v4, attn_mask=mask)
    return context.permute(1, 3, 0, 2).reshape(q.shape)


def attention_mask(q: "Tensor", bias_BS: "Tensor", biases_AD: "Tensor | None") -> "Tensor":
    """The biases of the scores of queries ``[B, A, Q, D]``, in their precision.

    The lowest number is halved; a lower one would overflow when a score is added.
    """
    import torch

    mask = bias_BS[:, None, None, :]
    if biases_AD is not None:
        mask = mask + biases_between(biases_AD, q.shape[2], bias_BS.shape[1])
    return mask.clamp(min=torch.finfo(q.dtype).min / 2).to(q.dtype)
