"""Runs an ONNX artefact in ONNX Runtime, on the CPU or on CUDA."""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.errors import BadArtefact, EngineFailed, Unavailable
from spd_deploy.domain.text import Batch
from spd_deploy.domain.versions import version_of
from spd_deploy.sessions.cuda.oom import fitting
from spd_deploy.sessions.device_runs import DeviceRun
from spd_deploy.sessions.onnx_device import OnnxDevice
from spd_deploy.sessions.protocol import Closing, Description, Device
from spd_deploy.sessions.row_parallel import chunks_of, joined, part_of

MODEL_FILE = "model.onnx"
PORTABLE_FILE = "portable.onnx"  # the same model in standard ONNX operators, for other runtimes
DATA_FILE = "weights.bin"  # the weights of both files
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxSession(Closing):
    """An ONNX file in ONNX Runtime with all graph optimisations.

    Inputs are ``input_ids``, ``attention_mask`` and ``token_type_ids``, the output ``logits``.

    On the CPU a batch of many rows is split by rows among threads (``sessions.row_parallel``). They
    run on a second instance of the model, which has one thread. Both instances are loaded when the
    session is opened, so that the verified file is the one that runs. Threads of the first instance
    stop spinning after a run, because they would slow the second. Several threads may run a
    session.
    """

    def __init__(
        self,
        model: Path,
        *,
        precision: str,
        device: Device = "cpu",
        threads: int | None = None,
        profile: Path | None = None,
    ) -> None:
        """Load ``model`` on ``device`` with ``threads`` intra-op threads.

        By default there are as many threads as cores that this process may use. ONNX Runtime's own
        default counts all cores of the machine, and pins a thread to each.

        With ``profile``, each operator is timed until :meth:`end_profile`, into a file whose path
        begins with it, and no batch is split by rows.

        Raises:
            Unavailable: ONNX Runtime is missing or installed twice, or the device does not work or
                has too little memory for the model.
            BadArtefact: ONNX Runtime cannot read the file.
        """
        ort = onnxruntime_for(device)
        count = threads or default_threads()
        options = options_for(ort, count)
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        self._session = _load(ort, model, options, device)
        self._refuse_fallback(device)
        shared = device == "cpu" and profile is None and count > 1
        self._by_rows = _ByRows(ort, model, count) if shared else None
        self._open_device = partial(OnnxDevice, ort, model, options)
        self._devices: dict[bool, OnnxDevice] = {}
        # What keeps the model's files for an instance that is loaded later.
        self.files: contextlib.ExitStack | None = None
        self._closed = False
        self.description = Description(
            runtime="onnxruntime",
            version=ort.__version__,
            device=device,
            precision=precision,
            threads=count if device == "cpu" else None,  # threads have no effect on a GPU
        )

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]``.

        Raises:
            EngineFailed: ONNX Runtime failed on this batch.
        """
        if self._closed:
            raise EngineFailed("the session is closed", fix="open it again")
        if self._by_rows is not None:
            chunks = chunks_of(batch.mask_BS, self._by_rows.threads)
            if len(chunks) > 1:
                return self._by_rows.run(batch, chunks)
        (logits_BC,) = self.values(("logits",), batch)
        return np.asarray(logits_BC, np.float32)

    def prepare(self, batch: Batch, *, graph: bool) -> DeviceRun:
        """The batch in buffers on the GPU (``sessions.device_runs``), on an instance of its own.

        Raises:
            Unavailable: the session runs on the CPU, or the model cannot run so on the GPU.
            EngineFailed: ONNX Runtime failed on this batch.
        """
        if self.description.device != "cuda":
            raise Unavailable("this session runs on the CPU", fix="open it with --device cuda")
        classes = self.run(batch).shape[1]
        if graph not in self._devices:
            self._devices[graph] = self._open_device(graph=graph)
        return self._devices[graph].prepare(batch, classes=classes)

    def values(self, names: Sequence[str], batch: Batch) -> list[NDArray[Any]]:
        """The outputs of these names; besides ``logits`` a graph may have other outputs.

        Raises:
            EngineFailed: ONNX Runtime failed on this batch.
        """
        return _values(self._session, names, batch)

    def end_profile(self) -> Path:
        """Stop timing operators, and return the file of the events."""
        return Path(self._session.end_profiling())

    def close(self) -> None:
        """Free the model and its threads."""
        self._closed = True
        if self.files is not None:
            self.files.close()
        self._devices.clear()
        with contextlib.suppress(AttributeError):
            del self._session
        if self._by_rows is not None:
            self._by_rows.close()

    def _refuse_fallback(self, device: Device) -> None:
        """Refuse ONNX Runtime's fallback to the CPU, of which it only writes a log line."""
        if _PROVIDERS[device] not in self._session.get_providers():
            raise Unavailable(
                f"ONNX Runtime could not start on {device}",
                got=", ".join(self._session.get_providers()),
                fix="run `spd doctor` for the reason, or use --device cpu",
            )


class _ByRows:
    """A second instance of a model, with one thread, on which several threads run rows."""

    def __init__(self, ort: ModuleType, model: Path, threads: int) -> None:
        self.threads = threads
        self._session: Any = _load(ort, model, options_for(ort, 1), "cpu")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="spd-rows")

    def run(self, batch: Batch, chunks: Sequence[NDArray[np.intp]]) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of a batch that is split into chunks of rows."""
        logits = self._pool.map(partial(self._logits, batch), chunks)
        return joined([part for (part,) in logits], chunks)

    def close(self) -> None:
        """Free the threads and the model."""
        self._pool.shutdown()
        self._session = None

    def _logits(self, batch: Batch, rows: NDArray[np.intp]) -> list[NDArray[Any]]:
        """Logits of some rows."""
        return _values(self._session, ("logits",), part_of(batch, rows))


def options_for(ort: ModuleType, threads: int) -> Any:
    """Session options with so many threads, which do not spin between runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _load(ort: ModuleType, model: Path, options: Any, device: Device) -> Any:
    """Load the model into ONNX Runtime."""
    try:
        with fitting(model, device):
            return ort.InferenceSession(model, options, providers=[_PROVIDERS[device]])
    except Unavailable:
        raise
    except Exception as err:
        raise BadArtefact(
            f"ONNX Runtime cannot load {model}", got=err, fix="export it again"
        ) from err


def _values(session: Any, names: Sequence[str], batch: Batch) -> list[NDArray[Any]]:
    """The outputs of these names."""
    try:
        found: list[NDArray[Any]] = session.run(list(names), batch.named())
    except Exception as err:
        raise EngineFailed(
            "ONNX Runtime failed on a batch",
            got=err,
            fix="send a smaller batch; if that fails too, export the model again",
        ) from err
    return found


def _refuse_missing_provider(ort: ModuleType, device: Device) -> None:
    """Refuse a device for which the installed package was not built."""
    if _PROVIDERS[device] not in ort.get_available_providers():
        raise Unavailable(
            f"the installed ONNX Runtime has no {_PROVIDERS[device]}",
            got=", ".join(ort.get_available_providers()),
            fix="run `spd doctor` for the remedy, or use --device cpu",
        )


def onnxruntime_for(device: Device) -> ModuleType:
    """Import ONNX Runtime, and check that it was built for a device.

    Raises:
        Unavailable: it is missing, installed twice, or not built for the device.
    """
    refuse_double_install()
    ort = import_onnxruntime()
    _refuse_missing_provider(ort, device)
    return ort


def import_onnxruntime() -> ModuleType:
    """The ONNX Runtime module.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as err:
        raise Unavailable(
            "ONNX Runtime is not installed",
            got=err,
            fix="pip install 'spd-deploy[cpu]', or 'spd-deploy[gpu]' where there is a GPU",
        ) from err
    return onnxruntime  # type: ignore[no-any-return]


def refuse_double_install() -> None:
    """Refuse two ONNX Runtime packages, which overwrite each other's files and lose CUDA.

    Raises:
        Unavailable: ``onnxruntime`` and ``onnxruntime-gpu`` are both installed.
    """
    both = {name: version_of(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    if all(both.values()):
        raise Unavailable(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            got=", ".join(f"{name} {number}" for name, number in both.items()),
            fix="pip uninstall both, then install 'spd-deploy[cpu]' or 'spd-deploy[gpu]'",
        )
