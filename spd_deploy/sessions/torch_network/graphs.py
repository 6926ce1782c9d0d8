"""CUDA graphs of a network, one for each bucket, in one memory pool.

A graph is captured when a batch first needs its bucket, after a warm-up run in which kernels are
tuned and libraries initialise. A replay launches all kernels by one call and allocates nothing:
ids are copied from a pinned buffer to the GPU, and logits are copied back. Graphs are replayed one
at a time, so they share their memory. The number of graphs is bounded; the least recently used one
is dropped first.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import EngineFailed, SpdError
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.torch_network.buckets import bucket_for
from spd_deploy.sessions.torch_network.network import Network

MAX_GRAPHS = 48
_WARM_UPS = 2


class CudaGraphs:
    """Runs batches on the current CUDA device; several threads may run it, and take turns."""

    def __init__(self, network: Network, *, most: int = MAX_GRAPHS) -> None:
        import torch

        self.network = network
        self.most = most
        self.last: BucketRun | None = None
        self._captured: OrderedDict[Shape, BucketRun] = OrderedDict()
        self._lock = threading.Lock()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(
            torch.cuda.current_stream()
        )  # the weights were made on that stream
        self._pool: Any = torch.cuda.graph_pool_handle()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]``, copied.

        Raises:
            EngineFailed: the batch does not fit into the GPU's memory, or the GPU failed.
        """
        import torch

        bucket = self._bucket(batch)
        with self._lock, torch.inference_mode(), self._failing(bucket):
            graph = self._captured.get(bucket) or self._capture(bucket)
            self._captured.move_to_end(bucket)
            self.last = graph
            return graph.run(batch)

    def prepare(self, batch: Batch, *, graph: bool) -> "BucketRun":
        """The batch in buffers of its own on the GPU, warmed up; with ``graph``, captured.

        Raises:
            EngineFailed: as :meth:`run`.
        """
        import torch

        bucket = self._bucket(batch)
        with self._lock, torch.inference_mode(), self._failing(bucket):
            made = BucketRun(
                self.network, bucket, stream=self._stream, pool=self._pool, graph=graph
            )
            self.last = made
            made.run(batch)
            return made

    def close(self) -> None:
        """Drop all graphs and give their memory back."""
        with self._lock:
            self._drop()

    def __len__(self) -> int:
        """Number of captured graphs."""
        return len(self._captured)

    def _bucket(self, batch: Batch) -> Shape:
        """The smallest bucket that holds a batch."""
        B, S = batch.ids_BS.shape
        return bucket_for(B, S, positions=self.network.encoder.positions)

    @contextmanager
    def _failing(self, bucket: Shape) -> Iterator[None]:
        """Turn the GPU's errors into ours; after an out-of-memory all graphs are dropped."""
        import torch

        try:
            yield
        except torch.OutOfMemoryError as err:
            self._drop()
            self._pool = torch.cuda.graph_pool_handle()
            raise out_of_memory(bucket, err) from err
        except SpdError:
            raise
        except Exception as err:  # PyTorch's or Triton's; Triton's are no RuntimeError
            self._pool = (
                torch.cuda.graph_pool_handle()
            )  # an aborted capture makes its pool unusable
            raise EngineFailed(
                "the GPU failed on a batch", got=err, fix="run `spd doctor`, and try again"
            ) from err

    def _capture(self, bucket: Shape) -> "BucketRun":
        """Capture a bucket's graph, after dropping the least recently used of too many."""
        while len(self._captured) >= self.most:
            self._captured.popitem(last=False)[1].reset()
        graph = BucketRun(self.network, bucket, stream=self._stream, pool=self._pool)
        self._captured[bucket] = graph
        return graph

    def _drop(self) -> None:
        """Drop every captured graph."""
        import torch

        for graph in self._captured.values():
            graph.reset()
        self._captured.clear()
        torch.cuda.empty_cache()


class BucketRun:
    """A bucket's buffers and its run, captured as a CUDA graph or launched kernel by kernel.

    It is a :class:`~spd_deploy.sessions.device_runs.DeviceRun`. ``two_four`` is the number of its
    products that run on 2:4 tensor cores.
    """

    def __init__(
        self, network: Network, bucket: Shape, *, stream: Any, pool: Any, graph: bool = True
    ) -> None:
        import torch

        size = (3, bucket.batch, bucket.seq)
        self.network, self.stream, self.rows = network, stream, bucket.batch
        self.bucket = bucket
        self.padding = max(0, network.encoder.first_position - 1)
        self.host_3BS = torch.empty(size, dtype=torch.int64, pin_memory=True)
        self.view_3BS = self.host_3BS.numpy()
        self.set_batch(None)
        self.graph: Any = None
        with torch.cuda.stream(stream):
            self.device_3BS = self.host_3BS.to("cuda")
            for _ in range(_WARM_UPS):
                self.logits_BC = network.logits(*self.device_3BS)
            stream.synchronize()
            if graph:
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"
                ):
                    self.logits_BC = network.logits(*self.device_3BS)
            self.answer_BC = torch.empty(self.logits_BC.shape, pin_memory=True)
        self.two_four = network.two_four()

    @property
    def stream_handle(self) -> int:
        """The address of the ``cudaStream_t`` that its runs are enqueued on."""
        return int(self.stream.cuda_stream)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of a batch that fits into the bucket."""
        self.set_batch(batch)
        self.copy_to_device()
        self.enqueue()
        self.copy_to_host()
        return self.logits()

    def set_batch(self, batch: Batch | None) -> None:
        """Put the batch into the host buffer, padded; None fills it with real tokens only."""
        ids, mask, types = self.view_3BS
        ids[:], mask[:], types[:] = self.padding, int(batch is None), 0
        if batch is not None:
            B, S = batch.ids_BS.shape
            ids[:B, :S], mask[:B, :S] = batch.ids_BS, batch.mask_BS
            types[:B, :S] = batch.types_BS
            self.rows = B

    def copy_to_device(self) -> None:
        """Enqueue the copy of the ids to the GPU."""
        import torch

        with torch.cuda.stream(self.stream), torch.inference_mode():
            self.device_3BS.copy_(self.host_3BS, non_blocking=True)

    def enqueue(self) -> None:
        """Enqueue the graph, or each kernel where there is no graph."""
        import torch

        with torch.cuda.stream(self.stream):
            if self.graph is not None:
                self.graph.replay()
            else:
                with torch.inference_mode():
                    self.logits_BC = self.network.logits(*self.device_3BS)

    def copy_to_host(self) -> None:
        """Enqueue the copy of the logits to the host."""
        import torch

        with torch.cuda.stream(self.stream), torch.inference_mode():
            self.answer_BC.copy_(self.logits_BC, non_blocking=True)

    def logits(self) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of the last ``copy_to_host``, copied; waits for the stream."""
        self.stream.synchronize()
        return np.array(self.answer_BC.numpy()[: self.rows])

    def reset(self) -> None:
        """Free the graph's memory."""
        if self.graph is not None:
            self.graph.reset()


def out_of_memory(bucket: Shape, err: BaseException) -> EngineFailed:
    """The error for a batch that does not fit into the GPU's memory."""
    return EngineFailed(
        f"a batch of {bucket} tokens does not fit into the GPU's memory",
        got=err,
        fix="run fewer tokens at once (spd serve --max-batch-tokens), or free the GPU's memory",
    )
