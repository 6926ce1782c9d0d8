"""A deserialised engine with a lane for each of its buckets, ready to be launched.

A lane has a context on its profile, memory on the GPU and pinned memory on the host for inputs and
logits, and a CUDA graph of the whole network at its one shape. All is made when the engine is
loaded; a launch is a copy in, a graph, and a copy out, and allocates nothing.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import BadArtefact, EngineFailed
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.text import INPUTS, MASK
from spd_deploy.sessions.cuda.device import CudaDevice
from spd_deploy.sessions.tensorrt.build_plan import Options
from spd_deploy.sessions.tensorrt.messages import Messages
from spd_deploy.sessions.tensorrt.versions import host_code_allowed

if TYPE_CHECKING:
    import tensorrt as trt

OUTPUT = "logits"
# Where a tensor may begin on the GPU, for the widest vector loads.
_ALIGNMENT = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceMemory:
    """What a bucket's inputs and logits lie in; addresses are whole numbers.

    Attributes:
        inputs: views into pinned memory, ``[B, S]`` of the engine's own integers, by name.
        logits_BC: a view into pinned memory.
        device_in: where the inputs lie on the GPU, one after the other as in pinned memory.
        starts: where in that each begins.
        in_bytes: how many bytes they take with the room between.
    """

    inputs: Mapping[str, NDArray[Any]]
    logits_BC: NDArray[np.float32]
    pinned_in: int
    pinned_out: int
    device_in: int
    device_out: int
    starts: Mapping[str, int]
    in_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """What one bucket runs with."""

    bucket: Shape
    context: "trt.IExecutionContext"
    memory: DeviceMemory
    graph: int


class Executor:
    """An engine on the GPU. One thread at a time may use it."""

    def __init__(
        self,
        tensorrt: ModuleType,
        device: CudaDevice,
        engine: bytes,
        buckets: Sequence[Shape],
        options: Options,
        *,
        classes: int,
    ) -> None:
        """Deserialise ``engine``, whose origin must have been verified, and make its lanes.

        Raises:
            BadArtefact: TensorRT does not take it, or it has other profiles than ``buckets``.
            Unavailable: the GPU's memory is full.
        """
        self._trt, self.device = tensorrt, device
        self.messages = Messages(tensorrt)
        self._held = contextlib.ExitStack()
        self.lanes: list[Lane] = []
        device.enter()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.close)
            self.runtime = tensorrt.Runtime(self.messages.logger)
            host_code_allowed(self.runtime, options)
            self.engine: trt.ICudaEngine = self.runtime.deserialize_cuda_engine(engine)
            if self.engine is None:
                raise self.messages.failure(_refused(self.messages.why()))
            if self.engine.num_optimization_profiles != len(buckets):
                raise _refused(
                    f"{self.engine.num_optimization_profiles} profiles, {len(buckets)} expected"
                )
            for number, bucket in enumerate(buckets):
                self.lanes.append(self._lane(number, bucket, classes))
            on_failure.pop_all()

    def put(self, lane: Lane) -> None:
        """Queue the copy of what stands in the lane's inputs."""
        memory = lane.memory
        self.device.copy_in(memory.device_in, memory.pinned_in, memory.in_bytes)

    def launch(self, lane: Lane) -> None:
        """Queue the network."""
        self.device.launch(lane.graph)

    def get(self, lane: Lane) -> None:
        """Queue the copy of the logits to where the lane shows them."""
        memory = lane.memory
        self.device.copy_out(memory.pinned_out, memory.device_out, memory.logits_BC.nbytes)

    def wait(self) -> None:
        """Until all that was queued is done."""
        self.device.wait()

    def close(self) -> None:
        """Free all of it; TensorRT's objects go before the memory that they point to."""
        self.device.enter()
        while self.lanes:  # no name may keep the last context
            self.device.free_graph(self.lanes.pop().graph)
        for name in ("engine", "runtime"):
            with contextlib.suppress(AttributeError):
                delattr(self, name)
        self._held.close()

    def _lane(self, number: int, bucket: Shape, classes: int) -> Lane:
        """A context on a profile with its memory, run once and recorded as a graph."""
        context = self.engine.create_execution_context(
            # Memory for the context's own profile, not for the largest of all.
            self._trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        )
        if context is None:
            raise self.messages.failure(_refused(self.messages.why()))
        try:
            context.set_optimization_profile_async(number, self.device.stream)
        except (RuntimeError, TypeError) as err:
            raise self.messages.failure(
                _refused(f"profile {number}: {self.messages.why()}")
            ) from err
        memory = self._memory(bucket, classes)
        for name, start in memory.starts.items():
            if not context.set_input_shape(name, (bucket.batch, bucket.seq)):
                raise _refused(f"{name} of {bucket}: {self.messages.why()}")
            context.set_tensor_address(name, memory.device_in + start)
        context.set_tensor_address(OUTPUT, memory.device_out)
        dims: Any = context.get_tensor_shape(OUTPUT)
        if tuple(dims) != (bucket.batch, classes):
            raise _refused(f"logits of shape {tuple(dims)} for {bucket}")
        self.device.copy_in(memory.device_in, memory.pinned_in, memory.in_bytes)
        return Lane(bucket=bucket, context=context, memory=memory, graph=self._graph(context))

    def _memory(self, bucket: Shape, classes: int) -> DeviceMemory:
        """Memory for a bucket, with inputs in it that any model can run: one token a row."""
        kinds = {name: self._kind(name) for name in (*INPUTS, OUTPUT)}
        shape = (bucket.batch, bucket.seq)
        places, in_bytes = _places({name: (shape, kinds[name]) for name in INPUTS})
        out_bytes = bucket.batch * classes * kinds[OUTPUT].itemsize
        pinned_in, bytes_in = self._pinned(in_bytes)
        pinned_out, bytes_out = self._pinned(out_bytes)
        bytes_in[:] = 0
        inputs = {
            name: bytes_in[start:end].view(kinds[name]).reshape(shape)
            for name, (start, end) in places.items()
        }
        inputs[MASK][:, 0] = 1
        return DeviceMemory(
            inputs=inputs,
            logits_BC=bytes_out.view(np.float32).reshape(bucket.batch, classes),
            pinned_in=pinned_in,
            pinned_out=pinned_out,
            device_in=self._on_gpu(in_bytes),
            device_out=self._on_gpu(out_bytes),
            starts={name: start for name, (start, _) in places.items()},
            in_bytes=in_bytes,
        )

    def _graph(self, context: "trt.IExecutionContext") -> int:
        """The network as a graph: run once first, since what is lazy may not be recorded."""
        self._enqueue(context)
        self.device.wait()
        with self.device.capture() as made:
            self._enqueue(context)
        return made[0]

    def _enqueue(self, context: "trt.IExecutionContext") -> None:
        """Queue the network without a graph."""
        if not context.execute_async_v3(self.device.stream):
            raise self.messages.failure(
                EngineFailed("TensorRT failed to run the engine", got=self.messages.why(),
                             fix="build it again: spd build ARTEFACT")
            )  # fmt: skip

    def _kind(self, name: str) -> np.dtype[Any]:
        """The numbers of a tensor, as NumPy has them."""
        kinds: dict[Any, np.dtype[Any]] = {
            self._trt.int32: np.dtype(np.int32),
            self._trt.int64: np.dtype(np.int64),
            self._trt.float32: np.dtype(np.float32),
        }
        found = self.engine.get_tensor_dtype(name)
        if found not in kinds or (kinds[found].kind == "f") != (name == OUTPUT):
            raise _refused(f"{name} of type {found}")
        return kinds[found]

    def _on_gpu(self, size: int) -> int:
        """Memory on the GPU until this is closed."""
        address = self.device.allocate(size)
        self._held.callback(self.device.free, address)
        return address

    def _pinned(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        """Pinned memory until this is closed."""
        address, view = self.device.allocate_pinned(size)
        self._held.callback(self.device.free_pinned, address)
        return address, view


def _places(
    tensors: Mapping[str, tuple[tuple[int, int], np.dtype[Any]]],
) -> tuple[dict[str, tuple[int, int]], int]:
    """Where each tensor begins and ends in one piece of memory, and how large that is."""
    places, end = {}, 0
    for name, (shape, kind) in tensors.items():
        start = end + -end % _ALIGNMENT
        end = start + shape[0] * shape[1] * kind.itemsize
        places[name] = (start, end)
    return places, end


def _refused(why: str) -> BadArtefact:
    """The error for an engine that is not what it should be."""
    return BadArtefact(
        "TensorRT does not take the engine", got=why, fix="build it again: spd build ARTEFACT"
    )
