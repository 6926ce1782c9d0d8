"""The report: every sample, the machine, the settings and the arms, as versioned JSON.

Tables, plots and pages are rendered from it and from nothing else. Percentiles, speed-ups and
caveats are written beside it for programs to read, and computed again when a report is read back.

History of the schema:
    1   the first. ``layers``, ``gpu`` and ``unprofiled`` were added later and were optional.
    2   one report for CPU and GPU. ``baselines`` lists every arm that others are compared with,
        in place of ``baseline`` and of ``dense`` in each arm of the GPU; ``device`` was ``gpu``;
        ``skipped`` was ``gpu.absent``; ``traces``, ``described``, ``untimed`` and ``memory_copy``
        were ``ran``, ``said``, a text and ``copied``. ``http`` was added later and is optional.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from spd_deploy.benchmark.device.device_records import DevicePart
from spd_deploy.benchmark.http.http_records import HttpPart
from spd_deploy.benchmark.layers.layer_records import LayerProfile
from spd_deploy.benchmark.records import ArmFacts, BenchmarkSettings, Series, Shape, Skipped
from spd_deploy.domain.documents import text_of, versioned
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.files import read_json
from spd_deploy.machine.facts import Machine
from spd_deploy.timing.machine_load import Conditions

SCHEMA = 2
DERIVED = "judgement"
_AGAIN = "measure again with: spd bench"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The samples, arms, machine and settings of one benchmark run.

    Attributes:
        baselines: names of the arms that the others are compared with; each shape is compared with
            the fastest of them. Empty where nothing is compared.
        layers: times of the operators of sparse arms and their dense baselines, where asked for.
        device: what the GPU's own clock and state add; None for a CPU.
        unprofiled: the sparse arms that were left out of ``layers``, with the reason.
        skipped: what was not measured, with the reason.
        http: what the arms do behind HTTP, where asked for.
    """

    created: str
    machine: Machine
    settings: BenchmarkSettings
    conditions: Conditions
    baselines: tuple[str, ...]
    arms: tuple[ArmFacts, ...]
    series: tuple[Series, ...]
    layers: tuple[LayerProfile, ...] = ()
    device: DevicePart | None = None
    unprofiled: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    http: HttpPart | None = None

    def __post_init__(self) -> None:
        """Arms have names of their own, and each has one series a shape and round."""
        names = [arm.name for arm in self.arms]
        wanted = sorted(product(names, self.settings.shapes, range(self.settings.rounds)))
        found = sorted((s.arm, s.shape, s.round) for s in self.series)
        if not names or len(set(names)) < len(names) or found != wanted:
            raise BadReport("the report's arms and series do not fit together", fix=_AGAIN)
        if not {profile.arm for profile in self.layers} | set(self.unprofiled) <= set(names):
            raise BadReport("the report lacks an arm that was profiled or left out", fix=_AGAIN)
        if lost := [name for name in self.baselines if name not in names]:
            raise BadReport("the report lacks a baseline", got=lost[0], fix=_AGAIN)
        if self.device is not None and [arm.name for arm in self.device.arms] != names:
            raise BadReport("the report's arms are not those of its device part", fix=_AGAIN)
        if self.http is not None and {one.arm for one in self.http.loads} != set(names):
            raise BadReport("the report's arms are not those of its HTTP part", fix=_AGAIN)
        for arm in self.device.arms if self.device is not None else ():
            if [one.shape for one in arm.traces] != list(self.settings.shapes):
                raise BadReport(f"{arm.name} lacks the kernels of some shape", fix=_AGAIN)

    def arm(self, name: str) -> ArmFacts:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def baseline(self) -> str | None:
        """The first of the baselines; None where nothing is compared."""
        return self.baselines[0] if self.baselines else None

    @property
    def others(self) -> tuple[ArmFacts, ...]:
        """The arms that are no baselines."""
        return tuple(arm for arm in self.arms if arm.name not in self.baselines)

    @property
    def against(self) -> str | None:
        """The name of what the others are compared with, for a sentence."""
        return "the fastest dense arm" if len(self.baselines) > 1 else self.baseline

    @property
    def profiled(self) -> tuple[str, ...]:
        """The names of the arms that were profiled."""
        return tuple(dict.fromkeys(profile.arm for profile in self.layers))

    def rounds(self, arm: str, shape: Shape) -> tuple[tuple[float, ...], ...]:
        """The samples of one arm at one shape by the host's clock, a tuple a round."""
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
