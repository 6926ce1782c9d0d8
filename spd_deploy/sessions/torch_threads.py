"""How many threads PyTorch computes with, set for the time of a run."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def threads_in_torch(count: int | None) -> Iterator[None]:
    """So many threads in PyTorch while it lasts; None leaves their number as it is.

    A thread of Python has a number of its own, so it is set where the run is, not where a session
    was opened.
    """
    import torch

    before = torch.get_num_threads()
    if count in (None, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
