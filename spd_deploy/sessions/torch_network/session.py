"""Runs a torch artefact: on CUDA by CUDA graphs and our kernels, on the CPU in eager PyTorch.

The session's description tells what runs the matrices. The CPU gives the same answers, but slowly:
blocks run by ``index_select`` and ``bmm``, and 2:4 matrices run dense.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import EngineFailed, Unavailable
from spd_deploy.domain.extras import require_extras
from spd_deploy.domain.text import Batch
from spd_deploy.kernels.backends import EagerBackend, TritonBackend
from spd_deploy.kernels.launch import KERNEL
from spd_deploy.sessions.cuda.oom import fitting
from spd_deploy.sessions.device_runs import DeviceRun
from spd_deploy.sessions.id_bounds import IdBounds
from spd_deploy.sessions.protocol import Closing, Description, Device
from spd_deploy.sessions.torch_network.graphs import CudaGraphs
from spd_deploy.sessions.torch_network.load import backend_for, refuse_unsupported_gpu, tensors_in
from spd_deploy.sessions.torch_network.network import Network
from spd_deploy.sessions.torch_network.network_plan import NetworkPlan, read_plan
from spd_deploy.sessions.torch_threads import threads_in_torch


class TorchArtefactSession(Closing):
    """A loaded torch artefact."""

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        *,
        device: Device = "cpu",
        threads: int | None = None,
    ) -> None:
        """Load the artefact of ``folder``, whose files are verified already, onto ``device``.

        On the CPU it runs with ``threads``; None takes as many as this process may use cores.

        Raises:
            Unavailable: CUDA is missing, the GPU is too old or too full, or Triton is missing and
                the artefact has block-sparse matrices.
            BadArtefact: its files contradict each other.
        """
        require_extras("a torch artefact", "torch")
        import torch

        if device == "cuda":
            refuse_unsupported_gpu()
        plan = read_plan(folder)
        self.device, self.threads = device, threads or default_threads()
        self._id_bounds = IdBounds(token_ids=encoder.vocabulary, token_types=plan.token_types)
        self._closed = False
        with fitting(folder, device):
            with torch.inference_mode(False), torch.no_grad():
                self.network = _network(folder, encoder, plan, device)
            self._graphs = CudaGraphs(self.network) if device == "cuda" else None

    @property
    def description(self) -> Description:
        """How it runs; which products run on 2:4 tensor cores is known after the first batch."""
        import torch

        on_cpu = self.device == "cpu"
        return Description(
            runtime="torch",
            version=torch.__version__,
            device=self.device,
            precision=self.network.plan.precision,
            threads=self.threads if on_cpu else None,
            kernels=self._kernels(),
            sparse_kernels=self._sparse_kernels(),
        )

    def prepare(self, batch: Batch, *, graph: bool) -> DeviceRun:
        """The batch in buffers on the GPU (``sessions.device_runs``).

        Raises:
            Unavailable: the session runs on the CPU.
            EngineFailed: the session is closed, an id is out of range, or the batch does not
                run.
        """
        if self._closed:
            raise EngineFailed("the session is closed", fix="open it again")
        self._id_bounds.refuse_out_of_range(batch)
        if self._graphs is None:
            raise Unavailable(
                "only a session on a GPU keeps batches there",
                got="device cpu",
                fix="open the session with --device cuda",
            )
        return self._graphs.prepare(batch, graph=graph)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]``, copied.

        Raises:
            EngineFailed: as :meth:`prepare`.
        """
        if self._closed:
            raise EngineFailed("the session is closed", fix="open it again")
        self._id_bounds.refuse_out_of_range(batch)
        if self._graphs is not None:
            return self._graphs.run(batch)
        import torch

        arrays = (batch.ids_BS, batch.mask_BS, batch.types_BS)
        try:
            with torch.inference_mode(), threads_in_torch(self.threads):
                logits_BC = self.network.logits(*map(torch.from_numpy, arrays))
        except (RuntimeError, IndexError) as err:
            raise EngineFailed(
                "PyTorch failed on a batch",
                got=err,
                fix="run `spd doctor`, and export the model again",
            ) from err
        return np.array(logits_BC.numpy())

    def close(self) -> None:
        """Free the graphs and the weights."""
        if not self._closed and self._graphs is not None:
            self._graphs.close()
        self._closed = True
        self.network.layers.clear()

    def _kernels(self) -> str:
        """How the matrices are run, for the description."""
        matrices = self.network.plan.matrices
        blocks = sum(matrix.kind == "blocks" for matrix in matrices)
        parts = []
        if blocks:
            by = EagerBackend.label if self.device == "cpu" else TritonBackend.label
            parts.append(f"{blocks} of {len(matrices)} matrices by {by}")
        if any(matrix.kind == "2:4" for matrix in matrices):
            parts.append(self._two_four())
        return "; ".join(parts) or "all matrices dense"

    def _sparse_kernels(self) -> tuple[str, ...] | None:
        """The block-sparse kernel on CUDA; PyTorch does not name its 2:4 kernels."""
        blocks = any(matrix.kind == "blocks" for matrix in self.network.plan.matrices)
        return (KERNEL,) if blocks and self.device == "cuda" else None

    def _two_four(self) -> str:
        """How the 2:4 matrices are run, for the description."""
        if self._graphs is None:
            return "2:4 matrices dense: a CPU has no kernel for them"
        refused = self.network.refused()
        but = f", {len(refused)} dense: {refused[0]}" if refused else ""
        if self._graphs.last is None:
            return f"2:4 tensor cores where they are faster{but}"
        last = self._graphs.last
        return f"{last.two_four} products on 2:4 tensor cores at {last.bucket}{but}"


def _network(folder: Path, encoder: Encoder, plan: NetworkPlan, device: Device) -> Network:
    """Load the network onto the device."""
    tensors = tensors_in(folder, plan, device)
    backend, selector = backend_for(plan, device)
    return Network(plan, encoder, tensors, backend=backend, selector=selector)
