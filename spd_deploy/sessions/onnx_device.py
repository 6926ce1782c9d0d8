"""ONNX Runtime's CUDA provider with ids and logits kept on the device, launched or by CUDA graph.

An instance of the model for each, since where it computes and whether it captures graphs is settled
when a model is loaded, and not every model can be captured. It computes on a stream of ours, so
that events lie around a run, and does not wait for it; some versions of ONNX Runtime wait for a
graph's replay all the same, which then shows as time of enqueueing.

Buffers are PyTorch's: ONNX Runtime takes their addresses, and has no pinned memory of its own.
"""

from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from spd_deploy.domain.errors import EngineFailed, Unavailable
from spd_deploy.domain.text import INPUTS, Batch
from spd_deploy.sessions.cuda.pytorch import Buffers, refuse_without_cuda
from spd_deploy.sessions.device_runs import DeviceRun

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

        refuse_without_cuda()
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


class _OnnxRun(Buffers):
    """One batch in device memory, bound to the model."""

    def __init__(self, session: Any, options: Any, stream: Any, batch: Batch, classes: int) -> None:
        super().__init__(batch, stream, classes)
        self._session, self._options = session, options
        self._binding = self._bound()

    def enqueue(self) -> None:
        """Run the model.

        Raises:
            EngineFailed: ONNX Runtime failed.
        """
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as err:
            raise EngineFailed("ONNX Runtime failed on a batch", got=err, fix="see above") from err

    def _bound(self) -> Any:
        """The addresses of inputs and output."""
        binding = self._session.io_binding()
        for name, there in zip(INPUTS, self.device_3BS, strict=True):
            binding.bind_input(name, "cuda", 0, np.int64, list(there.shape), there.data_ptr())
        out = self.out_BC
        binding.bind_output("logits", "cuda", 0, np.float32, list(out.shape), out.data_ptr())
        return binding
