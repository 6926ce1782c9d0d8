"""Entrants: models in a comparison on the GPU, artefacts and dense baselines alike.

An entrant knows how it is opened and proven, and what is to be told of it; the run does the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from spd_deploy.benchmark.arms import Arm, facts_of, open_arm
from spd_deploy.benchmark.device.device_records import KernelTrace
from spd_deploy.benchmark.gpu_judge import sparse_kernels
from spd_deploy.benchmark.records import ArmFacts, BenchmarkSettings, ResidentMemory
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.roofline import Work, encoder_work
from spd_deploy.sessions.open import prove
from spd_deploy.sessions.protocol import Description, Session
from spd_deploy.sessions.tensorrt.build_plan import read_plan

# Of the multiplications, what 2:4 kernels do.
_SHARE = 2 / 4
_NUMBER_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}

Weigh = Callable[[Arm, BenchmarkSettings], ResidentMemory | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrant:
    """One model in the comparison.

    Attributes:
        dense: whether it is one of the baselines, of which the fastest counts.
        longest: tokens of the longest text that it reads.
        check: proves its logits and gives how far they are off; raises where they are too far.
        facts: what the report says of it, given how its session ran and how far it was off.
        work: the least work of what ran at a shape, in numbers of so many bytes.
    """

    name: str
    dense: bool
    encoder: Encoder
    longest: int
    open: Callable[[], Session]
    check: Callable[[Session], float]
    facts: Callable[[Description, float], ArmFacts]
    work: Callable[[KernelTrace, int], Work]


def entrant_of(arm: Arm, settings: BenchmarkSettings, *, weigh: Weigh) -> Entrant:
    """An artefact as an entrant; one that is not sparse counts as a dense baseline."""
    manifest = arm.artefact.manifest
    shares = {row.name: row.flops_share for row in manifest.matrices}
    halved = {name: _SHARE * shares[name] for name in two_four_rows(arm)}
    encoder = arm.encoder

    def facts(runtime: Description, parity: float) -> ArmFacts:
        """Weighed where its process can be."""
        return facts_of(arm, runtime, weigh(arm, settings), parity=parity)

    def work(ran: KernelTrace, number_bytes: int) -> Work:
        """Of its kept multiplications; 2:4 kernels leave half of theirs, and half the weights.

        Where some ran, every matrix they take is counted so, which keeps the least time a bound.
        """
        return encoder_work(
            encoder,
            ran.shape,
            shares={**shares, **halved} if sparse_kernels(ran) else shares,
            number_bytes=number_bytes,
            first_only=True,  # so all exports are made (``exporters.onnx.classifier_graph``)
        )

    return Entrant(
        name=arm.name,
        dense=manifest.sparsity is None,
        encoder=encoder,
        longest=min(manifest.max_tokens, encoder.positions),
        open=partial(open_arm, arm, settings),
        check=partial(_proven, arm),
        facts=facts,
        work=work,
    )


def two_four_rows(arm: Arm) -> frozenset[str]:
    """The names of the matrices that 2:4 kernels may run in the arm's runtime."""
    if arm.runtime == "tensorrt":
        plan = read_plan(arm.artefact.folder)
        return frozenset(matrix.name for matrix in plan.matrices if matrix.eligible)
    rows = arm.artefact.manifest.matrices
    return frozenset(row.name for row in rows if row.lowering == "2:4")


def number_bytes(precision: str) -> int | None:
    """Bytes of one number in a precision; None for one that is not known."""
    return _NUMBER_BYTES.get(precision)


def _proven(arm: Arm, session: Session) -> float:
    """By the artefact's golden inputs."""
    return prove(session, arm.artefact)
