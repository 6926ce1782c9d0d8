"""How long work on the GPU takes, without the time that Python needs to start it.

A kernel of a few microseconds is shorter than its launch from Python. So the work is captured in a
CUDA graph some times over, and the graph is timed by CUDA events. The graph has a launch too: on an
idle stream the first event is passed at once, and the GPU then waits for the host between the two.
So the stream is given something to do first that takes longer than all of the enqueueing.
"""

from collections.abc import Callable
from statistics import median

_IN_A_GRAPH = 20
_REPLAYS = 7
# Of waiting on the GPU: 200 us at 2 GHz, and longer at lower clocks. To launch a graph takes tens.
_AHEAD_CYCLES = 400_000


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
        seconds = [seconds_of(graph.replay) / times for _ in range(_REPLAYS)]
    torch.cuda.current_stream().wait_stream(stream)
    return median(seconds)


def seconds_of(enqueue: Callable[[], object]) -> float:
    """Seconds of what is enqueued on the current stream, by the GPU's own clock; waits for it.

    No time of the host's is in it, as long as that enqueues within what the stream waits first.
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
