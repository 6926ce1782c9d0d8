"""Whether a gain may be called one of sparsity: what that needs, and what was seen.

The word "faster" is withheld from a sparse arm on a GPU in which nothing skipped a zero. Matrices
that run ``compact`` are smaller dense ones, and ``gathered`` ones are standard operators over the
kept inputs: both leave zeros out by construction. Any other lowering needs a kernel that skips
zeros. It must be among those that the session knows, or among those that were traced. The same
holds for ``dense`` lowerings where the runtime chooses its kernels, as TensorRT does. Kernels are
chosen for each shape, so each shape has its own proof.
"""

import re

from spd_deploy.benchmark.device.device_records import KernelTrace
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.domain.shapes import Shape

# Lowerings that need no kernel of their own to leave zeros out.
_BY_CONSTRUCTION = frozenset({"dense", "compact", "gathered"})
_SPARSE_NAME = re.compile(r"sparse|sptensor|spmma|_sp_", re.IGNORECASE)


def unproven(report: Report, name: str, shape: Shape) -> str | None:
    """Why a gain of this arm at a shape may not be called one of sparsity; None where it may."""
    if report.device is None:
        return None
    return why_unproven(report.arm(name), report.device.arm(name).trace_at(shape))


def why_unproven(facts: ArmFacts, trace: KernelTrace) -> str | None:
    """The same, from the facts of an arm and the trace of what it ran."""
    if facts.sparsity is None:
        return None
    lowerings = {part for group in facts.lowered for part in re.split(r",\s*", group.lowering)}
    if facts.runs_dense and not facts.left_to_runtime:
        return "no sparse kernel ran: all its matrices run dense"
    if lowerings <= _BY_CONSTRUCTION and not facts.runs_dense:
        return None
    if sparse_kernels(trace):
        return None
    if trace.sparse_kernels is not None:
        return f"no sparse kernel ran: {facts.runtime.runtime} chose dense kernels"
    if trace.kernels is None:
        return "it is not known which kernels ran"
    return f"no sparse kernel is among the {len(trace.kernels)} kernels that ran"


def sparse_kernels(trace: KernelTrace) -> tuple[str, ...]:
    """The kernels that skip zeros: those the session knows, else traced ones with such names."""
    traced = tuple(k.name for k in trace.kernels or () if _SPARSE_NAME.search(k.name))
    return trace.sparse_kernels or traced
