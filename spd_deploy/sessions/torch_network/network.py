"""A torch artefact's classifier: token ids in, logits out, in PyTorch and our kernels.

It computes the same function as the checkpoint's module, in the precision of the artefact. Products
accumulate in fp32, and norms, softmax and the head run in fp32. Biases and norm tensors are stored
in fp32; our kernels read them in fp32, and PyTorch's operators read them in the artefact's
precision.

It is not a ``transformers`` module with other linear layers, for three reasons. Activations would
be transposed at each layer (``layouts.py``). The module's mask code reads values back from the GPU,
which a CUDA graph cannot. And serving an artefact would need ``transformers``.

Where the classifier reads the first token only, the last layer computes queries, attention output
and feed-forward for that token only, as the exported graphs do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.export_shapes import architecture_of
from spd_deploy.domain.models.architecture import Role
from spd_deploy.kernels.backends import Backend
from spd_deploy.kernels.two_four import TwoFourSelector
from spd_deploy.sessions.torch_network.disentangled import Disentangled
from spd_deploy.sessions.torch_network.embeddings import Embeddings
from spd_deploy.sessions.torch_network.gates import GatedProduct
from spd_deploy.sessions.torch_network.head import ClassifierHead
from spd_deploy.sessions.torch_network.layouts import (
    TorchFeatureMajor,
    TorchLayout,
    TorchTokenMajor,
)
from spd_deploy.sessions.torch_network.network_plan import MatrixPlan, NetworkPlan
from spd_deploy.sessions.torch_network.norm import Norm
from spd_deploy.sessions.torch_network.position_bias import layer_biases
from spd_deploy.sessions.torch_network.products import (
    MatrixProduct,
    ProductInputs,
    TwoFourLinear,
    product_of,
)
from spd_deploy.sessions.torch_network.rotary import Angles, layer_angles, window_biases
from spd_deploy.sessions.torch_network.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor

# Added to the attention scores of padding: near the lowest fp32 number, without overflow.
_HIDDEN = -1.7e38
_READERS: tuple[Role, ...] = ("query", "key", "value")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderLayer:
    """The products and norms of one encoder layer.

    Attributes:
        readers: products of the layer's input, each with the roles whose outputs it computes.
        biases_AD: biases of the scores by head and distance, where the model has them; a window
            is a bias too.
        disentangled: attention with terms of relative positions, where it is such.
        angles: angles by which queries and keys are rotated, where positions are rotary.
        attention_norm: None where the layer has none.
        output, second: None where no head, or no neuron, remains; only their biases are added.
    """

    heads: int
    biases_AD: "Tensor | None"
    disentangled: Disentangled | None
    angles: Angles | None
    sizes: Mapping[Role, int]
    readers: Sequence[tuple[tuple[Role, ...], MatrixProduct]]
    output: MatrixProduct | None
    output_bias_H: "Tensor"
    attention_norm: Norm | None
    first: MatrixProduct | GatedProduct | None
    second: MatrixProduct | None
    second_bias_H: "Tensor"
    output_norm: Norm

    def products(self) -> list[MatrixProduct]:
        """All products of the layer that remain."""
        found = [product for _, product in self.readers]
        if isinstance(self.first, GatedProduct):
            first: tuple[MatrixProduct | None, ...] = self.first.products
        else:
            first = (self.first,)
        return found + [p for p in (self.output, *first, self.second) if p is not None]


class Network:
    """Embeddings, encoder layers and head on one device."""

    def __init__(
        self,
        plan: NetworkPlan,
        encoder: Encoder,
        tensors: Tensors,
        *,
        backend: Backend,
        selector: TwoFourSelector | None,
    ) -> None:
        """Build the products from tensors that are on the device already.

        Raises:
            BadArtefact: the plan and the tensors contradict each other.
        """
        self.plan, self.encoder = plan, encoder
        self.layout: TorchLayout = (
            TorchFeatureMajor(backend=backend) if plan.feature_major else TorchTokenMajor()
        )
        self.embeddings = Embeddings(plan, encoder, tensors)
        self.head = ClassifierHead(plan, encoder, tensors)
        parts = ProductInputs(
            tensors=tensors, backend=backend, selector=selector, feature_major=plan.feature_major
        )
        self.layers = [self._layer_parts(layer, parts) for layer in range(encoder.layers)]
        self.final_norm: Norm | None = None
        if (final := architecture_of(encoder).final_norm) is not None:
            self.final_norm = Norm.of(f"{encoder.base}.{final}", tensors, encoder.hidden)

    def logits(self, ids_BS: "Tensor", mask_BS: "Tensor", types_BS: "Tensor") -> "Tensor":
        """Logits ``[B, C]`` in fp32."""
        x = self.layout.enter(self.embeddings(ids_BS, types_BS))
        bias_BS = (1 - mask_BS).float() * _HIDDEN
        for layer in self.layers[:-1]:
            x = self._layer(x, layer, bias_BS)
        first = self.encoder.pooling == "first"
        x = self._layer(x, self.layers[-1], bias_BS, first=first)
        x = self._normed(x, self.final_norm)
        if first:
            return self.head(self.layout.leave(x))
        share_BS = mask_BS.float() / mask_BS.sum(1, keepdim=True).clamp(min=1)
        return self.head(self.layout.mean_pooled(x, share_BS))

    def two_four(self) -> int:
        """Number of products that ran on 2:4 tensor cores in the last batch."""
        return sum(product.two_four for layer in self.layers for product in layer.products())

    def refused(self) -> tuple[str, ...]:
        """The reasons why 2:4 products stay dense, one for each such product."""
        products = [product for layer in self.layers for product in layer.products()]
        two_four = [product for product in products if isinstance(product, TwoFourLinear)]
        return tuple(product.refused for product in two_four if product.refused is not None)

    def _layer(
        self, x: "Tensor", layer: EncoderLayer, bias_BS: "Tensor", *, first: bool = False
    ) -> "Tensor":
        """One layer: keys and values of all tokens; with ``first``, outputs of the first only."""
        norm_first, B = self.encoder.naming.norm_first, len(bias_BS)
        read = self._normed(x, layer.attention_norm) if norm_first else x
        kept, asking = x, read
        if first:
            kept = self.layout.first_tokens(x, B)
            asking = kept if read is x else self.layout.first_tokens(read, B)
        if layer.output is None:
            y = self.layout.add_bias(kept, layer.output_bias_H)
        else:
            of = self._read(read, asking, layer)
            if layer.angles is not None:
                of["key"] = self.layout.rotated(of["key"], layer.angles, layer.heads, B)
                if not first:  # a first token, at position 0, is not rotated
                    of["query"] = self.layout.rotated(of["query"], layer.angles, layer.heads, B)
            context = self._context(of, layer, bias_BS)
            y = layer.output(context, residual=kept)
        y = y if norm_first else self._normed(y, layer.attention_norm)
        read = self._normed(y, layer.output_norm) if norm_first else y
        if layer.first is None or layer.second is None:
            z = self.layout.add_bias(y, layer.second_bias_H)
        else:
            z = layer.second(layer.first(read, activation=self.plan.activation), residual=y)
        return z if norm_first else self._normed(z, layer.output_norm)

    def _context(
        self, of: Mapping[Role, "Tensor"], layer: EncoderLayer, bias_BS: "Tensor"
    ) -> "Tensor":
        """The context of the queries, in the layout."""
        if layer.disentangled is None:
            return self.layout.attention(
                of["query"], of["key"], of["value"], bias_BS, layer.heads, layer.biases_AD
            )
        q4, k4, v4 = (self.layout.heads_of(of[r], layer.heads, len(bias_BS)) for r in _READERS)
        return self.layout.joined(layer.disentangled(q4, k4, v4, bias_BS))

    def _read(self, x: "Tensor", asking: "Tensor", layer: EncoderLayer) -> dict[Role, "Tensor"]:
        """Queries of the asking tokens, and keys and values of all tokens, by role."""
        found: dict[Role, Tensor] = {}
        for roles, product in layer.readers:
            y = product(asking if roles == ("query",) else x)
            parts = self.layout.split(y, [layer.sizes[role] for role in roles])
            found |= dict(zip(roles, parts, strict=True))
        return found

    def _normed(self, x: "Tensor", norm: Norm | None) -> "Tensor":
        """``x`` after a layer norm, if there is one."""
        if norm is None:
            return x
        return self.layout.norm(x, norm.weight_H, norm.bias_H, self.plan.epsilon)

    def _layer_parts(self, layer: int, parts: ProductInputs) -> EncoderLayer:
        """Build a layer; in the last one queries have fewer tokens than keys and values."""
        of, naming = self.plan.of_layer(layer), self.encoder.naming
        prefix = f"{self.encoder.prefix}.{layer}"
        whole = of["query"].outputs > 0
        neurons = of["intermediate"].outputs > 0
        last = layer == self.encoder.layers - 1 and self.encoder.pooling == "first"
        heads = of["query"].outputs // self.encoder.head_size
        window = window_biases(self.encoder, layer, heads, self.embeddings.words.device)
        return EncoderLayer(
            heads=heads,
            biases_AD=layer_biases(self.encoder, parts.tensors, layer, heads)
            if window is None
            else window,
            disentangled=Disentangled.of(self.encoder, parts.tensors, layer, heads),
            angles=layer_angles(self.encoder, layer, self.embeddings.words.device),
            sizes={role: of[role].outputs for role in _READERS},
            readers=_readers(of, parts, apart=last) if whole else (),
            output=product_of([of["attention_output"]], parts) if whole else None,
            output_bias_H=parts.tensors.get(f"{of['attention_output'].name}.bias"),
            attention_norm=self._norm_of(f"{prefix}.{naming.attention_norm}", parts.tensors)
            if naming.attention_norm in naming.norms(layer)
            else None,
            first=self._first(of, parts) if neurons else None,
            second=product_of([of["output"]], parts) if neurons else None,
            second_bias_H=parts.tensors.get(f"{of['output'].name}.bias"),
            output_norm=self._norm_of(f"{prefix}.{naming.output_norm}", parts.tensors),
        )

    def _first(
        self, of: Mapping[Role, MatrixPlan], parts: ProductInputs
    ) -> MatrixProduct | GatedProduct | None:
        """The product that makes the neurons, with a gate where there is one."""
        if "gate" in of:
            return GatedProduct.of(of["intermediate"], of["gate"], parts, self.layout)
        return product_of([of["intermediate"]], parts)

    def _norm_of(self, name: str, tensors: Tensors) -> Norm:
        """The tensors of a layer norm."""
        return Norm.of(name, tensors, self.encoder.hidden)


def _readers(
    of: Mapping[Role, MatrixPlan], parts: ProductInputs, *, apart: bool
) -> list[tuple[tuple[Role, ...], MatrixProduct]]:
    """The fewest products for queries, keys and values; ``apart`` separates the queries."""
    groups: list[tuple[Role, ...]] = [("query",), ("key", "value")] if apart else [_READERS]
    found: list[tuple[tuple[Role, ...], MatrixProduct]] = []
    for roles in groups:
        together = product_of([of[role] for role in roles], parts)
        if together is not None:
            found.append((roles, together))
            continue
        for role in roles:
            alone = product_of([of[role]], parts)
            assert alone is not None  # noqa: S101 - one matrix is always run alike
            found.append(((role,), alone))
    return found
