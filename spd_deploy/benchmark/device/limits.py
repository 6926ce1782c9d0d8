"""Measures the limits of this GPU: products a second in each precision, and bytes a second.

The numbers of a data sheet hold for clocks that a card in a machine does not keep. So the limits
are the fastest of some large products and copies in this run. They run in the libraries that the
dense arms use. A better kernel may pass them, and the report then has a caveat.
"""

from collections.abc import Callable

from spd_deploy.benchmark.device.device_records import MemoryCopy, Peak
from spd_deploy.benchmark.records import Skipped
from spd_deploy.domain.number_types import NUMBER_TYPES
from spd_deploy.timing.cuda_clock import DeviceClock, stream_seconds

# Rows and columns of the products: large enough to fill any GPU, small enough to take no second.
SIZES = {"fp16": 8192, "bf16": 8192, "int8": 8192, "fp32": 4096}
_WARMUPS, _RUNS = 5, 20
_MAX_BYTES = 1 << 30


def measure_peaks(clock: DeviceClock) -> tuple[tuple[Peak, ...], tuple[Skipped, ...]]:
    """The rate of each precision that this GPU multiplies in, and those that it does not."""
    peaks, skipped = [], []
    for precision, size in SIZES.items():
        try:
            seconds = _timed(clock, _product(precision, size))
        except RuntimeError as err:  # PyTorch's word for both "not supported" and "out of memory"
            reason = str(err).splitlines()[0]
            skipped.append(Skipped(name=f"peak in {precision}", reason=reason))
        else:
            peaks.append(Peak(precision=precision, size=size, seconds=seconds))
    return tuple(peaks), tuple(skipped)


def measure_copy(clock: DeviceClock) -> MemoryCopy:
    """The rate of the device's memory, by a copy of 1 GiB, or of an eighth of what is free."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    size = min(_MAX_BYTES, int(free) // 8)
    source = torch.zeros(size, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    seconds = _timed(clock, lambda: target.copy_(source))
    return MemoryCopy(moved_bytes=2 * size, seconds=seconds)


def _product(precision: str, size: int) -> Callable[[], object]:
    """A square product of random numbers, into memory that is there already where possible."""
    import torch

    if precision == "int8":
        left, right = (
            torch.randint(-128, 128, (size, size), dtype=torch.int8, device="cuda")
            for _ in range(2)
        )
        # The library takes the second matrix column by column.
        return lambda: torch._int_mm(left, right.t())
    kind = getattr(torch, NUMBER_TYPES[precision].dtype)
    left, right = (torch.randn(size, size, device="cuda").to(kind) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.matmul(left, right, out=out)


def _timed(clock: DeviceClock, enqueue: Callable[[], object]) -> tuple[float, ...]:
    """Seconds of each run, once warm, on a stream of their own."""
    import torch

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARMUPS):
            enqueue()
        return tuple(stream_seconds(clock, stream.cuda_stream, enqueue) for _ in range(_RUNS))
