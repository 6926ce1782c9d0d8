"""How long work on the GPU takes, without the time that Python needs to start it.

A kernel of a few microseconds is shorter than its launch from Python. So the work is captured in a
CUDA graph some times over, and the graph is timed by CUDA events.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

_IN_A_GRAPH = 20
_REPLAYS = 7


def graph_seconds(run: Callable[[], object], *, times: int = _IN_A_GRAPH) -> float:
    """Median seconds of one ``run`` on the current device, warm, its data in the L2 cache.

    ``run`` is called on a stream of its own; what it allocates is the graph's.
    """
    import torch

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(times):
                run()
        graph.replay()
        seconds = [_replay(graph) / times for _ in range(_REPLAYS)]
    torch.cuda.current_stream().wait_stream(stream)
    return median(seconds)


def _replay(graph: Any) -> float:
    """Seconds of one replay."""
    before, after = (_event() for _ in range(2))
    before.record()
    graph.replay()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1e3


def _event() -> Any:
    """One that has a time."""
    import torch

    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
