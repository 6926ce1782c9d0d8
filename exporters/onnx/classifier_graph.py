"""A classifier as an ONNX graph, with each matrix in its lowering.

The inputs ``input_ids``, ``attention_mask`` and ``token_type_ids`` are int64 ``[batch, sequence]``
with both axes dynamic. All three exist also where a model has no token types. The output ``logits``
is float32 ``[batch, classes]``. Where the classifier reads the first token only, the last layer
computes queries, attention output and feed-forward for that token only, in dense and sparse graphs
alike.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.lowering.compact import Heads, kept_heads
from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array
from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.attention_bias import AttentionBias
from exporters.onnx.disentangled import layer_scores
from exporters.onnx.embeddings import embeddings
from exporters.onnx.graph import Graph, Name, Target
from exporters.onnx.layouts.feature_major import FeatureMajor
from exporters.onnx.layouts.layout import FLOAT, Axes, Layout
from exporters.onnx.layouts.token_major import TokenMajor
from exporters.onnx.local_attention import chunks_of
from exporters.onnx.operators import gelu, silu
from exporters.onnx.rotary import Rotary
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
        smoothing: the factors ``[K]`` that the columns of a matrix were multiplied by, by its name;
            the inputs are divided by them.
    """

    def __init__(
        self,
        weights: ClassifierWeights,
        choices: Mapping[str, LoweringChoice],
        target: Target = Target.ONNXRUNTIME,
        arithmetic: Arithmetic | None = None,
        word_embeddings: Precision = Precision.FP32,
        smoothing: Mapping[str, Array] | None = None,
    ) -> None:
        self.weights = weights
        self.choices = choices
        self.word_embeddings = word_embeddings
        self.smoothing = smoothing or {}
        self.g = Graph(target)
        self.arithmetic: Arithmetic = arithmetic or Float32()
        gathered = any(choice.lowering.feature_major for choice in choices.values())
        self.layout: Layout = (FeatureMajor if gathered else TokenMajor)(self.g, self.arithmetic)

    def emit(self) -> Graph:
        """The graph with all its nodes and constants."""
        axes = self._axes()
        with self.g.scope("embeddings"):
            x = embeddings(self.g, self.weights, axes, self.word_embeddings)
            if (chunks := chunks_of(self.g, self.weights, axes)) is not None:
                x, axes = chunks.padded(x, axes, self.weights.encoder.hidden)
            x = self.layout.enter(x, axes)
        layers = self.weights.encoder.layers
        heads = [self._heads(layer) for layer in range(layers)]
        bias = AttentionBias(self.g, self.weights, heads, axes, chunks)
        rotary = Rotary(
            self.g,
            self.arithmetic,
            self.weights.encoder.head_size,
            self.weights.encoder.positions,
            axes,
        )
        first = self.weights.encoder.pooling == "first"
        for layer in range(layers):
            with self.g.scope(f"layer.{layer}"):
                x = self._layer(x, layer, bias, rotary, axes, last=first and layer == layers - 1)
        with self.g.scope("head"):
            pooled_BH = self._pooled(x, axes)
        self.g.output(self._head(pooled_BH), OUTPUT)
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

    def _layer(
        self, x: Name, layer: int, bias: AttentionBias, rotary: Rotary, axes: Axes, *, last: bool
    ) -> Name:
        """One encoder layer; the last one may compute the first token of each row only."""
        encoder = self.weights.encoder
        matrices = {m.role: m for m in encoder.matrices() if m.layer == layer}
        with self.g.scope("attention"):
            read = self._norm_before(x, layer, encoder.naming.attention_norm)
        asking, kept = read, x
        if last:
            kept = self.layout.first_tokens(x, axes, encoder.hidden)
            asking = kept if read == x else self.layout.first_tokens(read, axes, encoder.hidden)
            axes = replace(axes, first=True)
        with self.g.scope("attention"):
            y = self._attention(read, asking, kept, matrices, bias, rotary, axes)
            y = self._norm_after(y, layer, encoder.naming.attention_norm)
        with self.g.scope("feed_forward"):
            read = self._norm_before(y, layer, encoder.naming.output_norm)
            z = self._feed_forward(read, y, matrices)
            return self._norm_after(z, layer, encoder.naming.output_norm)

    def _attention(
        self,
        x: Name,
        asking: Name,
        residual: Name,
        matrices: Mapping[Role, Matrix],
        bias: AttentionBias,
        rotary: Rotary,
        axes: Axes,
    ) -> Name:
        """Attention of the ``asking`` tokens to all tokens ``x``, with the residual."""
        encoder, output = self.weights.encoder, matrices["attention_output"]
        heads = self._heads(output.layer)
        if not heads:
            return self.layout.add_bias(residual, self.weights.bias(output.name))
        q = self._linear(asking, matrices["query"])
        k, v = self._linear(x, matrices["key"]), self._linear(x, matrices["value"])
        own = encoder.attention[output.layer] if encoder.attention else None

        def rotate(heads4: Name, features_first: bool) -> Name:
            assert own is not None  # noqa: S101 - is not called where positions are embedded
            return rotary.rotated(heads4, own, features_first=features_first)

        with self.g.scope("product"):
            window = None if own is None else own.window
            split = None if window is None or axes.first else bias.chunks
            context = self.layout.attention(
                q,
                k,
                v,
                heads=len(heads),
                head_size=encoder.head_size,
                attention_biases=bias.of(heads, first=axes.first, window=window),
                axes=axes,
                scale=encoder.score_scale,
                rotate=None if own is None else rotate,
                position_scores=layer_scores(
                    self.g, self.arithmetic, self.weights, axes, layer=output.layer, heads=heads
                ),
                chunks=split,
            )
        return self._linear(context, output, residual=residual)

    def _feed_forward(self, x: Name, residual: Name, matrices: Mapping[Role, Matrix]) -> Name:
        """The products with the activation and the gate between them, and the residual."""
        output = matrices["output"]
        if not self.choices[matrices["intermediate"].name].lowering.outputs:
            return self.layout.add_bias(residual, self.weights.bias(output.name))
        inner = self._activate(self._linear(x, matrices["intermediate"]))
        if (gate := matrices.get("gate")) is not None:
            inner = self.g.op("Mul", inner, self._linear(x, gate))
        return self._linear(inner, output, residual=residual)

    def _pooled(self, x: Name, axes: Axes) -> Name:
        """The input of the head, ``[B, H]``: the first tokens, or the mean over all of them."""
        encoder, architecture = self.weights.encoder, self.weights.architecture
        if architecture.final_norm is not None:
            name = f"{encoder.base}.{architecture.final_norm}"
            x = self.layout.norm(x, *self.weights.norm(name))
        if encoder.pooling == "first":
            return self.layout.leave(x, encoder.hidden)
        g = self.g
        mask_BS = g.op("Cast", axes.mask, to=FLOAT)
        count_B1 = g.op("ReduceSum", mask_BS, g.ints(1), keepdims=1)
        share_BS = g.op("Div", mask_BS, g.op("Max", count_B1, g.scalar(1.0)))
        return self.layout.mean_pooled(x, share_BS, axes, encoder.hidden)

    def _linear(self, x: Name, matrix: Matrix, residual: Name | None = None) -> Name:
        """The product with a matrix in its lowering, with bias."""
        lowering, bias_N = self.choices[matrix.name].lowering, self.weights.bias(matrix.name)
        with self.g.scope(matrix.role):
            if matrix.name in self.smoothing:
                x = self.layout.scaled(x, np.reciprocal(self.smoothing[matrix.name]))
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

    def _norm_before(self, x: Name, layer: int, norm: str) -> Name:
        """``x`` after a norm, where norms come before what reads it, and this layer has it."""
        naming = self.weights.encoder.naming
        wanted = naming.norm_first and norm in naming.norms(layer)
        return self._norm(x, layer, norm) if wanted else x

    def _norm_after(self, x: Name, layer: int, norm: str) -> Name:
        """``x`` after a norm, where norms come after the sum with the residual."""
        return x if self.weights.encoder.naming.norm_first else self._norm(x, layer, norm)

    def _norm(self, x: Name, layer: int, norm: str) -> Name:
        """The layer norm that is called ``norm`` in this layer."""
        with self.g.scope("norm"):
            name = f"{self.weights.encoder.prefix}.{layer}.{norm}"
            return self.layout.norm(x, *self.weights.norm(name))

    def _head(self, first_BH: Name) -> Name:
        """The logits, from what was pooled of each row."""
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
                if layer.norm is not None:
                    norm = self.weights.norm(layer.norm)
                    first_BH = TokenMajor(g, Float32()).norm(first_BH, *norm)
        return first_BH
