"""The map as text: one table, where each pattern pays, and what to start with."""

from collections.abc import Iterator

from spd_deploy.benchmark.breakeven.map_records import BreakEvenMap
from spd_deploy.benchmark.breakeven.ranking import (
    Advice,
    MapEntry,
    advice_of,
    dense_entries,
    fastest_dense,
    pays_from,
    reference_of,
    sparse_entries,
    unskipped,
)
from spd_deploy.benchmark.formatting import milliseconds, ratio
from spd_deploy.benchmark.machine_warnings import load_caveats, state_caveats
from spd_deploy.benchmark.tables import Table
from spd_deploy.domain.spelling import counted


def map_table(found: BreakEvenMap) -> Table:
    """A row for each dense form and each pattern; at each length a time and one ratio."""
    reference = reference_of(found)
    columns = ["", *(name for n in found.tokens for name in (f"{n} tokens", "x"))]
    rows = [
        (entry.name, *(cell for n in found.tokens for cell in _cells(entry, reference, n)))
        for entry in (*dense_entries(found), *sparse_entries(found))
    ]
    title = f"Products of {matrices_text(found)}: time, and times as fast as {reference.name}"
    return Table(title=title, columns=tuple(columns), rows=tuple(rows))


def matrices_text(found: BreakEvenMap) -> str:
    """The matrices of the map, such as ``a layer of base (4 x 768x768, 3072x768)``."""
    sizes = ", ".join(f"{p.count} x {p}" if p.count > 1 else str(p) for p in found.parts)
    return sizes if found.model is None else f"a layer of {found.model} ({sizes})"


def machine_text(found: BreakEvenMap) -> str:
    """Such as ``AMD EPYC, 2 threads, onnxruntime 1.32.0, fp32``, or ``NVIDIA H100, fp16``."""
    threads = found.settings.threads
    precisions = " and ".join(found.precisions)
    if threads is None:
        gpus = ", ".join(gpu.name for gpu in found.machine.gpus) or "a GPU"
        return f"{gpus}, {precisions}"
    runtimes = " and ".join(f"{name} {version}" for name, version in found.runtimes.items())
    return f"{found.machine.cpu}, {counted(threads, 'thread')}, {runtimes}, {precisions}"


def advice_lines(found: BreakEvenMap) -> Iterator[str]:
    """The advice for this machine: what to start with, its gain, and the command that trains it."""
    advice, reference = advice_of(found), reference_of(found)
    first = advice.first
    over = _span(found, first, reference)
    if first.dense:
        same = "" if first.name == reference.name else f" ({over})"
        yield (
            f"On this machine, start with {first.name}{same}: no pattern measured here is faster "
            "at every length."
        )
        return
    dense = " or ".join(dict.fromkeys(fastest_dense(found, tokens).name for tokens in found.tokens))
    gains = [first.gain_over(fastest_dense(found, n), n).ratio for n in found.tokens]
    yield (
        f"On this machine, start with {first.name}: {over}, and "
        f"{_spelled(gains)} as fast as the fastest dense form ({dense})."
    )
    yield from _more(found, advice, reference)
    if any(load_caveats(found.machine, found.conditions, found.settings.threads)):
        yield "The machine was not idle: measure again before you rely on this."
    row = first.row
    yield f"next: spd train --pattern {row.pattern} --sparsity {row.sparsity:g} ..."


def breakeven_lines(found: BreakEvenMap) -> Iterator[str]:
    """For each pattern the least sparsity that beats the fastest dense form, by tokens."""
    never = dict(unskipped(found))
    for pattern in dict.fromkeys(row.pattern for row in found.rows):
        if pattern in never:
            yield f"{pattern}: nothing here skips its zeros ({never[pattern]})"
            continue
        least = {tokens: pays_from(found, pattern, tokens) for tokens in found.tokens}
        parts = [
            f"{'nowhere' if s is None else f'from {100 * s:g}%'} at {tokens}"
            for tokens, s in least.items()
        ]
        yield f"{pattern}: faster than every dense form {', '.join(parts)} tokens"


def map_caveats(found: BreakEvenMap) -> Iterator[str]:
    """Reasons not to trust the times of the map."""
    yield from load_caveats(found.machine, found.conditions, found.settings.threads)
    if found.device == "cuda":
        yield from (f"of the GPU: {what}" for what in state_caveats(found.states))
    reference = reference_of(found)
    sure = [
        entry.gain_over(reference, tokens).sure
        for entry in (*dense_entries(found), *sparse_entries(found))
        for tokens in found.tokens
        if entry.name != reference.name
    ]
    if not all(sure):
        shown = f"{sure.count(False)} of {len(sure)} ratios"
        yield f"~ marks ratios whose rounds disagree about what is faster: {shown}"


def _cells(entry: MapEntry, reference: MapEntry, tokens: int) -> tuple[str, str]:
    """The time, and how many times as fast as the reference."""
    return f"{milliseconds(entry.seconds(tokens))} ms", f"{entry.gain_over(reference, tokens)}x"


def _more(found: BreakEvenMap, advice: Advice, reference: MapEntry) -> Iterator[str]:
    """The gains of higher sparsities of the same pattern."""
    if advice.denser:
        each = (
            f"at {100 * entry.row.sparsity:g}% {_spelled(_ratios(found, entry, reference))}"
            for entry in advice.denser
        )
        yield (
            f"More zeros gain more: {', '.join(each)} as fast as {reference.name}. "
            "Only training shows their cost in accuracy."
        )


def _span(found: BreakEvenMap, entry: MapEntry, other: MapEntry) -> str:
    """Such as ``2.1 to 3.4 times as fast as dense, onnxruntime, fp32``."""
    return f"{_spelled(_ratios(found, entry, other))} as fast as {other.name}"


def _ratios(found: BreakEvenMap, entry: MapEntry, other: MapEntry) -> list[float]:
    """The ratio of two entries at each number of tokens."""
    return [entry.gain_over(other, tokens).ratio for tokens in found.tokens]


def _spelled(ratios: list[float]) -> str:
    """From the least to the most, such as ``2.1 to 3.4 times``."""
    low, high = ratio(min(ratios)), ratio(max(ratios))
    return f"{high if low == high else f'{low} to {high}'} times"
