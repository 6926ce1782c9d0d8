"""A classifier as an ONNX graph, with each matrix in its lowering.

The inputs ``input_ids``, ``attention_mask`` and ``token_type_ids`` are int64 ``[batch, sequence]``
with both axes dynamic. All three exist also where a model has no token types. The output ``logits``
is float32 ``[batch, classes]``. The classifier reads the first token only, so the last layer
computes queries, attention output and feed-forward for that token only, in dense and sparse graphs
alike.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.lowering.compact import Heads, kept_heads
from exporters.onnx.arithmetic.arithmetic import Arithmetic
from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.attention_bias import AttentionBias
from exporters.onnx.embeddings import embeddings
from exporters.onnx.graph import Graph, Name, Target
from exporters.onnx.layouts.feature_major import FeatureMajor
from exporters.onnx.layouts.layout import Axes, Layout
from exporters.onnx.layouts.token_major import TokenMajor
from exporters.onnx.operators import gelu, silu
from exporters.precision import Precision
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.models.architecture import Role
from spd_deploy.domain.text import IDS, INPUTS

OUTPUT = "logits"


class ClassifierGraph:
    """Builds the graph of a classifier, layer by layer.

    Args:
        weights: the tensors of the checkpoint.
        choices: the lowering of each matrix, by the matrix's name.
        target: the runtime that the graph is made for.
        arithmetic: the precision of the products; None for fp32.
        word_embeddings: the precision that the word-embedding table is stored in.
    """

    def __init__(
        self,
        weights: ClassifierWeights,
        choices: Mapping[str, LoweringChoice],
        target: Target = Target.ONNXRUNTIME,
        arithmetic: Arithmetic | None = None,
        word_embeddings: Precision = Precision.FP32,
    ) -> None:
        self.weights = weights
        self.choices = choices
        self.word_embeddings = word_embeddings
        self.g = Graph(target)
        self.arithmetic: Arithmetic = arithmetic or Float32()
        gathered = any(choice.lowering.feature_major for choice in choices.values())
        self.layout: Layout = (FeatureMajor if gathered else TokenMajor)(self.g, self.arithmetic)

    def emit(self) -> Graph:
        """The graph with all its nodes and constants."""
        axes = self._axes()
        with self.g.scope("embeddings"):
            x = embeddings(self.g, self.weights, axes, self.word_embeddings)
            x = self.layout.enter(x, axes)
        layers = self.weights.encoder.layers
        heads = [self._heads(layer) for layer in range(layers)]
        bias = AttentionBias(self.g, self.weights, heads, axes)
        for layer in range(layers):
            with self.g.scope(f"layer.{layer}"):
                x = self._layer(x, layer, bias, axes, last=layer == layers - 1)
        with self.g.scope("head"):
            first_BH = self.layout.leave(x, self.weights.encoder.hidden)
        self.g.output(self._head(first_BH), OUTPUT)
        return self.g

    def inputs(self) -> list[Any]:
        """The ``ValueInfoProto`` of each of the three inputs."""
        from onnx import TensorProto, helper

        return [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in INPUTS
        ]

    def outputs(self) -> list[Any]:
        """The ``ValueInfoProto`` of the logits."""
        from onnx import TensorProto, helper

        classes = len(self.weights.bias(self.weights.architecture.head[-1].name))
        return [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes])]

    def _axes(self) -> Axes:
        """The sizes of batch and sequence at run time."""
        with self.g.scope("axes"):
            batch = self.g.op("Shape", IDS, start=0, end=1)
            sequence = self.g.op("Shape", IDS, start=1, end=2)
        return Axes(batch=batch, sequence=sequence)

    def _heads(self, layer: int) -> Heads:
        """The heads that a layer keeps."""
        encoder = self.weights.encoder
        (query,) = (m for m in encoder.matrices() if m.layer == layer and m.role == "query")
        return kept_heads(self.choices[query.name].lowering, encoder.head_size)

    def _layer(self, x: Name, layer: int, bias: AttentionBias, axes: Axes, *, last: bool) -> Name:
        """One encoder layer; the last one computes the first token of each row only."""
        encoder = self.weights.encoder
        matrices = {m.role: m for m in encoder.matrices() if m.layer == layer}
        kept = self.layout.first_tokens(x, axes, encoder.hidden) if last else x
        if last:
            axes = replace(axes, first=True)
        x = self._attention(x, kept, matrices, bias, axes)
        return self._feed_forward(x, matrices)

    def _attention(
        self, x: Name, kept: Name, matrices: Mapping[Role, Matrix], bias: AttentionBias, axes: Axes
    ) -> Name:
        """Attention of the ``kept`` tokens to all tokens, with residual and norm."""
        size = self.weights.encoder.head_size
        output = matrices["attention_output"]
        heads = self._heads(output.layer)
        with self.g.scope("attention"):
            if heads:
                q = self._linear(kept, matrices["query"])
                k, v = self._linear(x, matrices["key"]), self._linear(x, matrices["value"])
                with self.g.scope("product"):
                    context = self.layout.attention(
                        q,
                        k,
                        v,
                        heads=len(heads),
                        size=size,
                        attention_biases=bias.of(heads, first=axes.first),
                        axes=axes,
                    )
                y = self._linear(context, output, residual=kept)
            else:
                y = self.layout.add_bias(kept, self.weights.bias(output.name))
            return self._norm(y, output.layer, self.weights.encoder.naming.attention_norm)

    def _feed_forward(self, x: Name, matrices: Mapping[Role, Matrix]) -> Name:
        """The two products with the activation between them, residual and norm."""
        output = matrices["output"]
        with self.g.scope("feed_forward"):
            if self.choices[matrices["intermediate"].name].lowering.outputs:
                inner = self._activate(self._linear(x, matrices["intermediate"]))
                y = self._linear(inner, output, residual=x)
            else:
                y = self.layout.add_bias(x, self.weights.bias(output.name))
            return self._norm(y, output.layer, self.weights.encoder.naming.output_norm)

    def _linear(self, x: Name, matrix: Matrix, residual: Name | None = None) -> Name:
        """The product with a matrix in its lowering, with bias."""
        lowering, bias_N = self.choices[matrix.name].lowering, self.weights.bias(matrix.name)
        with self.g.scope(matrix.role):
            return self.layout.linear(x, lowering, bias_N, residual)

    def _activate(self, x: Name) -> Name:
        """The feed-forward activation of ``x``."""
        match self.weights.activation:
            case "relu":
                return self.g.op("Relu", x)
            case "silu":
                return silu(self.g, x)
            case name:
                return gelu(self.g, x, tanh=name == "gelu_tanh", scalar=self.arithmetic.scalar)

    def _norm(self, x: Name, layer: int, norm: str) -> Name:
        """The layer norm that is called ``norm`` in this layer."""
        with self.g.scope("norm"):
            name = f"{self.weights.encoder.prefix}.{layer}.{norm}"
            return self.layout.norm(x, *self.weights.norm(name))

    def _head(self, first_BH: Name) -> Name:
        """The logits, from each row's first token."""
        g = self.g
        for layer in self.weights.architecture.head:
            with g.scope(layer.name.removeprefix(f"{self.weights.encoder.base}.")):
                weight = g.weight(f"{layer.name}.weight", self.weights.weight(layer.name))
                bias = g.constant(self.weights.bias(layer.name))
                first_BH = g.op("Gemm", first_BH, weight, bias, transB=1)
                if layer.activation == "Gelu":
                    first_BH = gelu(g, first_BH)
                elif layer.activation:
                    first_BH = g.op(layer.activation, first_BH)
        return first_BH
