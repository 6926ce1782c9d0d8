"""Calibration of static int8 graphs: the range of each matrix's input, on texts of the task.

The range is the 99.99th percentile of magnitudes in a batch, and of all batches the largest one.
The few outliers of BERT's activations are clipped; else all other values would share a few int8
steps (Bondarenko et al. 2021). The graph itself selects the magnitudes that the percentile is made
of, since ONNX Runtime would hold the whole inputs of all matrices, gigabytes, until the run ends.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.onnx.arithmetic.arithmetic import Operand
from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.graph import Graph, Name, Target
from exporters.onnx.storage import write_graphs
from spd_deploy.domain.errors import BadData
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import OnnxSession

_PERCENTILE = 99.99
# One of this many magnitudes is above the percentile.
_ABOVE = 10_000
# The range of a matrix that reads only zeros, whose int8 step must not be zero.
_MIN_RANGE = 1e-6


def calibrate_ranges(
    weights: ClassifierWeights, choices: Mapping[str, LoweringChoice], batches: Sequence[Batch]
) -> dict[str, float]:
    """The range of each matrix's input, by the matrix's name.

    Raises:
        BadData: there are no batches.
    """
    if not batches:
        raise BadData("no texts to calibrate int8 on", fix="name data that has texts: --data")
    observer = _Observer()
    graph = ClassifierGraph(weights, choices, Target.PORTABLE, observer)
    with scratch_folder("calibrate") as scratch:
        file = scratch / "observed.onnx"
        write_graphs(scratch, {file.name: graph})
        names = sorted(set(observer.inputs.values()))
        _add_outputs(file, names)
        with OnnxSession(file, precision="fp32") as session:
            largest = _largest(session, names, batches)
    return {matrix: max(largest[name], _MIN_RANGE) for matrix, name in observer.inputs.items()}


class _Observer(Float32):
    """fp32 arithmetic that notes the name of each matrix's input."""

    packs = False

    def __init__(self) -> None:
        self.inputs: dict[str, Name] = {}

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """``x`` itself, noted as the input of ``matrix``."""
        self.inputs[matrix] = x
        return Operand(values=x)


def _largest(
    session: OnnxSession, names: Sequence[Name], batches: Sequence[Batch]
) -> dict[Name, float]:
    """The range of each named value: the largest percentile over all batches."""
    ranges = dict.fromkeys(names, 0.0)
    outputs = [_output(name, part) for part in ("largest", "count") for name in names]
    for batch in batches:
        values = session.values(outputs, batch)
        for name, largest_L, count_1 in zip(names, values, values[len(names) :], strict=False):
            ranges[name] = max(ranges[name], percentile(largest_L, int(count_1[0])))
    return ranges


def percentile(largest_L: NDArray[np.float32], count: int) -> float:
    """The percentile of ``count`` magnitudes, of which the largest are given in falling order.

    It is interpolated between two magnitudes, as ``np.percentile`` does.
    """
    position = _PERCENTILE / 100 * (count - 1)
    below = count - 1 - int(position)  # the lower of the two, counted from the largest
    low, high = float(largest_L[below]), float(largest_L[max(below - 1, 0)])
    return low + (high - low) * (position - int(position))


def _output(name: Name, part: str) -> Name:
    """The name of an output that is about an inner value."""
    return f"{name}/observed/{part}"


def _add_outputs(file: Path, names: Sequence[Name]) -> None:
    """Add outputs to a graph: the largest magnitudes of inner values, and the size of each."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(file, load_external_data=False)
    graph = model.graph
    constants = {"flat": [-1], "above": [_ABOVE], "two": [2]}
    graph.initializer.extend(
        helper.make_tensor(_output("", key), TensorProto.INT64, [1], value)
        for key, value in constants.items()
    )
    flat, above, two = (_output("", key) for key in constants)
    for name in names:
        output = partial(_output, name)
        graph.node.extend(
            helper.make_node(op, inputs, outputs)
            for op, inputs, outputs in (
                ("Abs", [name], [output("size")]),
                ("Reshape", [output("size"), flat], [output("line")]),
                ("Shape", [output("line")], [output("count")]),
                ("Div", [output("count"), above], [output("share")]),
                ("Add", [output("share"), two], [output("wanted")]),
                ("Min", [output("wanted"), output("count")], [output("k")]),
                ("TopK", [output("line"), output("k")], [output("largest"), output("places")]),
            )
        )
        for part, kind in (("largest", TensorProto.FLOAT), ("count", TensorProto.INT64)):
            graph.output.append(helper.make_tensor_value_info(output(part), kind, [None]))
    file.write_bytes(model.SerializeToString())
