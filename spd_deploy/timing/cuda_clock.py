"""The GPU's clock: events on a stream, and CUDA graphs of work that is shorter than its launch.

Events, streams and memory go through PyTorch. Sessions of other runtimes are timed by events on
their own streams, which they name by a ``cudaStream_t`` as a whole number.
"""

from collections.abc import Callable
from statistics import median
from typing import Any, Protocol

_RUNS_IN_GRAPH = 20
_REPLAYS = 7
_WARMUPS = 3
# GPU cycles of waiting: 200 us at 2 GHz, and longer at lower clocks. A graph's launch takes tens.
_WAIT_CYCLES = 400_000


class DeviceClock(Protocol):
    """The clock of a device with streams; tests put a simulated one in its place."""

    def mark(self, stream: int) -> Any:
        """Record a point in time on the stream: when all work enqueued so far is done."""
        ...

    def seconds_between(self, first: Any, last: Any) -> float:
        """Seconds from one mark to a later one; the stream has passed both."""
        ...

    def wait(self, stream: int) -> None:
        """Return when the stream is idle."""
        ...

    def flush(self, stream: int) -> None:
        """Enqueue writes over the whole L2 cache."""
        ...

    def pause(self, stream: int) -> None:
        """Enqueue a wait that is longer than the host takes to enqueue a graph or a copy."""
        ...


class CudaClock:
    """The clock of PyTorch's current CUDA device."""

    def __init__(self) -> None:
        """Allocate the buffer that :meth:`flush` writes; PyTorch must find a CUDA device."""
        import torch

        self.l2_bytes = int(torch.cuda.get_device_properties().L2_cache_size)
        # Twice the cache, so that nothing stays in it, however its lines are replaced.
        size = 2 * max(self.l2_bytes, 1 << 20)
        self._buffer = torch.empty(size, dtype=torch.int8, device="cuda")
        self._streams: dict[int, Any] = {}

    def mark(self, stream: int) -> Any:
        """Record an event on the stream."""
        event = _event()
        event.record(self._stream(stream))
        return event

    def seconds_between(self, first: Any, last: Any) -> float:
        """Seconds between two events."""
        return float(first.elapsed_time(last)) / 1e3

    def wait(self, stream: int) -> None:
        """Return when the stream is idle."""
        self._stream(stream).synchronize()

    def flush(self, stream: int) -> None:
        """Enqueue a write over a buffer of twice the cache's size."""
        import torch

        with torch.cuda.stream(self._stream(stream)):
            self._buffer.zero_()

    def pause(self, stream: int) -> None:
        """Enqueue a kernel that spins for 200 us or more."""
        import torch

        with torch.cuda.stream(self._stream(stream)):
            torch.cuda._sleep(_WAIT_CYCLES)  # type: ignore[no-untyped-call]

    def _stream(self, stream: int) -> Any:
        """PyTorch's view of a stream that another runtime may own."""
        import torch

        if stream not in self._streams:
            self._streams[stream] = torch.cuda.ExternalStream(stream)  # type: ignore[no-untyped-call]
        return self._streams[stream]


def stream_seconds(clock: DeviceClock, stream: int, enqueue: Callable[[], object]) -> float:
    """Seconds that the device spends on what ``enqueue`` puts on the stream; waits for it.

    An idle stream would pass the first mark at once and then wait for the host; so it pauses first.
    """
    clock.pause(stream)
    first = clock.mark(stream)
    enqueue()
    last = clock.mark(stream)
    clock.wait(stream)
    return clock.seconds_between(first, last)


class TimedGraph:
    """Work captured some times over in a CUDA graph, on a stream of its own.

    A kernel of a few microseconds is shorter than its launch from Python. In a graph the launches
    are in no sample. The graph keeps ``run`` alive, since it reads the memory that ``run`` holds.
    """

    def __init__(self, run: Callable[[], object], *, runs: int = _RUNS_IN_GRAPH) -> None:
        """Warm ``run`` up, capture it ``runs`` times, and replay the graph once.

        Raises:
            RuntimeError: PyTorch cannot run or capture it.
        """
        import torch

        self._run, self._runs = run, runs
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream())
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for _ in range(_WARMUPS):
                run()
            self._stream.synchronize()
            # Only this thread's calls are held to what a capture allows.
            mode = "thread_local"
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode=mode):
                for _ in range(runs):
                    run()
            self._graph.replay()
        torch.cuda.current_stream().wait_stream(self._stream)

    def seconds(self, *, before: Callable[[], object] = lambda: None) -> float:
        """Seconds of one run on the GPU; ``before`` is enqueued first and is not timed."""
        import torch

        with torch.cuda.stream(self._stream):
            before()
            return seconds_without_launch(self._graph.replay) / self._runs


def graph_seconds(run: Callable[[], object]) -> float:
    """Median seconds of one ``run`` on the GPU, warm, its data in the L2 cache."""
    graph = TimedGraph(run)
    return median(graph.seconds() for _ in range(_REPLAYS))


def seconds_without_launch(enqueue: Callable[[], object]) -> float:
    """Seconds that the GPU spends on what is enqueued on the current stream; waits for it.

    On an idle stream the first event is passed at once, and the GPU then waits for the host. So
    the stream first waits for longer than the enqueueing takes.
    """
    import torch

    first, last = _event(), _event()
    torch.cuda._sleep(_WAIT_CYCLES)  # type: ignore[no-untyped-call]
    first.record()
    enqueue()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def _event() -> Any:
    """A CUDA event that keeps time."""
    import torch

    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
