"""How large the inputs of each matrix get, on texts of the task: the ranges of a static int8 graph.

A range is the largest over the batches of each batch's 99.99th percentile of magnitudes: the few
outliers that BERT's activations have are clipped, or all other values would share a few steps
(Bondarenko et al. 2021). The graph itself sorts out the few that the percentile is made of: the
inputs of all matrices, which ONNX Runtime would hold until the run ends, are gigabytes.
"""

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.autotune.select import Choice
from exporters.classifier_weights import ClassifierWeights
from exporters.onnx.arithmetic.arithmetic import Operand
from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.graph import Graph, Name, Target
from exporters.onnx.storage import write_graphs
from spd_deploy.domain.errors import BadData
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import OnnxSession

_PERCENTILE = 99.99
# One of so many magnitudes is above the percentile.
_ABOVE = 10_000
# A matrix that only ever reads zeros gets a step that is not zero.
_LEAST_RANGE = 1e-6


def ranges_on(
    weights: ClassifierWeights, choices: Mapping[str, Choice], batches: Sequence[Batch]
) -> dict[str, float]:
    """The largest magnitude to be held of each matrix's input, by the matrix's name.

    Raises:
        BadData: there are no batches.
    """
    if not batches:
        raise BadData("no texts to calibrate int8 on", fix="name data with texts: --data DIR")
    observer = _Observer()
    graph = ClassifierGraph(weights, choices, Target.PORTABLE, observer)
    with tempfile.TemporaryDirectory(prefix="spd-calibrate-") as scratch:
        file = Path(scratch) / "observed.onnx"
        write_graphs(Path(scratch), {file.name: graph})
        names = sorted(set(observer.seen.values()))
        _add_outputs(file, names)
        with OnnxSession(file, precision="fp32") as session:
            largest = _largest(session, names, batches)
    return {matrix: max(largest[name], _LEAST_RANGE) for matrix, name in observer.seen.items()}


class _Observer(Float32):
    """fp32, remembering what each matrix reads."""

    packs = False

    def __init__(self) -> None:
        self.seen: dict[str, Name] = {}

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """As it is, and noted."""
        self.seen[matrix] = x
        return Operand(values=x)


def _largest(
    session: OnnxSession, names: Sequence[Name], batches: Sequence[Batch]
) -> dict[Name, float]:
    """Over all batches, the percentile of each named value's magnitudes."""
    found = dict.fromkeys(names, 0.0)
    outputs = [_output(name, part) for part in ("largest", "count") for name in names]
    for batch in batches:
        values = session.values(outputs, batch)
        for name, most_L, count_1 in zip(names, values, values[len(names) :], strict=False):
            found[name] = max(found[name], percentile(most_L, int(count_1[0])))
    return found


def percentile(most_L: NDArray[np.float32], count: int) -> float:
    """The percentile of ``count`` magnitudes, of which the largest are given in falling order.

    As ``np.percentile`` has it: in between the two magnitudes next to its place.
    """
    place = _PERCENTILE / 100 * (count - 1)
    above = count - 1 - int(place)  # its lower neighbour's place, counted from the largest
    low, high = float(most_L[above]), float(most_L[max(above - 1, 0)])
    return low + (high - low) * (place - int(place))


def _output(name: Name, part: str) -> Name:
    """What a graph is to give of an inner value."""
    return f"{name}/observed/{part}"


def _add_outputs(file: Path, names: Sequence[Name]) -> None:
    """Let a graph give the largest magnitudes of inner values as well, and how many there are."""
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
        of = partial(_output, name)
        graph.node.extend(
            helper.make_node(op, inputs, outputs)
            for op, inputs, outputs in (
                ("Abs", [name], [of("size")]),
                ("Reshape", [of("size"), flat], [of("line")]),
                ("Shape", [of("line")], [of("count")]),
                ("Div", [of("count"), above], [of("share")]),
                ("Add", [of("share"), two], [of("wanted")]),
                ("Min", [of("wanted"), of("count")], [of("k")]),
                ("TopK", [of("line"), of("k")], [of("largest"), of("places")]),
            )
        )
        for part, kind in (("largest", TensorProto.FLOAT), ("count", TensorProto.INT64)):
            graph.output.append(helper.make_tensor_value_info(of(part), kind, [None]))
    file.write_bytes(model.SerializeToString())
