"""Runs a torch artefact: on CUDA through CUDA graphs and our kernels, on the CPU in plain PyTorch.

What runs each matrix is in the description, as the session found out itself. On the CPU the same
artefact gives the same answers, slowly: blocks by ``index_select`` and ``bmm``, 2:4 matrices dense.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import EngineFailed, Unavailable
from spd_deploy.domain.text import Batch
from spd_deploy.kernels.backends import Plain, Triton
from spd_deploy.kernels.launch import KERNEL
from spd_deploy.sessions.cuda.room import fitting
from spd_deploy.sessions.device_runs import DeviceRun
from spd_deploy.sessions.id_bounds import IdBounds
from spd_deploy.sessions.protocol import Closing, Description, Device
from spd_deploy.sessions.torch_network.graphs import Graphs
from spd_deploy.sessions.torch_network.loading import refuse_no_cuda, runners_for, tensors_in
from spd_deploy.sessions.torch_network.network import Network
from spd_deploy.sessions.torch_network.plan import NetworkPlan, read_plan
from spd_deploy.sessions.torch_threads import threads_in_torch


class TorchArtefactSession(Closing):
    """A torch artefact, loaded."""

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        *,
        device: Device = "cpu",
        threads: int | None = None,
    ) -> None:
        """Load what lies in ``folder``, whose files were verified, on ``device``.

        On the CPU it runs with ``threads`` (None: as many as this process may use cores).

        Raises:
            Unavailable: no CUDA where it was asked for, a GPU that is too old or too full, or no
                Triton for block-sparse matrices.
            BadArtefact: its files do not fit together.
        """
        import torch

        if device == "cuda":
            refuse_no_cuda()
        plan = read_plan(folder)
        self.device, self.threads = device, threads or default_threads()
        self._tables = IdBounds(words=encoder.vocabulary, types=plan.token_types)
        self._closed = False
        with fitting(folder, device):
            with torch.inference_mode(False), torch.no_grad():
                self.network = _network(folder, encoder, plan, device)
            self._graphs = Graphs(self.network) if device == "cuda" else None

    @property
    def description(self) -> Description:
        """What ran; which products ran on 2:4 tensor cores is known after the first batch."""
        import torch

        on_cpu = self.device == "cpu"
        return Description(
            runtime="torch",
            version=torch.__version__,
            device=self.device,
            precision=self.network.plan.number,
            threads=self.threads if on_cpu else None,
            kernels=self._kernels(),
            sparse_kernels=self._sparse_kernels(),
        )

    def prepare(self, batch: Batch, *, graph: bool) -> DeviceRun:
        """The batch on the GPU (``sessions.device_runs``).

        Raises:
            Unavailable: it runs on the CPU.
            EngineFailed: the session is closed, an id is beyond its table, or the batch does not
                run.
        """
        if self._closed:
            raise EngineFailed("the session is closed", fix="open it again")
        self._tables.refuse_beyond(batch)
        if self._graphs is None:
            raise Unavailable(
                "batches are kept on a GPU alone", got="device cpu", fix="use --device cuda"
            )
        return self._graphs.prepare(batch, graph=graph)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]``, in memory of the caller's own.

        Raises:
            EngineFailed: as :meth:`prepare`.
        """
        if self._closed:
            raise EngineFailed("the session is closed", fix="open it again")
        self._tables.refuse_beyond(batch)
        if self._graphs is not None:
            return self._graphs.run(batch)
        import torch

        arrays = (batch.ids_BS, batch.mask_BS, batch.types_BS)
        try:
            with torch.inference_mode(), threads_in_torch(self.threads):
                logits_BC = self.network.logits(*map(torch.from_numpy, arrays))
        except (RuntimeError, IndexError) as err:
            raise EngineFailed("PyTorch failed on a batch", got=err, fix="see above") from err
        return np.array(logits_BC.numpy())

    def close(self) -> None:
        """Drop the graphs and the weights."""
        if not self._closed and self._graphs is not None:
            self._graphs.close()
        self._closed = True
        self.network.layers.clear()

    def _kernels(self) -> str:
        """How the matrices are run, in words."""
        matrices = self.network.plan.matrices
        blocks = sum(matrix.kind == "blocks" for matrix in matrices)
        said = []
        if blocks:
            by = Plain.spelled if self.device == "cpu" else Triton.spelled
            said.append(f"{blocks} of {len(matrices)} matrices by {by}")
        if any(matrix.kind == "2:4" for matrix in matrices):
            said.append(self._two_four())
        return "; ".join(said) or "all matrices dense"

    def _sparse_kernels(self) -> tuple[str, ...] | None:
        """Kernels of its own that skip zeros; what PyTorch runs for 2:4 it does not name."""
        blocks = any(matrix.kind == "blocks" for matrix in self.network.plan.matrices)
        return (KERNEL,) if blocks and self.device == "cuda" else None

    def _two_four(self) -> str:
        """What became of the 2:4 matrices."""
        if self._graphs is None:
            return "2:4 matrices dense: a CPU has no kernel for them"
        refused = self.network.refused()
        but = f", {len(refused)} dense: {refused[0]}" if refused else ""
        if self._graphs.last is None:
            return f"2:4 tensor cores where they are faster{but}"
        last = self._graphs.last
        return f"{last.two_four} products on 2:4 tensor cores at {last.bucket}{but}"


def _network(folder: Path, encoder: Encoder, plan: NetworkPlan, device: Device) -> Network:
    """The network on the device."""
    tensors = tensors_in(folder, plan, device)
    backend, chooser = runners_for(plan, device)
    return Network(plan, encoder, tensors, backend=backend, chooser=chooser)
