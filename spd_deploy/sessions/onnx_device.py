"""ONNX Runtime's CUDA provider with ids and logits kept on the device, launched or by CUDA graph.

An instance of the model for each, since where it computes and whether it captures graphs is settled
when a model is loaded, and not every model can be captured. It computes on a stream of ours, so
that events lie around a run, and does not wait for it; some versions of ONNX Runtime wait for a
graph's replay all the same, which then shows as time of enqueueing.

Buffers are PyTorch's: ONNX Runtime takes their addresses, and has no pinned memory of its own.
"""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import EngineFailed, Unavailable
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.device import DeviceRun

PROVIDER = "CUDAExecutionProvider"
# ONNX Runtime runs some times as usual before it captures; then each run is a replay.
_WARMUPS = 4


class OnnxDevice:
    """A model on the GPU that runs batches which lie there, all of them by graph or none."""

    def __init__(self, ort: ModuleType, model: Path, options: Any, *, graph: bool) -> None:
        """Load the model on a stream of its own.

        Raises:
            Unavailable: no PyTorch on CUDA, or ONNX Runtime cannot capture graphs of this model.
        """
        import torch

        if not torch.cuda.is_available():
            raise Unavailable("PyTorch finds no CUDA device", fix="run `spd doctor`")
        self._ort, self._graph = ort, graph
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._numbers = count(1)
        self._session = self._load(model, options)

    def prepare(self, batch: Batch, *, classes: int) -> DeviceRun:
        """The batch on the device, warm, with room for its logits.

        Raises:
            EngineFailed: ONNX Runtime failed on it.
        """
        options = self._ort.RunOptions()
        if self._graph:
            options.add_run_config_entry("gpu_graph_id", str(next(self._numbers)))
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        run = _OnnxRun(self._session, options, self._stream, batch, classes)
        run.load()
        for _ in range(_WARMUPS):
            run.enqueue()
        run.unload()
        run.logits()
        return run

    def _load(self, model: Path, options: Any) -> Any:
        """The model in the provider."""
        settings = {
            "enable_cuda_graph": "1" if self._graph else "0",
            "user_compute_stream": str(self._stream.cuda_stream),
        }
        try:
            session = self._ort.InferenceSession(model, options, providers=[(PROVIDER, settings)])
        except Exception as err:
            raise Unavailable(
                "ONNX Runtime cannot keep this model on the GPU", got=err, fix="run it as it is"
            ) from err
        if PROVIDER not in session.get_providers():
            raise Unavailable(
                "ONNX Runtime could not start on cuda",
                got=", ".join(session.get_providers()),
                fix="run `spd doctor` for the reason",
            )
        return session


class _OnnxRun:
    """One batch in device memory, bound to the model."""

    def __init__(self, session: Any, options: Any, stream: Any, batch: Batch, classes: int) -> None:
        import torch

        self._session, self._options, self._stream = session, options, stream
        arrays = {
            "input_ids": batch.ids_BS,
            "attention_mask": batch.mask_BS,
            "token_type_ids": batch.types_BS,
        }
        self._host = {name: torch.from_numpy(a).pin_memory() for name, a in arrays.items()}
        self._device = {name: t.to("cuda") for name, t in self._host.items()}
        self._out_BC = torch.empty(len(batch.ids_BS), classes, device="cuda")
        self._back_BC = torch.empty(len(batch.ids_BS), classes, pin_memory=True)
        torch.cuda.synchronize()  # the copies were on another stream
        self._binding = self._bound(self._device)

    @property
    def stream(self) -> int:
        """The stream that the model computes on."""
        return int(self._stream.cuda_stream)

    def load(self) -> None:
        """Copy the ids to the device."""
        import torch

        with torch.cuda.stream(self._stream):
            for name, there in self._device.items():
                there.copy_(self._host[name], non_blocking=True)

    def enqueue(self) -> None:
        """Run the model.

        Raises:
            EngineFailed: ONNX Runtime failed.
        """
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as err:
            raise EngineFailed("ONNX Runtime failed on a batch", got=err, fix="see above") from err

    def unload(self) -> None:
        """Copy the logits to the host."""
        import torch

        with torch.cuda.stream(self._stream):
            self._back_BC.copy_(self._out_BC, non_blocking=True)

    def logits(self) -> NDArray[np.float32]:
        """Of the last copy; waits for it."""
        self._stream.synchronize()
        return np.array(self._back_BC.numpy(), np.float32)

    def _bound(self, inputs: Mapping[str, Any]) -> Any:
        """The addresses of inputs and output."""
        binding = self._session.io_binding()
        for name, there in inputs.items():
            binding.bind_input(name, "cuda", 0, np.int64, list(there.shape), there.data_ptr())
        out = self._out_BC
        binding.bind_output("logits", "cuda", 0, np.float32, list(out.shape), out.data_ptr())
        return binding
