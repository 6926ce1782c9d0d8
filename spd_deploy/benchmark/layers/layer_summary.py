"""Sentences on the gain of a matrix and of the whole model."""

from collections.abc import Mapping
from typing import Any

from spd_deploy.benchmark.formatting import milliseconds, percent, ratio
from spd_deploy.benchmark.layers.analysis import Analysis, LayerGain, MatrixGain
from spd_deploy.benchmark.machine_warnings import BUSY_SHARE
from spd_deploy.domain.spelling import listed

# A density that promises less is no sparsity to speak of.
MIN_PROMISE = 1.05
# A promise is kept where no more than this share of it is missing.
_NEAR = 0.9
# A promise is exceeded where the time is less than this share of the promised one.
_BEATEN = 0.98
# Losses below this share of all that was lost are not worth a word.
_WORTH_SAYING = 0.1

_SHORT = {"zeros": "zeros", "rate": "products", "copies": "copies", "passes": "bias"}
LEGEND = (
    "of, promised: the gain if the time were the dense time multiplied by the density",
    "layers: the least and most of a layer, without the last, which runs a token a row",
    "lost to: zeros, multiplied; products, below the dense rate; copied inputs; bias passes",
    "runtime: what operators do not add up to: gaps between them, and waits for other processes",
)


def promise_of(gain: LayerGain) -> str:
    """Speed-up and promise: ``4.1x of 10x``, or ``5.3x, 4x promised`` where it is exceeded."""
    if _untimed(gain):
        return "too short"
    if gain.speed_up is None:
        return "gone"
    if _promises_nothing(gain):
        return f"{ratio(gain.speed_up)}x"
    promised = "all" if gain.promise is None else f"{_round(gain.promise)}x"
    if _beaten(gain):
        return f"{ratio(gain.speed_up)}x, {promised} promised"
    return f"{ratio(gain.speed_up)}x of {promised}"


def lost_to(gain: LayerGain, most: int = 2) -> str:
    """The largest losses in a few characters, such as ``copies 62 %, products 31 %``."""
    if _untimed(gain) or gain.speed_up is None or _promises_nothing(gain):
        return "-"
    if _beaten(gain):
        return "none: faster than promised"
    if _kept(gain):
        return "none: as promised"
    shares = _shares(gain.losses)
    return ", ".join(f"{_SHORT[name]} {percent(shares[name])}" for name in list(shares)[:most])


def verdict_of(matrix: MatrixGain) -> str:
    """A sentence on one matrix: what it gained of what it was promised, and where the rest went."""
    gain, facts = matrix.gain, matrix.facts
    if _untimed(gain):
        return "too short to be timed: measure more rows or tokens"
    if gain.speed_up is None:
        return "nothing of it is left to run"
    if _promises_nothing(gain):
        return f"{ratio(gain.speed_up)}x, and has no zeros that promise more: {facts.reason}"
    if _beaten(gain):
        return f"{promise_of(gain)}: faster than its density promises"
    text = f"{promise_of(gain)} promised"
    if _kept(gain):
        return f"{text}: it keeps its promise"
    parts = [f"{_long(name, gain)} ({percent(s)})" for name, s in _shares(gain.losses).items()]
    why = f"; {facts.reason}" if facts.lowering == "dense" else ""
    return f"{text}, lost to {listed(parts)}{why}"


def statement_of(analysis: Analysis) -> str:
    """Whether the model is faster than its dense baseline, by whole runs, and in what both ran."""
    found = analysis.speed_up
    times = f"{milliseconds(analysis.sparse_s)} ms against {milliseconds(analysis.dense_s)} ms"
    text = (
        f"{times} of its dense baseline at {analysis.shape} in {analysis.where}: "
        f"{found.verdict}, {found.numbers}"
    )
    if analysis.served is None:
        return text
    return f"{text}; it is served with {analysis.served}, which was not profiled"


def explanation_of(analysis: Analysis) -> str:
    """The gain that density promises for the whole model, and the largest losses.

    It ends with a remark where a served batch is not run as these were.
    """
    text = _explained(analysis)
    if not analysis.shared_out:
        return text
    return (
        f"{text}. Operators are timed on whole batches, each split among the threads; a served "
        "batch is shared out among them by the row, so a real run is faster"
    )


def notes_of(analysis: Analysis) -> tuple[str, ...]:
    """The method of the measurement, and caveats."""
    dense, sparse = (f"{1 + added:.2f}x" for added in analysis.profiler)
    count = (
        "threads left to the runtime" if analysis.threads is None else _threads(analysis.threads)
    )
    notes = [
        f"{analysis.where}, {count}; whole runs are timed without the profiler, which makes them "
        f"{dense} and {sparse} as long"
    ]
    if analysis.served is not None:
        notes.append(
            f"operators are timed by ONNX Runtime's profiler alone; spd bench measures whole runs "
            f"of the artefact as it is served, with {analysis.served}"
        )
    if analysis.others_cores > BUSY_SHARE * (analysis.threads or 1):
        notes.append(
            f"caveat: other processes kept {analysis.others_cores:.1f} cores busy; "
            "measure again on an idle machine"
        )
    return tuple(notes)


def analysis_to_json(analysis: Analysis) -> dict[str, Any]:
    """The analysis for programs: seconds, shares, and the sentences."""
    baseline, model = analysis.profiler
    found = analysis.speed_up
    return {
        "arm": analysis.arm,
        "shape": analysis.shape,
        "threads": analysis.threads,
        "measured_in": analysis.where,
        "served": analysis.served,
        "statement": statement_of(analysis),
        "explanation": explanation_of(analysis),
        "dense_s": analysis.dense_s,
        "sparse_s": analysis.sparse_s,
        "promised_s": analysis.promised_s,
        "speed_up": {
            "ratio": found.ratio,
            "low": found.low,
            "high": found.high,
            "verdict": found.verdict,
        },
        "promise": analysis.promise,
        "losses_s": dict(analysis.losses),
        "steps": [
            {"name": step.name, "dense_s": step.dense_s, "sparse_s": step.sparse_s}
            for step in analysis.steps
        ],
        "matrices": [_matrix_to_json(matrix) for matrix in analysis.matrices],
        "profiler_added": {"dense": baseline, "sparse": model},
        "steady": analysis.steady,
        "notes": list(notes_of(analysis)),
    }


def _explained(analysis: Analysis) -> str:
    """The promise, and what became of it."""
    if _promises_nothing(analysis.all_matrices):
        return "Its matrices have no zeros that promise a gain"
    if analysis.promise is None or not analysis.steady:
        return (
            "Its operators add up to more than its runs, so the machine was not steady: what each "
            "part took is not reliable"
        )
    text = (
        "If each matrix were as fast as its density promises, and the rest as in the dense "
        f"baseline, it would be {ratio(analysis.promise)}x"
    )
    if analysis.sparse_s < _BEATEN * analysis.promised_s:
        return f"{text}: it is faster than that"
    if analysis.sparse_s * _NEAR <= analysis.promised_s:
        return f"{text}: it keeps that promise"
    losses = _shares(analysis.losses)
    parts = [
        f"{_long(name, analysis.all_matrices)} ({milliseconds(analysis.losses[name])} ms)"
        for name in list(losses)[:3]
    ]
    return f"{text}; lost most to {listed(parts)}"


def _matrix_to_json(matrix: MatrixGain) -> dict[str, Any]:
    """The times, gain and losses of one matrix, for programs."""
    facts, gain = matrix.facts, matrix.gain
    return {
        "name": facts.name,
        "layer": facts.layer,
        "role": facts.role,
        "pattern": facts.pattern,
        "density": facts.density,
        "flops_share": facts.flops_share,
        "lowering": facts.lowering,
        "dense_s": gain.dense.total_s,
        "sparse_s": gain.sparse.total_s,
        "products_s": gain.sparse.products_s,
        "copies_s": gain.sparse.copies_s,
        "passes_s": gain.sparse.passes_s,
        "speed_up": gain.speed_up,
        "promise": gain.promise,
        "rate": gain.rate,
        "losses_s": dict(gain.losses),
        "verdict": verdict_of(matrix),
    }


def _untimed(gain: LayerGain) -> bool:
    """Whether something was run that took no longer than timing it does."""
    return gain.dense.total_s <= 0 or (gain.sparse.total_s <= 0 and gain.kept_s > 0)


def _promises_nothing(gain: LayerGain) -> bool:
    """Whether the weights are as good as dense."""
    return gain.promise is not None and gain.promise < MIN_PROMISE


def _kept(gain: LayerGain) -> bool:
    """Whether the promise is kept, or as good as."""
    return gain.sparse.total_s * _NEAR <= gain.promised.total_s


def _beaten(gain: LayerGain) -> bool:
    """Whether it is faster than its promise by more than the last digit that is shown."""
    return gain.sparse.total_s < _BEATEN * gain.promised.total_s


def _shares(losses: Mapping[Any, float]) -> dict[str, float]:
    """The losses worth naming, each as a share of all losses, the largest first."""
    lost = {str(name): s for name, s in losses.items() if s > 0}
    whole = sum(lost.values())
    order = sorted(lost, key=lambda name: -lost[name])
    return {name: lost[name] / whole for name in order if lost[name] >= _WORTH_SAYING * whole}


def _long(name: str, gain: LayerGain) -> str:
    """The name of a loss in a sentence."""
    match name:
        case "zeros":
            return "multiplying zeros"
        case "rate":
            rate = "" if gain.rate is None else f" at {percent(gain.rate)} of the dense rate"
            return f"products{rate}"
        case "copies":
            return "copying the kept inputs together"
        case "passes":
            return "passes for bias and residual"
        case "runtime":
            return "the runtime between operators"
        case _:
            return f"{name}, which takes longer than in the dense baseline"


def _threads(count: int) -> str:
    """A number of threads, such as ``1 thread``."""
    return f"{count} thread{'' if count == 1 else 's'}"


def _round(promise: float) -> str:
    """A promise, which density knows to no more than three digits."""
    return f"{promise:.3g}" if promise < 10 else f"{promise:.0f}"
