"""ONNX Runtime's CUDA provider with ids and logits on the device, with or without a CUDA graph.

There is one instance of the model with CUDA graphs and one without, because ONNX Runtime fixes that
when a model is loaded, and not every model can be captured. The instance computes on our stream, so
that events can time a run, and does not wait for it. Some versions of ONNX Runtime do wait for the
replay of a graph, which then counts as time of enqueueing.

The buffers are PyTorch's. ONNX Runtime takes their addresses, and has no pinned memory of its own.
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
# ONNX Runtime runs a few times normally before it captures; later runs are replays.
_WARMUPS = 4


class OnnxDevice:
    """A model on the GPU that runs batches kept there, all with CUDA graphs or all without."""

    def __init__(self, ort: ModuleType, model: Path, options: Any, *, graph: bool) -> None:
        """Load the model on a new stream.

        Raises:
            Unavailable: PyTorch has no CUDA, or ONNX Runtime cannot load or capture this model.
        """
        import torch

        refuse_without_cuda()
        self._ort, self._graph = ort, graph
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._numbers = count(1)
        self._session = self._load(model, options)

    def prepare(self, batch: Batch, *, classes: int) -> DeviceRun:
        """Load the batch onto the device, warm it up, and allocate its logits.

        Raises:
            EngineFailed: ONNX Runtime failed on the batch.
        """
        options = self._ort.RunOptions()
        if self._graph:
            options.add_run_config_entry("gpu_graph_id", str(next(self._numbers)))
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        run = _OnnxRun(self._session, options, self._stream, batch, classes)
        run.copy_to_device()
        for _ in range(_WARMUPS):
            run.enqueue()
        run.copy_to_host()
        run.logits()
        return run

    def _load(self, model: Path, options: Any) -> Any:
        """Load the model into the CUDA provider."""
        settings = {
            "enable_cuda_graph": "1" if self._graph else "0",
            "user_compute_stream": str(self._stream.cuda_stream),
        }
        try:
            session = self._ort.InferenceSession(model, options, providers=[(PROVIDER, settings)])
        except Exception as err:
            raise Unavailable(
                "ONNX Runtime cannot keep this model's batches on the GPU",
                got=err,
                fix="use the session's ordinary runs, which copy each batch",
            ) from err
        if PROVIDER not in session.get_providers():
            raise Unavailable(
                "ONNX Runtime could not start on cuda",
                got=", ".join(session.get_providers()),
                fix="run `spd doctor` for the reason",
            )
        return session


class _OnnxRun(Buffers):
    """One batch in device memory, bound to the model's inputs and output."""

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
            raise EngineFailed(
                "ONNX Runtime failed on a batch",
                got=err,
                fix="run `spd doctor`, or use --device cpu",
            ) from err

    def _bound(self) -> Any:
        """Bind the addresses of inputs and output."""
        binding = self._session.io_binding()
        for name, there in zip(INPUTS, self.device_3BS, strict=True):
            binding.bind_input(name, "cuda", 0, np.int64, list(there.shape), there.data_ptr())
        out = self.device_logits_BC
        binding.bind_output("logits", "cuda", 0, np.float32, list(out.shape), out.data_ptr())
        return binding
