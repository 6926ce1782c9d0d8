"""A thin builder over ``onnx.helper``: operators in, names out, constants stored once."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

IR_VERSION = 8

Name = str


class Target(StrEnum):
    """What a graph is made for: ONNX Runtime's own operators, or the standard's alone.

    Of the standard's there are two: as CPUs like them, and as TensorRT does.
    """

    ONNXRUNTIME = "onnxruntime"
    PORTABLE = "portable"
    TENSORRT = "tensorrt"

    @property
    def opset(self) -> int:
        """20 has Gelu as an operator of its own; 17 is the last that all converters read."""
        return 20 if self is Target.ONNXRUNTIME else 17


MICROSOFT = "com.microsoft"


class Graph:
    """Collects nodes and constants; values are known by name.

    Nodes are named after the scope they are made in, so that a profile can be read.
    """

    def __init__(self, target: Target = Target.ONNXRUNTIME) -> None:
        self.target = target
        self.constants: dict[Name, NDArray[Any]] = {}
        self._nodes: list[Any] = []
        self._shared: dict[tuple[str, tuple[int, ...], bytes], Name] = {}
        self._made: dict[tuple[Any, ...], tuple[Name, ...]] = {}
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
        assert name not in self.constants, name  # noqa: S101 - each weight is stored once
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def constant(self, value: NDArray[Any]) -> Name:
        """A constant; equal ones are one."""
        array = np.asarray(value, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self._fresh("constant")
            self.constants[self._shared[key]] = array
        return self._shared[key]

    def ints(self, *values: int) -> Name:
        """A constant vector of int64, such as a shape."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> Name:
        """A float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def op(self, kind: str, *inputs: Name, domain: str = "", **attributes: Any) -> Name:
        """One node with one output."""
        return self._node(kind, inputs, 1, domain, attributes)[0]

    def once(self, kind: str, *inputs: Name, **attributes: Any) -> Name:
        """One node with one output; the same call again gives the same one."""
        return self.once_many(kind, *inputs, outputs=1, **attributes)[0]

    def once_many(
        self, kind: str, *inputs: Name, outputs: int, **attributes: Any
    ) -> tuple[Name, ...]:
        """One node with several outputs; the same call again gives the same ones."""
        key = (kind, inputs, outputs, *sorted(attributes.items()))
        if key not in self._made:
            self._made[key] = self._node(kind, inputs, outputs, "", attributes)
        return self._made[key]

    def shape(self, *parts: int | Name) -> Name:
        """A shape from whole numbers and one-element vectors; -1 is what remains, 0 as it was."""
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

    def model(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        producer: str,
        stored: Callable[[Name, NDArray[Any]], Any] | None = None,
    ) -> Any:
        """The finished ``ModelProto``; ``stored`` makes the tensor of a constant, if not inline."""
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
        """A node named after its scope and kind; its first output has its name."""
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
        """The operator sets that are used."""
        used = {node.domain for node in self._nodes}
        return {"": self.target.opset} | ({MICROSOFT: 1} if MICROSOFT in used else {})

    def _fresh(self, name: str) -> Name:
        """``name``, with a number where it is taken."""
        count = self._used.get(name, 0)
        self._used[name] = count + 1
        return f"{name}_{count}" if count else name
