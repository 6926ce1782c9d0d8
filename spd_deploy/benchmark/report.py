"""The report: every sample, the machine, the settings and the arms, as versioned JSON.

Tables, plots and pages are rendered from it and from nothing else. What is derived (percentiles,
speed-ups, doubts) is written beside it for programs to read, and computed anew when a report is
read back.

History of the schema:
    1   the first; ``layers`` came later, and a report without it was not profiled; so did ``gpu``,
        without which it was not measured on a GPU, or by the host's clock alone (what an arm of it
        ran was told of the largest shape alone before any report was published); so did
        ``unprofiled``, and the runtime of a profile, which before was ONNX Runtime in fp32 too.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from spd_deploy.benchmark.device.device_records import DevicePart
from spd_deploy.benchmark.layers.layer_records import LayerProfile
from spd_deploy.benchmark.records import ArmFacts, BenchmarkSettings, Series, Shape
from spd_deploy.benchmark.stats import median
from spd_deploy.domain.documents import text_of, versioned
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.files import read_json
from spd_deploy.machine.facts import Machine
from spd_deploy.timing.machine_load import Conditions

SCHEMA = 1
DERIVED = "judgement"
_AGAIN = "measure again with: spd bench"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One benchmark run.

    Attributes:
        baseline: names the arm that the others are compared with; where there are several dense
            arms, as on a GPU, it is the first of them, and each shape is compared with its fastest.
        layers: what the operators of sparse arms and their dense twins took, where asked for.
        unprofiled: the sparse arms that were left out of that, with the reason.
        gpu: what the GPU's own clock and state add.
    """

    created: str
    machine: Machine
    settings: BenchmarkSettings
    conditions: Conditions
    baseline: str | None
    arms: tuple[ArmFacts, ...]
    series: tuple[Series, ...]
    layers: tuple[LayerProfile, ...] = ()
    gpu: DevicePart | None = None
    unprofiled: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Arms have names of their own, and each has one series a shape and round."""
        names = [arm.name for arm in self.arms]
        wanted = sorted(product(names, self.settings.shapes, range(self.settings.rounds)))
        found = sorted((s.arm, s.shape, s.round) for s in self.series)
        if not names or len(set(names)) < len(names) or found != wanted:
            raise BadReport("the report's arms and series do not fit together", fix=_AGAIN)
        if not {profile.arm for profile in self.layers} | set(self.unprofiled) <= set(names):
            raise BadReport("the report lacks an arm that was profiled or left out", fix=_AGAIN)
        if self.baseline is not None and self.baseline not in names:
            raise BadReport("the report lacks its baseline", got=self.baseline, fix=_AGAIN)
        if self.gpu is not None and [arm.name for arm in self.gpu.arms] != names:
            raise BadReport("the report's arms are not those of its GPU's part", fix=_AGAIN)
        for arm in self.gpu.arms if self.gpu is not None else ():
            if [one.shape for one in arm.ran] != list(self.settings.shapes):
                raise BadReport(
                    f"what {arm.name} ran is not told for each shape of the report", fix=_AGAIN
                )

    def arm(self, name: str) -> ArmFacts:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def others(self) -> tuple[ArmFacts, ...]:
        """The arms that are neither the baseline nor, on a GPU, another dense arm."""
        return tuple(arm for arm in self.arms if arm.name not in (self.baseline, *self.dense))

    @property
    def dense(self) -> tuple[str, ...]:
        """The dense arms that the baseline is chosen from; none where it was named."""
        return self.gpu.dense if self.gpu is not None and self.baseline is not None else ()

    @property
    def against(self) -> str | None:
        """What the others are compared with, in words."""
        return "the fastest dense arm" if len(self.dense) > 1 else self.baseline

    def baseline_at(self, shape: Shape) -> str | None:
        """The arm that is compared with at a shape: the fastest dense one by the host's clock.

        It is chosen by the very samples it is compared with, which favours it if anything.
        """
        if not self.dense:
            return self.baseline
        return min(self.dense, key=lambda arm: median(self.rounds(arm, shape)))

    @property
    def profiled(self) -> tuple[str, ...]:
        """The names of the arms that were profiled."""
        return tuple(dict.fromkeys(profile.arm for profile in self.layers))

    def rounds(self, arm: str, shape: Shape) -> tuple[tuple[float, ...], ...]:
        """The samples of one arm at one shape, a tuple a round."""
        found = [s for s in self.series if (s.arm, s.shape) == (arm, shape)]
        return tuple(s.seconds for s in sorted(found, key=lambda s: s.round))


def text_from_report(report: Report, derived: Mapping[str, Any]) -> str:
    """The JSON document: the report, with ``derived`` beside it; a list of numbers on one line."""
    value = {"schema": SCHEMA, **asdict(report), DERIVED: dict(derived)}
    return text_of(value)


def read_report(file: Path) -> Report:
    """Read what :func:`text_from_report` wrote.

    Raises:
        BadReport: no such file, another schema, or a value missing or of the wrong kind.
    """
    value = read_json(file, error=BadReport, fix=_AGAIN)
    own = {name: part for name, part in value.items() if name != DERIVED}
    other = f"use the version of spd that wrote it; this one reads schema {SCHEMA}"
    return versioned(Report, own, SCHEMA, what=file, error=BadReport, fix=_AGAIN, other=other)
