"""A builder of ONNX graphs: each operator returns the name of its value; constants are shared."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

IR_VERSION = 8

Name = str


class Target(StrEnum):
    """The runtime that a graph is made for.

    ``ONNXRUNTIME`` graphs have its own operators. ``PORTABLE`` and ``TENSORRT`` graphs have only
    standard operators, in the forms that CPUs and TensorRT are fastest with.
    """

    ONNXRUNTIME = "onnxruntime"
    PORTABLE = "portable"
    TENSORRT = "tensorrt"

    @property
    def opset(self) -> int:
        """The opset: 20 has a Gelu operator; 17 is the newest that all converters read."""
        return 20 if self is Target.ONNXRUNTIME else 17


MICROSOFT = "com.microsoft"


class Graph:
    """Collects nodes and constants. Values are identified by name.

    Nodes are named after the scope they are made in, so that profiles are readable.
    """

    def __init__(self, target: Target = Target.ONNXRUNTIME) -> None:
        self.target = target
        self.constants: dict[Name, NDArray[Any]] = {}
        self._nodes: list[Any] = []
        self._shared: dict[tuple[str, tuple[int, ...], bytes], Name] = {}
        self._nodes_by_call: dict[tuple[Any, ...], tuple[Name, ...]] = {}
        self._used: dict[str, int] = {}
        self._scope: list[str] = []

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of nodes made in this block with ``name``."""
        self._scope.append(name)
        yield
        self._scope.pop()

    @contextlib.contextmanager
    def outermost_scope(self, name: str) -> Iterator[None]:
        """Name the nodes made in this block after ``name`` alone: what several layers share."""
        around, self._scope = self._scope, [name]
        yield
        self._scope = around

    def weight(self, name: Name, value: NDArray[Any]) -> Name:
        """A constant with the given name, by which it is read back from the file."""
        assert name not in self.constants, name  # noqa: S101 - each weight is stored once
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def constant(self, value: NDArray[Any]) -> Name:
        """A constant with a name of the graph's choice; equal constants are stored once."""
        array = np.asarray(value, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self._fresh("constant")
            self.constants[self._shared[key]] = array
        return self._shared[key]

    def ints(self, *values: int) -> Name:
        """A constant vector of int64, such as a shape."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> Name:
        """A constant float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def op(self, kind: str, *inputs: Name, domain: str = "", **attributes: Any) -> Name:
        """One node with one output."""
        return self._node(kind, inputs, 1, domain, attributes)[0]

    def once(self, kind: str, *inputs: Name, **attributes: Any) -> Name:
        """One node with one output; a call with the same arguments again returns the same value."""
        return self.once_many(kind, *inputs, outputs=1, **attributes)[0]

    def once_many(
        self, kind: str, *inputs: Name, outputs: int, **attributes: Any
    ) -> tuple[Name, ...]:
        """One node with several outputs; a second call with the same arguments returns the same."""
        key = (kind, inputs, outputs, *sorted(attributes.items()))
        if key not in self._nodes_by_call:
            self._nodes_by_call[key] = self._node(kind, inputs, outputs, "", attributes)
        return self._nodes_by_call[key]

    def shape(self, *parts: int | Name) -> Name:
        """A shape of integers and one-element vectors; -1 is the rest, 0 keeps the old size."""
        if all(isinstance(part, int) for part in parts):
            return self.ints(*(int(part) for part in parts))
        named = [self.ints(part) if isinstance(part, int) else part for part in parts]
        return self.op("Concat", *named, axis=0)

    def reshape(self, value: Name, *parts: int | Name) -> Name:
        """``value`` in the shape of ``parts``, as :meth:`shape` reads them."""
        return self.op("Reshape", value, self.shape(*parts))

    def transpose(self, value: Name, *axes: int) -> Name:
        """``value`` with its axes in the order ``axes``."""
        return self.op("Transpose", value, perm=list(axes))

    def output(self, value: Name, name: Name) -> None:
        """Make ``value`` an output of the graph, under the name ``name``."""
        from onnx import helper

        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))

    def model(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        producer: str,
        stored: Callable[[Name, NDArray[Any]], Any] | None = None,
    ) -> Any:
        """The finished ``ModelProto``; ``stored`` makes the tensors of constants, else inline."""
        from onnx import helper, numpy_helper

        make = stored or (lambda name, value: numpy_helper.from_array(value, name))
        constants = [make(name, value) for name, value in self.constants.items()]
        graph = helper.make_graph(self._nodes, "classifier", inputs, outputs, constants)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(d, v) for d, v in self._opsets().items()],
            ir_version=IR_VERSION + (self.target is Target.ONNXRUNTIME),
            producer_name=producer,
        )

    def _node(
        self,
        kind: str,
        inputs: Sequence[Name],
        outputs: int,
        domain: str,
        attributes: Mapping[str, Any],
    ) -> tuple[Name, ...]:
        """Add a node, named after scope and kind; its first output has the node's name."""
        from onnx import helper

        label = "/".join(self._scope)
        name = self._fresh(f"{label}/{kind}" if label else kind)
        names = (name, *(f"{name}:{i}" for i in range(1, outputs)))
        self._nodes.append(
            helper.make_node(
                kind, list(inputs), list(names), name=name, domain=domain, **attributes
            )
        )
        return names

    def _opsets(self) -> Mapping[str, int]:
        """The versions of the operator sets that the nodes use."""
        used = {node.domain for node in self._nodes}
        return {"": self.target.opset} | ({MICROSOFT: 1} if MICROSOFT in used else {})

    def _fresh(self, name: str) -> Name:
        """``name``, followed by a number where the name is taken."""
        count = self._used.get(name, 0)
        self._used[name] = count + 1
        return f"{name}_{count}" if count else name
