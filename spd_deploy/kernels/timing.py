"""Times work on the GPU without the time that Python needs to launch it.

A kernel of a few microseconds takes less time than its launch from Python. The work is therefore
captured in a CUDA graph several times in a row, and CUDA events time the graph's replay. On an idle
stream the GPU would pass the first event at once and then wait for the host to launch the graph. A
busy-wait kernel comes first, which lasts longer than enqueueing the events and the graph.
"""

from collections.abc import Callable
from statistics import median

_IN_A_GRAPH = 20
_REPLAYS = 7
# Length of the busy-wait: 200 us at 2 GHz, and longer at lower clocks. A launch takes tens of us.
_AHEAD_CYCLES = 400_000


def graph_seconds(run: Callable[[], object], *, times: int = _IN_A_GRAPH) -> float:
    """Median seconds of one ``run`` on the current device, warm, with its data in the L2 cache.

    ``run`` is called on a new stream; its allocations belong to the graph.
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
        seconds = [seconds_of(graph.replay) / times for _ in range(_REPLAYS)]
    torch.cuda.current_stream().wait_stream(stream)
    return median(seconds)


def seconds_of(enqueue: Callable[[], object]) -> float:
    """Seconds of what ``enqueue`` puts on the current stream, by CUDA events; waits for it.

    No host time is included, as long as enqueueing is shorter than the busy-wait.
    """
    import torch

    before, after = (
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    torch.cuda._sleep(_AHEAD_CYCLES)  # type: ignore[no-untyped-call]
    before.record()
    enqueue()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1e3
