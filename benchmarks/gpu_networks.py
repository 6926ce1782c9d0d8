"""BERT networks for :mod:`benchmarks.gpu`: drawn on the device, made sparse there, never exported.

Time does not depend on what a model has learned. A network keeps a share of its heads and neurons,
neurons in multiples of 64, which fill the tiles of tensor cores. Of what is left, a pattern zeroes
weights. One drawn model gives all forms: the classes of Transformers on the smaller matrices, and
this project's network on the same weights.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spd_deploy.benchmark.breakeven.gpu_products import packed_blocks
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.models.architecture import Role
from spd_deploy.domain.named_encoders import NAMED_ENCODERS
from spd_deploy.domain.patterns import NM, Block
from spd_deploy.kernels.backends import Backend
from spd_deploy.kernels.two_four import TwoFourSelector
from spd_deploy.sessions.torch_network.network import Network
from spd_deploy.sessions.torch_network.network_plan import HeadPlan, MatrixPlan, NetworkPlan
from spd_deploy.sessions.torch_network.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor, dtype

# A small table of words; its size is in no time.
_VOCABULARY = 1024
# Neurons that fill a tile of tensor cores.
NEURON_STEP = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseNetwork:
    """How a network is made sparse: the share of heads and neurons kept, then a pattern."""

    name: str
    kept: float = 1.0
    pattern: Block | NM | None = None


# In the order in which they are measured. A structured network is a small dense one, which every
# stock kernel runs, so it comes first.
NETWORKS = (
    SparseNetwork(name="structured 75%", kept=0.25),
    SparseNetwork(name="block:128x1 90%", pattern=Block(rows=128, columns=1, sparsity=0.9)),
    SparseNetwork(name="block:128x1 75%", pattern=Block(rows=128, columns=1, sparsity=0.75)),
    SparseNetwork(
        name="structured 50% + block:128x1 75%",
        kept=0.5,
        pattern=Block(rows=128, columns=1, sparsity=0.75),
    ),
    SparseNetwork(name="structured 50% + 2:4", kept=0.5, pattern=NM(n=2, m=4)),
    SparseNetwork(name="2:4", pattern=NM(n=2, m=4)),
    SparseNetwork(name="block:64x1 90%", pattern=Block(rows=64, columns=1, sparsity=0.9)),
)


def encoder_of(model: str) -> Encoder:
    """The encoder of a size's name, with a small vocabulary."""
    return replace(NAMED_ENCODERS[model], vocabulary=_VOCABULARY)


def kept_sizes(encoder: Encoder, share: float) -> tuple[int, int]:
    """Heads and neurons of each layer that keeps a share; neurons in multiples of 64.

    Both are rounded up, so that a network is never smaller than its name says.
    """
    heads = max(1, math.ceil(share * encoder.heads))
    steps = max(1, math.ceil(share * encoder.intermediate / NEURON_STEP))
    return heads, min(encoder.intermediate, steps * NEURON_STEP)


def drawn_model(encoder: Encoder, network: SparseNetwork, device: str, number: "dtype") -> Any:
    """Transformers' classifier on the device, its matrices small and its zeros in place."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=encoder.vocabulary,
        hidden_size=encoder.hidden,
        num_hidden_layers=encoder.layers,
        num_attention_heads=encoder.heads,
        intermediate_size=encoder.intermediate,
        max_position_embeddings=encoder.positions,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = BertForSequenceClassification(config)
        _make_compact(model, encoder, network.kept)
    with torch.no_grad():
        for module in _matrices(model):
            module.weight.mul_(_mask(module.weight, network.pattern))
    return model.to(number).eval()


def spd_network(
    model: Any,
    encoder: Encoder,
    network: SparseNetwork,
    *,
    backend: Backend,
    selector: TwoFourSelector | None,
) -> Network:
    """This project's network on the weights of a drawn model."""
    state: dict[str, Tensor] = model.state_dict()
    tensors = {
        name: value if value.ndim == 2 and not name.startswith(_HEAD) else value.float()
        for name, value in state.items()
    }
    matrices = tuple(_planned(encoder, network, tensors))
    plan = NetworkPlan(
        precision="fp16" if str(model.dtype) == "torch.float16" else "fp32",
        activation="gelu",
        epsilon=model.config.layer_norm_eps,
        token_types=model.config.type_vocab_size,
        projected=False,
        matrices=matrices,
        head=(
            HeadPlan(name=_HEAD[0], activation="tanh"),
            HeadPlan(name=_HEAD[1], activation="none"),
        ),
    )
    return Network(plan, encoder, Tensors(tensors), backend=backend, selector=selector)


_HEAD = ("bert.pooler.dense", "classifier")
_KINDS = {Block: "blocks", NM: "2:4", type(None): "dense"}


def _planned(
    encoder: Encoder, network: SparseNetwork, tensors: "dict[str, Tensor]"
) -> Iterator[MatrixPlan]:
    """The plan of each matrix; block-sparse weights are packed in ``tensors``."""
    for matrix in encoder.matrices():
        N, K = tensors[matrix.weight_name].shape
        kind = _KINDS[type(network.pattern)]
        if isinstance(network.pattern, Block):
            values_GRJ, index_GJ = packed_blocks(tensors[matrix.weight_name], network.pattern)
            tensors[matrix.weight_name] = values_GRJ
            tensors[f"{matrix.name}.index"] = index_GJ.int()
        role: Role = matrix.role
        yield MatrixPlan(
            name=matrix.name,
            layer=matrix.layer,
            role=role,
            kind=kind,  # type: ignore[arg-type]
            outputs=N,
            inputs=K,
        )


def _make_compact(model: Any, encoder: Encoder, share: float) -> None:
    """Give each layer the matrices of the heads and neurons that it keeps."""
    from torch.nn import Linear

    heads, neurons = kept_sizes(encoder, share)
    width, H = heads * encoder.head_size, encoder.hidden
    if (heads, neurons) == (encoder.heads, encoder.intermediate):
        return
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        attention.num_attention_heads, attention.all_head_size = heads, width
        attention.query, attention.key, attention.value = (Linear(H, width) for _ in range(3))
        layer.attention.output.dense = Linear(width, H)
        layer.intermediate.dense = Linear(H, neurons)
        layer.output.dense = Linear(neurons, H)


def _matrices(model: Any) -> Iterator[Any]:
    """The prunable linear layers."""
    from torch.nn import Linear

    return (m for m in model.bert.encoder.modules() if isinstance(m, Linear))


def _mask(weight_NK: "Tensor", pattern: Block | NM | None) -> "Tensor":
    """Ones where a weight stays: drawn for blocks, the largest of each group for N:M."""
    import torch

    N, K = weight_NK.shape
    if pattern is None:
        return torch.ones_like(weight_NK)
    if isinstance(pattern, NM):
        size_NGM = weight_NK.abs().reshape(N, K // pattern.m, pattern.m)
        place_NGM = size_NGM.argsort(-1, descending=True).argsort(-1)
        return (place_NGM < pattern.n).reshape(N, K).to(weight_NK.dtype)
    groups, kept = N // pattern.rows, max(1, round((1 - pattern.sparsity) * K))
    place_GK = torch.rand(groups, K, device=weight_NK.device).argsort(1).argsort(1)
    return (place_GK < kept).repeat_interleave(pattern.rows, 0).to(weight_NK.dtype)
