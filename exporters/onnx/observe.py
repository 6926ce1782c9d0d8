"""The inputs of an encoder's matrices on texts: what calibration reads, without keeping them.

ONNX Runtime would hold the whole inputs of all matrices, gigabytes, until a run ends. So the graph
itself reduces each input to the little that is asked for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.lowering.lowering import Lowering
from exporters.onnx.arithmetic.arithmetic import Array, Operand
from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.graph import Graph, Name, Target
from exporters.onnx.storage import write_graphs
from spd_deploy.domain.errors import BadData
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import OnnxSession

# Adds nodes and outputs to an ONNX graph that reduce the named values.
Reduce = Callable[[Any, Sequence[Name]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservedInputs:
    """A session of a graph with outputs that are about the inputs of its matrices.

    Attributes:
        inputs: the name of each matrix's input, by the matrix's name. Matrices may share one.
        values: gives outputs of the graph for a batch.
    """

    inputs: Mapping[str, Name]
    values: Callable[[Sequence[Name], Batch], Sequence[Any]]

    def reduced(
        self, output: Callable[[Name], Name], batches: Sequence[Batch]
    ) -> Iterator[tuple[list[str], list[Any]]]:
        """For each input, the matrices that read it, and what it was reduced to in each batch.

        Args:
            output: the name of the output that an input was reduced to.
            batches: what the graph is run on.
        """
        names = sorted(set(self.inputs.values()))
        if not names:  # of an encoder whose layers are all empty
            return
        outputs = [output(name) for name in names]
        found = [self.values(outputs, batch) for batch in batches]
        for name, values in zip(names, zip(*found, strict=True), strict=True):
            yield [matrix for matrix, read in self.inputs.items() if read == name], list(values)


def kept_columns(lowering: Lowering, weight_NK: Array) -> Array:
    """The columns of a weight that remain in its lowering, which read its input."""
    return weight_NK[:, lowering.columns]


@contextmanager
def observed_inputs(
    weights: ClassifierWeights,
    choices: Mapping[str, LoweringChoice],
    batches: Sequence[Batch],
    reduce: Reduce,
    smoothing: Mapping[str, Array] | None = None,
) -> Iterator[ObservedInputs]:
    """Open the fp32 graph with the outputs that ``reduce`` adds.

    Raises:
        BadData: there are no batches.
    """
    import onnx

    if not batches:
        raise BadData("no texts to calibrate int8 on", fix="name data that has texts: --data")
    observer = _Observer()
    graph = ClassifierGraph(weights, choices, Target.PORTABLE, observer, smoothing=smoothing)
    with scratch_folder("calibrate") as scratch:
        file = scratch / "observed.onnx"
        write_graphs(scratch, {file.name: graph})
        model = onnx.load(file, load_external_data=False)
        reduce(model.graph, sorted(set(observer.inputs.values())))
        file.write_bytes(model.SerializeToString())
        with OnnxSession(file, precision="fp32") as session:
            yield ObservedInputs(inputs=observer.inputs, values=session.values)


class _Observer(Float32):
    """fp32 arithmetic that notes the name of each matrix's input."""

    packs = False

    def __init__(self) -> None:
        self.inputs: dict[str, Name] = {}

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """``x`` itself, noted as the input of ``matrix``."""
        self.inputs[matrix] = x
        return Operand(values=x)
