"""Sets PyTorch's number of threads for the time of a run."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def threads_in_torch(count: int | None) -> Iterator[None]:
    """Set PyTorch's number of threads inside the block; None leaves it unchanged.

    The setting belongs to the calling Python thread. It is therefore set at each run, and not when
    a session is opened.
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
