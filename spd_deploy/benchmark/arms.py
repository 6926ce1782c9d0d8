"""Arms of a comparison: the value that the run, the judge and the report share, and its batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spd_deploy.benchmark.device.device_records import KernelTrace
from spd_deploy.benchmark.records import ArmFacts, BenchmarkSettings, Shape
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.roofline import Work
from spd_deploy.domain.runtime_choice import Runtime, RuntimeChoice
from spd_deploy.domain.shapes import random_batch
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.protocol import Description, Session

# The runtime and precision that the artefact itself names.
AUTO = RuntimeChoice()


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmSource:
    """The artefact behind an arm, the arm's name, and the runtime and precision it is run in."""

    name: str
    artefact: Artefact
    runtime_choice: RuntimeChoice = AUTO

    @property
    def encoder(self) -> Encoder:
        """The sizes of its model."""
        return self.artefact.encoder

    @property
    def runtime(self) -> Runtime:
        """The runtime that was requested, else the artefact's own."""
        return self.runtime_choice.runtime or self.artefact.manifest.runtime

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text that it reads."""
        return min(self.artefact.manifest.max_tokens, self.encoder.positions)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One model in a comparison, on a CPU and on a GPU alike.

    Attributes:
        name: unique among the arms of a report.
        dense: whether nothing in it is sparse, so that it may serve as a baseline.
        max_tokens: tokens of the longest text that it reads.
        open: opens a session on the device and threads of the settings.
        check: returns how far a session's logits are from the model's; raises where too far.
        facts: what the report says of it, given how its session ran and the result of ``check``.
        work: the least work of what ran at a shape, in numbers of so many bytes.
        source: its artefact; None where it has none.
    """

    name: str
    dense: bool
    encoder: Encoder
    max_tokens: int
    open: Callable[[BenchmarkSettings], Session]
    check: Callable[[Session], float]
    facts: Callable[[Description, float], ArmFacts]
    work: Callable[[KernelTrace, int], Work]
    source: ArmSource | None = None


def batches_for(arms: Sequence[Arm], settings: BenchmarkSettings) -> dict[Shape, Batch]:
    """Random token ids for each shape, the same for all arms; every token is real.

    Raises:
        BadArtefact: a shape is longer than some arm reads.
    """
    refuse_long(arms, settings)
    vocabulary = min(arm.encoder.vocabulary for arm in arms)
    random = np.random.default_rng(settings.seed)
    return {shape: random_batch(shape, vocabulary, random) for shape in settings.shapes}


def refuse_long(arms: Sequence[Arm | ArmSource], settings: BenchmarkSettings) -> None:
    """Refuse shapes that no served text would ever have.

    Raises:
        BadArtefact: a shape is longer than some arm reads.
    """
    longest = max(shape.seq for shape in settings.shapes)
    for arm in arms:
        if longest > arm.max_tokens:
            raise BadArtefact(
                f"{arm.name} cuts its texts at {arm.max_tokens} tokens",
                got=f"sequences of {longest}",
                fix=f"measure --seq {arm.max_tokens} or less",
            )
