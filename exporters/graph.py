"""A thin builder over ``onnx.helper``: operators in, names out, constants stored once."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Gelu became an operator of its own in opset 20; ONNX Runtime has it since 1.17.
OPSET = 20
IR_VERSION = 9

Name = str


class Graph:
    """Collects nodes and constants; values are known by name.

    Nodes are named after the scope they are made in, so that a profile can be read.
    """

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[Name, NDArray[Any]] = {}
        self._shared: dict[tuple[str, tuple[int, ...], bytes], Name] = {}
        self._used: dict[str, int] = {}
        self._scope: list[str] = []

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Name what is made inside after ``name``."""
        self._scope.append(name)
        yield
        self._scope.pop()

    def weight(self, name: Name, value: NDArray[Any]) -> Name:
        """A constant under a name of its own, to be found again by it."""
        assert name not in self._constants, name  # noqa: S101 - each weight is stored once
        self._constants[name] = np.ascontiguousarray(value)
        return name

    def constant(self, value: NDArray[Any]) -> Name:
        """A constant; equal ones are one."""
        array = np.asarray(value, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self._fresh("constant")
            self._constants[self._shared[key]] = array
        return self._shared[key]

    def ints(self, *values: int) -> Name:
        """A constant vector of int64, such as a shape."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> Name:
        """A float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def op(self, kind: str, *inputs: Name, **attributes: Any) -> Name:
        """One node with one output."""
        from onnx import helper

        label = "/".join(self._scope)
        name = self._fresh(f"{label}/{kind}" if label else kind)
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def shape(self, *parts: int | Name) -> Name:
        """A shape from whole numbers and one-element vectors; -1 is what remains."""
        if all(isinstance(part, int) for part in parts):
            return self.ints(*(int(part) for part in parts))
        named = [self.ints(part) if isinstance(part, int) else part for part in parts]
        return self.op("Concat", *named, axis=0)

    def reshape(self, value: Name, *parts: int | Name) -> Name:
        """``value`` in another shape."""
        return self.op("Reshape", value, self.shape(*parts))

    def transpose(self, value: Name, *axes: int) -> Name:
        """``value`` with its axes in another order."""
        return self.op("Transpose", value, perm=list(axes))

    def output(self, value: Name, name: Name) -> None:
        """Call ``value`` ``name`` in the finished graph."""
        from onnx import helper

        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any], *, producer: str) -> Any:
        """The finished ``ModelProto``, checked."""
        from onnx import checker, helper, numpy_helper

        constants = [numpy_helper.from_array(v, name) for name, v in self._constants.items()]
        graph = helper.make_graph(self._nodes, "classifier", inputs, outputs, constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name=producer,
        )
        checker.check_model(model)
        return model

    def _fresh(self, name: str) -> Name:
        """``name``, with a number where it is taken."""
        count = self._used.get(name, 0)
        self._used[name] = count + 1
        return f"{name}_{count}" if count else name
