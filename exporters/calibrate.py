"""How large the inputs of each matrix get, on texts of the task: the ranges of a static int8 graph.

A range is the largest over the batches of each batch's 99.99th percentile of magnitudes: the few
outliers that BERT's activations have are clipped, or all other values would share a few steps
(Bondarenko et al. 2021).
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.arithmetic.arithmetic import Operand
from exporters.arithmetic.float32 import Float32
from exporters.classifier import ClassifierGraph
from exporters.graph import Graph, Name, Target
from exporters.lowering.choose import Choice
from exporters.storage import write_graphs
from exporters.weights import ClassifierWeights
from spd_deploy.domain.errors import BadData
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import OnnxSession

_PERCENTILE = 99.99
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
        raise BadData("no texts to calibrate int8 on", fix="name data with texts: --data-dir DIR")
    observer = _Observer()
    graph = ClassifierGraph(weights, choices, Target.PORTABLE, observer)
    with tempfile.TemporaryDirectory(prefix="spd-calibrate-") as scratch:
        file = Path(scratch) / "observed.onnx"
        write_graphs(Path(scratch), {file.name: graph})
        _add_outputs(file, set(observer.seen.values()))
        with OnnxSession(file, precision="fp32") as session:
            largest = _largest(session, sorted(set(observer.seen.values())), batches)
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
    for batch in batches:
        for name, value in zip(names, session.values(names, batch), strict=True):
            found[name] = max(found[name], _percentile(value))
    return found


def _percentile(value: NDArray[Any]) -> float:
    """Of the magnitudes."""
    return float(np.percentile(np.abs(value), _PERCENTILE))


def _add_outputs(file: Path, names: set[Name]) -> None:
    """Let a graph give inner values as well."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(file, load_external_data=False)
    for name in sorted(names):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    file.write_bytes(model.SerializeToString())
