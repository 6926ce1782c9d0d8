"""Headlines: the result of each arm in a sentence, and why it is not faster.

The sentences are made from the judgement and from the reasons that the exporter wrote into the
manifest. None is a constant claim.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spd_deploy.benchmark.formatting import milliseconds, percent, ratio
from spd_deploy.benchmark.judge import Judgement, compare, round_samples_of
from spd_deploy.benchmark.proof import unproven
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.rows import LatencyRow
from spd_deploy.benchmark.steadiness import unsteady
from spd_deploy.domain.spelling import listed
from spd_deploy.timing.speed_up import LEVEL, SpeedUp

# An interval that ends above this does not rule out a gain that someone would want.
WORTH_HAVING = 1.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The result of one arm.

    Attributes:
        statement: the ratio with its interval, or that no difference is shown.
        why: why it is not faster, where it is not.
        scope: what the ratio holds besides sparsity, where precision or runtime differ.
        unsteady: why the numbers are not reliable; None where the runs were steady.
    """

    statement: str
    why: str | None = None
    scope: str | None = None
    unsteady: str | None = None

    def __str__(self) -> str:
        """The headline in one line."""
        parts = [
            self.statement,
            self.scope,
            self.unsteady and f"Not steady: {self.unsteady}; measure again on an idle machine.",
            self.why and f"Why: {self.why}.",
        ]
        return " ".join(part for part in parts if part)


def headlines(report: Report, judgement: Judgement) -> tuple[Headline, ...]:
    """One for each arm but the baseline; for all arms where there is none."""
    return tuple(_headline(report, judgement, arm) for arm in report.others or report.arms)


def leading(report: Report, judgement: Judgement) -> int:
    """Which headline is the page's claim: that of the arm with the surest gain.

    It is the arm whose least gain over all shapes, by the lower ends of the intervals, is largest.
    """
    if report.baseline is None:
        return 0
    least = [
        min(row.speed_up.low if row.speed_up else 0.0 for row in judgement.of(arm.name))
        for arm in report.others
    ]
    return least.index(max(least)) if least else 0


def kind_of(arm: ArmFacts) -> str:
    """The kind of an arm, such as ``2:4 at 50 %`` or ``dense, int8``."""
    if arm.pattern is None or arm.sparsity is None:
        kind = "dense"
    else:
        kind = f"{arm.pattern} at {100 * arm.sparsity:.3g} %"
    return kind if arm.precision == "fp32" else f"{kind}, {arm.precision}"


def runtimes_of(report: Report) -> str:
    """The runtimes that ran the arms, each once, such as ``onnxruntime 1.32.0``."""
    return ", ".join(dict.fromkeys(f"{a.runtime.runtime} {a.runtime.version}" for a in report.arms))


def why_not_faster(arm: ArmFacts, rows: Sequence[LatencyRow]) -> str:
    """Why no shape got faster: the manifest's reasons, unsteady runs, or the rest of the work.

    Matrices that run dense cannot be faster however steady the runs are, so that comes first. A
    runtime that may choose sparse kernels is asked about after its kernels were seen to run.
    """
    if not arm.lowered:
        return "its manifest does not say how its matrices are run"
    dense = "; ".join(
        f"{_of(group.matrices, arm.matrices)} run dense: {group.reason}"
        for group in arm.lowered
        if group.lowering == "dense"
    )
    if arm.runs_dense and not arm.left_to_runtime:
        return dense
    unclear = [row.speed_up for row in rows if row.speed_up and _unclear(row.speed_up)]
    if unclear:
        low, high = min(s.low for s in unclear), max(s.high for s in unclear)
        return (
            f"the runs are too unsteady to tell, with intervals from {low:.2f}x to {high:.2f}x; "
            "measure longer, on an idle machine"
        )
    rest = "the rest of the time is attention, element-wise work, and products too small to gain"
    if arm.runs_dense:
        return f"its sparse kernels ran, and {rest}"
    left = f"its matrices do {percent(arm.flops_share)} of the dense multiplications, and {rest}"
    return f"{left}; {dense}" if dense else left


def _headline(report: Report, judgement: Judgement, arm: ArmFacts) -> Headline:
    """The headline of one arm."""
    rows = judgement.of(arm.name)
    who = f"{arm.name} ({kind_of(arm)})"
    where = "this CPU" if report.settings.device == "cpu" else "this GPU"
    if report.baseline is None:
        medians = ", ".join(f"{milliseconds(r.p50.value)} ms at {r.shape}" for r in rows)
        return Headline(
            statement=f"{who}: {medians} on {where}. Without a baseline no speed-up is claimed."
        )
    faster = any(row.speed_up and row.speed_up.verdict == "faster" for row in rows)
    against = report.against or report.baseline
    bases = dict.fromkeys(row.against for row in rows if row.against is not None)
    return Headline(
        statement=f"{who}: {_outcome(rows, against)} on {where}.",
        why=None if faster or arm.pattern is None else _why(report, arm, rows),
        scope=_scope(report, judgement, arm),
        unsteady=unsteady(report, [arm.name, *bases]),
    )


def _scope(report: Report, judgement: Judgement, arm: ArmFacts) -> str | None:
    """The gain of sparsity alone, where the ratio also holds another precision or runtime."""
    if len(report.baselines) != 1 or arm.pattern is None:
        return None
    base = report.arm(report.baselines[0])
    mixed = [
        step
        for step, differs in (
            (f"{base.precision} to {arm.precision}", base.precision != arm.precision),
            (
                f"{base.runtime.runtime} to {arm.runtime.runtime}",
                base.runtime.runtime != arm.runtime.runtime,
            ),
        )
        if differs
    ]
    if not mixed:
        return None
    step = f"That includes the step from {' and from '.join(mixed)}"
    dense = next((other for other in report.others if _dense_like(other, arm)), None)
    if dense is None:
        return f"{step}; no dense arm like it was measured to tell what sparsity alone gains."
    pair = (dense.name, arm.name)
    gains = [
        compare(*(round_samples_of(report, name, report.rounds(name, shape)) for name in pair))
        for shape in report.settings.shapes
    ]
    return f"{step}; sparsity alone, over {dense.name}: {_span(gains)} ({_interval(gains)})."


def _dense_like(other: ArmFacts, arm: ArmFacts) -> bool:
    """Whether an arm is the dense one that differs from ``arm`` in sparsity alone."""
    same = (other.precision, other.runtime.runtime, other.sizes)
    return other.pattern is None and same == (arm.precision, arm.runtime.runtime, arm.sizes)


def _span(found: Sequence[SpeedUp]) -> str:
    """The ratios from the least to the most, such as ``2.1 to 3.4x``."""
    low, high = ratio(min(s.ratio for s in found)), ratio(max(s.ratio for s in found))
    return f"{high}x" if low == high else f"{low} to {high}x"


def _interval(found: Sequence[SpeedUp]) -> str:
    """From the lowest end of their intervals to the highest."""
    low, high = min(s.low for s in found), max(s.high for s in found)
    digits = 1 if high - low >= 0.1 and low >= 1 else 2
    several = "s" if len(found) > 1 else ""
    return f"{100 * LEVEL:.0f} % interval{several} {low:.{digits}f} to {high:.{digits}f}"


def _why(report: Report, arm: ArmFacts, rows: Sequence[LatencyRow]) -> str:
    """Why it may not be called faster: a gain without proof comes before the lack of a gain.

    A shape that gained nothing needs no proof. The lack of one is reported where no shape has any.
    """
    reasons = {row.shape: why for row in rows if (why := unproven(report, arm.name, row.shape))}
    gained = [row.shape for row in rows if row.speed_up and row.speed_up.verdict == "unproven"]
    shapes = gained or (list(reasons) if len(reasons) == len(rows) else [])
    if not shapes:
        return why_not_faster(arm, rows)
    distinct = list(dict.fromkeys(reasons[shape] for shape in shapes))
    if len(distinct) == 1:
        return distinct[0]
    at = {why: [shape for shape in shapes if reasons[shape] == why] for why in distinct}
    return "; ".join(f"{why} at {listed(there)}" for why, there in at.items())


def _outcome(rows: Sequence[LatencyRow], baseline: str) -> str:
    """The verdicts of all shapes in a phrase, the fast ones first."""
    verdicts = ("faster", "slower", "unproven")
    parts = [part for verdict in verdicts for part in _part(rows, verdict, baseline)]
    still = [row.shape for row in rows if row.speed_up and not _moved(row.speed_up)]
    if len(still) == len(rows):
        return f"no speed-up over {baseline} shown"
    return "; ".join([*parts, *([f"no difference shown at {listed(still)}"] if still else [])])


def _part(rows: Sequence[LatencyRow], verdict: str, baseline: str) -> Iterator[str]:
    """The shapes that got one verdict, with the range of their ratios."""
    found = [row for row in rows if row.speed_up and row.speed_up.verdict == verdict]
    if not found:
        return
    ratios = [row.speed_up for row in found if row.speed_up]
    shapes = "" if len(found) == len(rows) else f" at {listed([row.shape for row in found])}"
    how = "faster than" if verdict == "faster" else "the speed of"
    but = ", which is not proven to come from sparsity" if verdict == "unproven" else ""
    yield f"{_span(ratios)} {how} {baseline}{shapes} ({_interval(ratios)}){but}"


def _unclear(speed_up: SpeedUp) -> bool:
    """Whether the interval leaves room for a gain worth having."""
    return not _moved(speed_up) and speed_up.high > WORTH_HAVING


def _moved(speed_up: SpeedUp) -> bool:
    """Whether a difference is shown."""
    return speed_up.verdict != "no difference shown"


def _of(part: int, whole: int) -> str:
    """A part of the matrices, such as ``all 72 matrices`` or ``8 of 72 matrices``."""
    return f"all {whole} matrices" if part == whole else f"{part} of {whole} matrices"
