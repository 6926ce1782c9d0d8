"""Executes a deserialised engine: an execution context and a CUDA graph for each bucket.

Each bucket is an optimization profile. It has an execution context, buffers for inputs and logits
on the GPU and in pinned host memory, and a CUDA graph of the whole network at its one shape. All of
it is made when the engine is loaded. A run copies the inputs to the GPU, launches the graph and
copies the logits back, and allocates nothing.
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
# Alignment in bytes of a tensor on the GPU, for the widest vector loads.
_ALIGNMENT = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileBuffers:
    """A bucket's input and output buffers; addresses are integers.

    Attributes:
        inputs: views ``[B, S]`` into pinned memory in the engine's integer type, by name.
        logits_BC: a view into pinned memory.
        pinned_in: address of the inputs in pinned memory.
        pinned_out: address of the logits in pinned memory.
        device_in: address of the inputs on the GPU, laid out as in pinned memory.
        device_out: address of the logits on the GPU.
        starts: offset in bytes of each input.
        in_bytes: size of all inputs with the alignment between them.
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
class ProfileContext:
    """An execution context on one optimization profile, with its buffers and its CUDA graph."""

    bucket: Shape
    context: "trt.IExecutionContext"
    buffers: ProfileBuffers
    graph: int


class Executor:
    """An engine on the GPU; only one thread at a time may use it."""

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
        """Deserialise ``engine``, which must be verified already, and make a context per bucket.

        Raises:
            BadArtefact: TensorRT cannot load it, or it has other profiles than ``buckets``.
            Unavailable: the GPU's memory is full.
        """
        self._trt, self.device = tensorrt, device
        self.messages = Messages(tensorrt)
        self._held = contextlib.ExitStack()
        self.profiles: list[ProfileContext] = []
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
                self.profiles.append(self._profile(number, bucket, classes))
            on_failure.pop_all()

    def copy_inputs(self, profile: ProfileContext) -> None:
        """Enqueue the copy of the inputs to the GPU."""
        buffers = profile.buffers
        self.device.copy_in(buffers.device_in, buffers.pinned_in, buffers.in_bytes)

    def launch(self, profile: ProfileContext) -> None:
        """Enqueue the profile's CUDA graph."""
        self.device.launch(profile.graph)

    def copy_logits(self, profile: ProfileContext) -> None:
        """Enqueue the copy of the logits to pinned memory."""
        buffers = profile.buffers
        self.device.copy_out(buffers.pinned_out, buffers.device_out, buffers.logits_BC.nbytes)

    def wait(self) -> None:
        """Wait until all enqueued work is done."""
        self.device.wait()

    def close(self) -> None:
        """Free everything; TensorRT's objects go before the buffers that they point to."""
        self.device.enter()
        while self.profiles:  # no variable may keep the last context alive
            self.device.free_graph(self.profiles.pop().graph)
        for name in ("engine", "runtime"):
            with contextlib.suppress(AttributeError):
                delattr(self, name)
        self._held.close()

    def _profile(self, number: int, bucket: Shape, classes: int) -> ProfileContext:
        """A context on profile ``number`` with its buffers, run once and captured as a graph."""
        context = self.engine.create_execution_context(
            # Memory for the context's own profile, not for the largest of all.
            self._trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        )
        if context is None:
            raise self.messages.failure(_refused(self.messages.why()))
        try:
            context.set_optimization_profile_async(number, self.device.stream_handle)
        except (RuntimeError, TypeError) as err:
            raise self.messages.failure(
                _refused(f"profile {number}: {self.messages.why()}")
            ) from err
        buffers = self._buffers(bucket, classes)
        for name, start in buffers.starts.items():
            if not context.set_input_shape(name, (bucket.batch, bucket.seq)):
                raise _refused(f"{name} of {bucket}: {self.messages.why()}")
            context.set_tensor_address(name, buffers.device_in + start)
        context.set_tensor_address(OUTPUT, buffers.device_out)
        dims: Any = context.get_tensor_shape(OUTPUT)
        if tuple(dims) != (bucket.batch, classes):
            raise _refused(f"logits of shape {tuple(dims)} for {bucket}")
        self.device.copy_in(buffers.device_in, buffers.pinned_in, buffers.in_bytes)
        return ProfileContext(
            bucket=bucket, context=context, buffers=buffers, graph=self._graph(context)
        )

    def _buffers(self, bucket: Shape, classes: int) -> ProfileBuffers:
        """Buffers for a bucket, filled with valid inputs: one real token a row."""
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
        return ProfileBuffers(
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
        """Capture the network as a CUDA graph, after a run that does all lazy initialisation."""
        self._enqueue(context)
        self.device.wait()
        with self.device.capture() as made:
            self._enqueue(context)
        return made[0]

    def _enqueue(self, context: "trt.IExecutionContext") -> None:
        """Enqueue the network without a graph."""
        if not context.execute_async_v3(self.device.stream_handle):
            raise self.messages.failure(
                EngineFailed("TensorRT failed to run the engine", got=self.messages.why(),
                             fix="build it again: spd build ARTEFACT")
            )  # fmt: skip

    def _kind(self, name: str) -> np.dtype[Any]:
        """The NumPy dtype of a tensor of the engine."""
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
        """Allocate GPU memory that :meth:`close` frees."""
        address = self.device.allocate(size)
        self._held.callback(self.device.free, address)
        return address

    def _pinned(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        """Allocate pinned memory that :meth:`close` frees."""
        address, view = self.device.allocate_pinned(size)
        self._held.callback(self.device.free_pinned, address)
        return address, view


def _places(
    tensors: Mapping[str, tuple[tuple[int, int], np.dtype[Any]]],
) -> tuple[dict[str, tuple[int, int]], int]:
    """Start and end offset of each tensor in one aligned buffer, and the buffer's size."""
    places, end = {}, 0
    for name, (shape, kind) in tensors.items():
        start = end + -end % _ALIGNMENT
        end = start + shape[0] * shape[1] * kind.itemsize
        places[name] = (start, end)
    return places, end


def _refused(why: str) -> BadArtefact:
    """The error for an engine that TensorRT rejects or whose tensors are not as expected."""
    return BadArtefact(
        "TensorRT cannot load the engine", got=why, fix="build it again: spd build ARTEFACT"
    )
