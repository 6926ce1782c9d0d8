"""The map as text: a table, and from where on each pattern gains."""

from collections.abc import Iterator
from itertools import product

from spd_deploy.benchmark.breakeven.values import BreakEven, Sparse
from spd_deploy.benchmark.doubts import conditions_doubts
from spd_deploy.benchmark.gpu_doubts import state_doubts
from spd_deploy.benchmark.spelling import milliseconds
from spd_deploy.benchmark.tables import Table

LAYER = "a layer"


def map_table(found: BreakEven) -> Table:
    """A row a pattern, sparsity and number of tokens; first what dense takes, in milliseconds."""
    whole = found.model is not None
    columns = ("", "tokens", *map(str, found.parts), *([LAYER] if whole else []))
    rows = [
        _dense_row(found, row, tokens, whole=whole)
        for row in found.dense_rows
        for tokens in found.tokens
    ]
    rows += [
        _gain_row(found, row, tokens, whole=whole) for row in found.rows for tokens in found.tokens
    ]
    return Table(title=f"Gain over dense, {where(found)}", columns=columns, rows=tuple(rows))


def where(found: BreakEven) -> str:
    """Such as ``AMD EPYC, 2 threads, onnxruntime 1.32.0, fp32``, or ``NVIDIA H100, fp16``."""
    threads = found.effort.threads
    precisions = " and ".join(found.precisions)
    if threads is None:
        gpus = ", ".join(gpu.name for gpu in found.machine.gpus) or "a GPU"
        return f"{gpus}, {precisions}"
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    runtimes = " and ".join(f"{name} {version}" for name, version in found.runtimes.items())
    return f"{found.machine.cpu}, {count}, {runtimes}, {precisions}"


def headlines(found: BreakEven) -> Iterator[str]:
    """For each pattern the least sparsity that gains over all sizes together, by tokens."""
    for line in found.lines:
        if line in found.reasons:
            yield f"{line}: 1.0x, nothing here skips it ({found.reasons[line]})"
            continue
        rows = [row for row in found.rows if row.line == line]
        parts = [f"{_first_gain(found, rows, tokens)} at {tokens}" for tokens in found.tokens]
        yield f"{line}: gains {', '.join(parts)} tokens"


def doubts(found: BreakEven) -> Iterator[str]:
    """What makes the numbers worth less."""
    yield from conditions_doubts(found.machine, found.conditions, found.effort.threads)
    if found.device == "cuda":
        yield from (f"of the GPU: {what}" for what in state_doubts(found.looks))
    places = product(found.tokens, found.rows, found.parts)
    sure = [found.gain(tokens, row, part).sure for tokens, row, part in places]
    if not all(sure):
        shown = f"{sure.count(False)} of {len(sure)} products"
        yield f"~ marks gains whose rounds disagree about what is faster: {shown}"


def _first_gain(found: BreakEven, rows: list[Sparse], tokens: int) -> str:
    """The least sparsity from which on all gain, as far as was measured."""
    first = None
    for row in reversed(rows):
        gain = found.gain(tokens, row)
        if gain.ratio <= 1 or not gain.sure:
            break
        first = row
    return "nowhere" if first is None else f"from {100 * first.sparsity:g}%"


def _dense_row(found: BreakEven, row: Sparse, tokens: int, *, whole: bool) -> tuple[str, ...]:
    """Milliseconds of the dense products that a row is compared with."""
    seconds = [found.dense_s(part, tokens, row) for part in found.parts]
    total = sum(s * part.count for s, part in zip(seconds, found.parts, strict=True))
    cells = [*seconds, *([total] if whole else [])]
    return (row.dense, str(tokens), *(f"{milliseconds(s)} ms" for s in cells))


def _gain_row(found: BreakEven, row: Sparse, tokens: int, *, whole: bool) -> tuple[str, ...]:
    """Gains of the sparse ones."""
    gains = [found.gain(tokens, row, part) for part in found.parts]
    gains += [found.gain(tokens, row)] if whole else []
    return (str(row), str(tokens), *(f"{gain}x" for gain in gains))
