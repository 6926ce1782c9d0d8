"""Runs a trt artefact's engine, if it was built for this machine and from this artefact."""

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
    library,
    place_of,
    refuse_elsewhere,
    verified_engine,
)
from spd_deploy.sessions.tensorrt.engine_record import EngineRecord, read_record
from spd_deploy.sessions.tensorrt.executor import Executor, Lane
from spd_deploy.sessions.tensorrt.shape_buckets import Turn, turns_of


class TensorRtSession(Closing):
    """An engine with its buckets.

    A batch goes through the smallest bucket that holds it, padded; one of more rows than any bucket
    has goes through in turns (``sessions.tensorrt.shape_buckets``). Several threads may run it:
    they wait for each other.
    """

    _closed: bool

    def __init__(self, artefact: Artefact) -> None:
        """Check that the engine is this artefact's and this machine's, and only then load it.

        Raises:
            Unavailable: not built yet; no driver, GPU or TensorRT; or others than it was built for.
            BadArtefact: changed, or built from another artefact.
        """
        record = read_record(artefact.folder)
        trt = library()
        self._device = CudaDevice()
        try:
            refuse_elsewhere(record, place_of(self._device, trt))
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
        """A session on an engine that was just built, which whoever built it closes."""
        session = cls.__new__(cls)
        session._device, session._executor = executor.device, executor
        session._serve(trt, artefact, precision)
        return session

    @property
    def description(self) -> Description:
        """What runs; its sparse kernels are those of the last batch, before any, of all buckets."""
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
            EngineFailed: no bucket holds texts of so many tokens, an id is beyond its table, or the
                GPU failed.
        """
        rows, tokens = batch.ids_BS.shape
        self._tables.refuse_beyond(batch)
        turns = turns_of(rows, tokens, self._buckets)
        logits_BC = np.empty((rows, self._classes), np.float32)
        with self._lock:
            if self._closed:
                raise EngineFailed("the session is closed", fix="open it again")
            self._device.enter()
            for turn in turns:
                self._run(batch, turn, logits_BC)
            self._last = frozenset(turn.bucket for turn in turns)
        return logits_BC

    def prepare(self, batch: Batch, *, graph: bool) -> "LaneRun":
        """The batch in its bucket on the GPU, where the next one takes its place.

        Raises:
            Unavailable: without a graph, since each bucket has been recorded as one; or the batch
                goes through several buckets in turns.
            EngineFailed: as :meth:`run`.
        """
        rows, tokens = batch.ids_BS.shape
        turns = turns_of(rows, tokens, self._buckets)
        if not graph or len(turns) > 1:
            raise Unavailable(
                "the engine runs one bucket, by its CUDA graph",
                got=f"{rows}x{tokens} in {len(turns)} turns" if graph else "a run without a graph",
                fix="build it for this shape: spd export --format trt --batch .. --seq ..",
            )
        self.run(batch)  # refuses what it should, and leaves the batch in its lane
        return LaneRun(self._executor, self._executor.lanes[turns[0].bucket], rows)

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
        """Be ready; an engine that is being built has no record yet."""
        types = artefact.document(CONFIG_FILE).get("type_vocab_size") or 0
        self._tables = IdBounds(words=artefact.encoder.vocabulary, types=types)
        self._lock = threading.Lock()
        self._closed = False
        self._buckets = [lane.bucket for lane in self._executor.lanes]
        self._classes = self._executor.lanes[0].memory.logits_BC.shape[1]
        self._version, self._precision, self._record = str(trt.__version__), precision, record
        self._last = frozenset[int]()

    def _run(self, batch: Batch, turn: Turn, logits_BC: NDArray[np.float32]) -> None:
        """Some rows of a batch; what the bucket has room for besides is padding."""
        lane = self._fill(batch, turn)
        self._executor.put(lane)
        self._executor.launch(lane)
        self._executor.get(lane)
        self._executor.wait()
        logits_BC[turn.start : turn.stop] = lane.memory.logits_BC[: turn.stop - turn.start]

    def _fill(self, batch: Batch, turn: Turn) -> Lane:
        """The bucket's lane with the rows in its inputs."""
        lane = self._executor.lanes[turn.bucket]
        count, S = turn.stop - turn.start, batch.ids_BS.shape[1]
        for name, values_BS in batch.named().items():
            held = lane.memory.inputs[name]
            held[:count, :S] = values_BS[turn.start : turn.stop]
            held[:count, S:] = 0
            held[count:] = 0
        lane.memory.inputs[MASK][count:, 0] = 1
        return lane


class LaneRun:
    """A batch in a bucket's memory; a :class:`~spd_deploy.sessions.device_runs.DeviceRun`."""

    def __init__(self, executor: Executor, lane: Lane, rows: int) -> None:
        self._executor, self._lane, self._rows = executor, lane, rows

    @property
    def stream(self) -> int:
        """The engine's."""
        return self._executor.device.stream

    def load(self) -> None:
        """Enqueue the copy of the ids to the GPU."""
        self._executor.device.enter()
        self._executor.put(self._lane)

    def enqueue(self) -> None:
        """Enqueue the graph."""
        self._executor.launch(self._lane)

    def unload(self) -> None:
        """Enqueue the copy of the logits to the host."""
        self._executor.get(self._lane)

    def logits(self) -> NDArray[np.float32]:
        """What was unloaded last, in memory of the caller's own; waits for it."""
        self._executor.wait()
        return np.array(self._lane.memory.logits_BC[: self._rows])
