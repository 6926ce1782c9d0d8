"""Dense arms that PyTorch runs: what sparsity has to beat.

The stock classifier in half precision with PyTorch's fused attention. A ``TorchMode`` is one arm:
``eager`` runs it as it comes, ``compile`` by ``torch.compile``. Each is timed launched and by CUDA
graph. Graphs are captured here and not by ``mode="reduce-overhead"``, which does the same and adds
its own bookkeeping to every call; so the compiled arm is at least as fast as that mode. For the
same reason a mode of ``torch.compile`` that captures graphs of its own has no place here: of
``max-autotune`` take ``max-autotune-no-cudagraphs``.

A batch without padding is run without a mask, so that attention takes its fastest kernel. Nothing
falls back: a model is compiled whole (``fullgraph``) for each shape, or the arm says why not.

Transformers before 5.23 makes a mask of ones there while a graph is captured or a model compiled,
which excludes flash attention and slows the dense model by 5 to 15 %. So this module gives the
model a mask function of its own.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, assert_never

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import EngineFailed, SpdError, Unavailable, first_line
from spd_deploy.domain.model_config import has_token_types
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.cuda.oom import fitting
from spd_deploy.sessions.cuda.pytorch import Buffers, refuse_without_cuda
from spd_deploy.sessions.device_runs import DeviceRun
from spd_deploy.sessions.protocol import Closing, Description
from spd_deploy.sessions.torch import TorchSession

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

TorchMode = Literal["eager", "compile"]
_WARMUPS = 3
# Shapes that one process may compile a model for; PyTorch's own limit would refuse the ninth.
_MAX_SHAPES = 256
# The name in Transformers of its fused attention with our mask function.
_ATTENTION = "spd_sdpa"


class DenseTorchSession(Closing):
    """A Hugging Face classifier in half precision on CUDA, its batches by CUDA graph."""

    def __init__(self, folder: Path, *, mode: TorchMode) -> None:
        """Load the model of ``folder``.

        Raises:
            Unavailable: PyTorch cannot use a GPU, or it has no room for the model.
            BadModel: the folder holds no classifier.
        """
        refuse_without_cuda()
        with TorchSession(folder, device="cuda") as whole:
            model = whole.model
        with fitting(folder, "cuda"):
            self._take(model.half().eval(), mode)

    @classmethod
    def of_model(cls, model: "Module", *, mode: TorchMode) -> Self:
        """The session of a model of Transformers that is on the GPU already, in half precision."""
        session = cls.__new__(cls)
        session._take(model, mode)
        return session

    def _take(self, model: Any, mode: TorchMode) -> None:
        """Make the forward pass of a model on the GPU, and what its runs share."""
        import torch

        self._types = has_token_types(model.config)
        self._classes = int(model.config.num_labels)
        self._forward = forward_of(model, mode)
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._kept: dict[tuple[int, int, bool], _TorchRun] = {}
        self.description = Description(
            runtime=f"torch {mode}",
            version=torch.__version__,
            device="cuda",
            precision="fp16",
            threads=None,
        )

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]``, by the graph of the batch's shape, which the first run captures."""
        key = (*batch.ids_BS.shape, padded(batch))
        if key not in self._kept:
            self._kept[key] = self._prepared(batch, graph=True)
        run = self._kept[key]
        run.set_batch(batch)
        run.copy_to_device()
        run.enqueue()
        run.copy_to_host()
        return run.logits()

    def prepare(self, batch: Batch, *, graph: bool) -> DeviceRun:
        """The batch on the device (``sessions.device_runs``)."""
        return self._prepared(batch, graph=graph)

    def close(self) -> None:
        """Drop the model, its graphs and their memory."""
        import torch

        self._kept.clear()
        self._forward = _closed
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    def _prepared(self, batch: Batch, *, graph: bool) -> "_TorchRun":
        """Buffers, warm-up, and a graph where one is wanted."""
        try:
            run = _TorchRun(self._forward, batch, self._stream, self._classes, types=self._types)
            run.warm()
            if graph:
                run.capture(self._pool)
        except SpdError:
            raise
        except Exception as err:
            raise _failed(err, batch) from err
        return run


class _TorchRun(Buffers):
    """One batch in buffers that stay where they are."""

    def __init__(
        self,
        forward: Callable[..., "Tensor"],
        batch: Batch,
        stream: Any,
        classes: int,
        *,
        types: bool,
    ) -> None:
        super().__init__(batch, stream, classes)
        self._forward = forward
        self._graph: Any = None
        self._masked, self._typed = padded(batch), types

    def enqueue(self) -> None:
        """Replay the graph, or launch."""
        import torch

        with torch.cuda.stream(self.stream):
            if self._graph is None:
                self._launch()
            else:
                self._graph.replay()

    def warm(self) -> None:
        """Run some times, which compiles what is to be compiled and fills PyTorch's memory."""
        import torch

        with torch._dynamo.config.patch(recompile_limit=_MAX_SHAPES):
            for _ in range(_WARMUPS):
                self.enqueue()
        self.stream.synchronize()

    def capture(self, pool: Any) -> None:
        """From now on a run is the replay of a graph."""
        import torch

        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.stream(self.stream),  # comes back where a capture breaks off
            torch.cuda.graph(graph, pool=pool, stream=self.stream),
        ):
            self._launch()
        self._graph = graph

    def _launch(self) -> None:
        """The model's kernels, and one that puts the logits into their place."""
        ids_BS, mask_BS, types_BS = self.device_3BS
        found_BC = self._forward(
            ids_BS, mask_BS if self._masked else None, types_BS if self._typed else None
        )
        self.device_logits_BC.copy_(found_BC)


def forward_of(model: "Module", mode: TorchMode) -> Callable[..., "Tensor"]:
    """Ids, mask and types ``[B, S]`` to logits ``[B, C]``; None stands for no padding, no types."""
    import torch

    _without_needless_masks(model)

    def logits(ids_BS: "Tensor", mask_BS: "Tensor | None", types_BS: "Tensor | None") -> "Tensor":
        """The model's answer without what surrounds it."""
        found = model(input_ids=ids_BS, attention_mask=mask_BS, token_type_ids=types_BS)
        answer: Tensor = found.logits
        return answer

    match mode:
        case "eager":
            return torch.inference_mode()(logits)
        case "compile":
            compiled = torch.compile(logits, fullgraph=True, dynamic=False)
            return torch.no_grad()(compiled)
        case never:
            assert_never(never)


def _without_needless_masks(model: Any) -> None:
    """Let a model with fused attention run without a mask where it is given none."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(_ATTENTION, sdpa_attention_forward)
    AttentionMaskInterface.register(_ATTENTION, _mask_where_given)
    model.set_attn_implementation(_ATTENTION)


def _mask_where_given(*arguments: Any, **settings: Any) -> "Tensor | None":
    """Transformers' mask of padding; None where there is no padding and no other restriction."""
    from transformers.masking_utils import sdpa_mask

    unpadded = settings.get("attention_mask") is None
    if unpadded and settings.get("allow_is_bidirectional_skip", False):
        return None
    found: Tensor | None = sdpa_mask(*arguments, **settings)
    return found


def padded(batch: Batch) -> bool:
    """Whether any token is none, so that attention needs a mask."""
    return not bool(batch.mask_BS.all())


def _failed(err: Exception, batch: Batch) -> SpdError:
    """PyTorch's failure as an error of ours: out of memory, or a batch that it cannot run so."""
    import torch

    B, S = batch.ids_BS.shape
    if isinstance(err, torch.OutOfMemoryError):
        return EngineFailed(
            f"the GPU's memory does not hold a run of {B}x{S}",
            got=first_line(err),
            fix="measure smaller shapes, or free the GPU",
        )
    return Unavailable(
        f"PyTorch does not run {B}x{S} in this mode", got=first_line(err), fix="leave this arm out"
    )


def _closed(*_: object) -> "Tensor":
    """Stands for the model once it is gone."""
    raise EngineFailed("the session is closed", fix="open it again")
