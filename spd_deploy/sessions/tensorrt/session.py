"""Runs the TensorRT engine of a trt artefact."""

import threading
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import CONFIG_FILE
from spd_deploy.domain.errors import EngineFailed, Unavailable
from spd_deploy.domain.text import MASK, Batch
from spd_deploy.sessions.cuda.device import CudaDevice
from spd_deploy.sessions.id_bounds import IdBounds
from spd_deploy.sessions.protocol import Closing, Description
from spd_deploy.sessions.tensorrt.compatibility import (
    engine_host,
    load_tensorrt,
    refuse_incompatible,
    verified_engine,
)
from spd_deploy.sessions.tensorrt.engine_record import EngineRecord, read_record
from spd_deploy.sessions.tensorrt.executor import Executor, ProfileContext
from spd_deploy.sessions.tensorrt.shape_buckets import SubBatch, sub_batches_of


class TensorRtSession(Closing):
    """A deserialised engine with its buckets.

    A batch is padded to the smallest bucket that holds it. A batch of more rows than any bucket is
    split into sub-batches (``sessions.tensorrt.shape_buckets``). Several threads may run it; a lock
    makes them take turns.
    """

    _closed: bool

    def __init__(self, artefact: Artefact) -> None:
        """Check that the engine is this artefact's and this machine's, and only then load it.

        Raises:
            Unavailable: not built yet; no driver, GPU or TensorRT; or others than it was built for.
            BadArtefact: changed, or built from another artefact.
        """
        record = read_record(artefact.folder)
        trt = load_tensorrt()
        self._device = CudaDevice()
        try:
            refuse_incompatible(record, engine_host(self._device, trt))
            engine = verified_engine(artefact, record)
            self._executor = Executor(
                trt,
                self._device,
                engine,
                record.buckets,
                record.options,
                classes=artefact.task.outputs,
            )
        except BaseException:
            self._device.close()
            raise
        self._serve(trt, artefact, record.precision, record)

    @classmethod
    def of(
        cls, executor: Executor, trt: ModuleType, artefact: Artefact, *, precision: str
    ) -> "TensorRtSession":
        """A session on an engine that was just built; the builder closes the executor."""
        session = cls.__new__(cls)
        session._device, session._executor = executor.device, executor
        session._serve(trt, artefact, precision)
        return session

    @property
    def description(self) -> Description:
        """How it runs; sparse kernels are those of the last batch, or of all buckets before it."""
        return Description(
            runtime="tensorrt",
            version=self._version,
            device="cuda",
            precision=self._precision,
            threads=None,
            sparse_kernels=None
            if self._record is None
            else self._record.sparse_kernels(self._last or range(len(self._buckets))),
        )

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]``.

        Raises:
            EngineFailed: no bucket holds so many tokens, an id is out of range, or the
                GPU failed.
        """
        rows, tokens = batch.ids_BS.shape
        self._id_bounds.refuse_out_of_range(batch)
        sub_batches = sub_batches_of(rows, tokens, self._buckets)
        logits_BC = np.empty((rows, self._classes), np.float32)
        with self._lock:
            if self._closed:
                raise EngineFailed("the session is closed", fix="open it again")
            self._device.enter()
            for sub_batch in sub_batches:
                self._run(batch, sub_batch, logits_BC)
            self._last = frozenset(sub_batch.bucket for sub_batch in sub_batches)
        return logits_BC

    def prepare(self, batch: Batch, *, graph: bool) -> "TensorRtRun":
        """The batch in its bucket's buffers on the GPU; the next batch of the bucket replaces it.

        Raises:
            Unavailable: ``graph`` is false, since each bucket is a CUDA graph; or the batch
                needs several sub-batches.
            EngineFailed: as :meth:`run`.
        """
        rows, tokens = batch.ids_BS.shape
        sub_batches = sub_batches_of(rows, tokens, self._buckets)
        if not graph or len(sub_batches) > 1:
            raise Unavailable(
                "the engine runs a batch in one bucket, by its CUDA graph",
                got=f"{rows}x{tokens} in {len(sub_batches)} sub-batches"
                if graph
                else "a run without a graph",
                fix="build it for this shape: spd export --format trt --batch .. --seq ..",
            )
        self.run(batch)  # checks the batch, and leaves it in the buffers
        return TensorRtRun(self._executor, self._executor.profiles[sub_batches[0].bucket], rows)

    def close(self) -> None:
        """Free the GPU's memory."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._executor.close()
                self._device.close()

    def _serve(
        self, trt: Any, artefact: Artefact, precision: str, record: EngineRecord | None = None
    ) -> None:
        """Set all fields; ``record`` is None for an engine that is being built."""
        types = artefact.document(CONFIG_FILE).get("type_vocab_size") or 0
        self._id_bounds = IdBounds(token_ids=artefact.encoder.vocabulary, token_types=types)
        self._lock = threading.Lock()
        self._closed = False
        self._buckets = [profile.bucket for profile in self._executor.profiles]
        self._classes = self._executor.profiles[0].buffers.logits_BC.shape[1]
        self._version, self._precision, self._record = str(trt.__version__), precision, record
        self._last = frozenset[int]()

    def _run(self, batch: Batch, sub_batch: SubBatch, logits_BC: NDArray[np.float32]) -> None:
        """Run some rows of a batch, padded to their bucket, and store their logits."""
        profile = self._fill(batch, sub_batch)
        self._executor.copy_inputs(profile)
        self._executor.launch(profile)
        self._executor.copy_logits(profile)
        self._executor.wait()
        logits_BC[sub_batch.start : sub_batch.stop] = profile.buffers.logits_BC[
            : sub_batch.stop - sub_batch.start
        ]

    def _fill(self, batch: Batch, sub_batch: SubBatch) -> ProfileContext:
        """Copy the rows into the input buffers of their bucket, with padding."""
        profile = self._executor.profiles[sub_batch.bucket]
        count, S = sub_batch.stop - sub_batch.start, batch.ids_BS.shape[1]
        for name, values_BS in batch.named().items():
            held = profile.buffers.inputs[name]
            held[:count, :S] = values_BS[sub_batch.start : sub_batch.stop]
            held[:count, S:] = 0
            held[count:] = 0
        profile.buffers.inputs[MASK][count:, 0] = 1
        return profile


class TensorRtRun:
    """A batch in a bucket's buffers; a :class:`~spd_deploy.sessions.device_runs.DeviceRun`."""

    def __init__(self, executor: Executor, profile: ProfileContext, rows: int) -> None:
        self._executor, self._profile, self._rows = executor, profile, rows

    @property
    def stream_handle(self) -> int:
        """The address of the engine's ``cudaStream_t``."""
        return self._executor.device.stream_handle

    def copy_to_device(self) -> None:
        """Enqueue the copy of the ids to the GPU."""
        self._executor.device.enter()
        self._executor.copy_inputs(self._profile)

    def enqueue(self) -> None:
        """Enqueue the bucket's CUDA graph."""
        self._executor.launch(self._profile)

    def copy_to_host(self) -> None:
        """Enqueue the copy of the logits to the host."""
        self._executor.copy_logits(self._profile)

    def logits(self) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of the last ``copy_to_host``, copied; waits for the stream."""
        self._executor.wait()
        return np.array(self._profile.buffers.logits_BC[: self._rows])
