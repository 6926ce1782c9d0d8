"""The latency table of a machine: seconds of each part of an encoder layer, by what it keeps.

A network's latency is predicted as a base, which nothing saves, plus for each layer the seconds of
its attention with so many heads and of its feed-forward part with so many neurons (ZipLM, Kurtic
et al. 2023, section 3.2). The last layer has times of its own: exports compute it for the first
token alone.

Where a table has several shapes:

    speedup     geometric mean over the shapes of dense seconds by seconds, as in a tuning
    seconds     geometric mean over the shapes; speedup = seconds of dense / seconds
    share       mean over the shapes of seconds by dense seconds. It is a sum over parts, which an
                allocation needs, and it never promises too much: 1 / share <= speedup

History of the schema:
    1   the first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any, Self

from spd_deploy.domain.documents import text_of, versioned
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadReport, BadSetting
from spd_deploy.domain.files import read_json, write_text
from spd_deploy.domain.part_times import (
    MEASURE_AGAIN,
    PartTimes,
    ShapeTimes,
    TimedStructures,
    settled,
    undisturbed,
)
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.spelling import counted
from spd_deploy.domain.structures import Structures

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSizes:
    """The sizes of an encoder that the time of its layers depends on."""

    layers: int
    hidden: int
    heads: int
    intermediate: int

    def __post_init__(self) -> None:
        """Sizes of at least 1, and heads that divide the hidden size."""
        sizes = (self.layers, self.hidden, self.heads, self.intermediate)
        if min(sizes) < 1 or self.hidden % self.heads:
            raise BadReport("sizes of no encoder", got=self, fix=MEASURE_AGAIN)

    @classmethod
    def of(cls, encoder: Encoder) -> Self:
        """The sizes of an encoder."""
        return cls(
            layers=encoder.layers,
            hidden=encoder.hidden,
            heads=encoder.heads,
            intermediate=encoder.intermediate,
        )

    def __str__(self) -> str:
        """Such as ``6 layers of 384, 12 heads, 1536 neurons``."""
        layers = counted(self.layers, "layer")
        return f"{layers} of {self.hidden}, {self.heads} heads, {self.intermediate} neurons"


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyTable:
    """The times of an encoder's parts on a machine, in one runtime and precision.

    Attributes:
        machine: the name of the processor, as in a tuning.
        precision: in which the runtime computes: fp32, int8, bf16 or int8+bf16.
        times: one for each shape.
        networks: the networks whose times the table is fitted to.
        checks: others, of unlike layers, that were timed beside them to check the prediction.
        doubts: reasons not to trust the times, such as other work on the machine.
    """

    machine: str
    runtime: CpuRuntime
    precision: str
    threads: int
    sizes: EncoderSizes
    times: tuple[ShapeTimes, ...]
    networks: tuple[TimedStructures, ...] = ()
    checks: tuple[TimedStructures, ...] = ()
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """There are shapes, each once; every part has times up to all that the encoder has."""
        ends = {
            (part.attention.kept[-1], part.feed_forward.kept[-1])
            for times in self.times
            for part in (times.inner, times.last)
        }
        apart = len(set(self.shapes)) == len(self.shapes)
        timed = {len(one.seconds) for one in (*self.networks, *self.checks)} <= {len(self.times)}
        if ends != {(self.sizes.heads, self.sizes.intermediate)} or not apart or not timed:
            raise BadReport("the table's times do not fit its sizes and shapes", fix=MEASURE_AGAIN)
        if self.threads < 1:
            raise BadReport("a table of no threads", got=self.threads, fix=MEASURE_AGAIN)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes that it has times at."""
        return tuple(times.shape for times in self.times)

    @property
    def where(self) -> str:
        """Such as ``AMD EPYC, 2 threads, onnxruntime, fp32``."""
        return (
            f"{self.machine}, {counted(self.threads, 'thread')}, {self.runtime}, {self.precision}"
        )

    @property
    def dense(self) -> Structures:
        """The structures of the dense model."""
        return self._all(self.sizes.heads, self.sizes.intermediate)

    def seconds(self, structures: Structures) -> float:
        """Predicted seconds: the geometric mean over the shapes."""
        self._refuse_other_depth(structures)
        return geometric_mean(times.seconds(structures) for times in self.times)

    def speedup(self, structures: Structures) -> float:
        """How many times as fast as dense: the geometric mean over the shapes."""
        return self.seconds(self.dense) / self.seconds(structures)

    @property
    def fastest_speedup(self) -> float:
        """The speed-up of the network that keeps no head and no neuron."""
        return self.speedup(self._all(0, 0))

    def share(self, structures: Structures) -> float:
        """The share of the dense time that is left, as a sum of the three shares below."""
        self._refuse_other_depth(structures)
        return self.base_share + sum(
            self.attention_share(i, heads) + self.feed_forward_share(i, neurons)
            for i, (heads, neurons) in enumerate(structures.layers())
        )

    @property
    def base_share(self) -> float:
        """The share of the dense time that no pruning saves."""
        return fmean(times.base_s / times.seconds(self.dense) for times in self.times)

    def attention_share(self, layer: int, heads: int) -> float:
        """The share of the dense time that a layer's attention with ``heads`` heads takes."""
        return fmean(
            times.layer(layer, self.sizes.layers).attention.at(heads) / times.seconds(self.dense)
            for times in self.times
        )

    def feed_forward_share(self, layer: int, neurons: int) -> float:
        """The share of the dense time that a layer's feed-forward part takes."""
        return fmean(
            times.layer(layer, self.sizes.layers).feed_forward.at(neurons)
            / times.seconds(self.dense)
            for times in self.times
        )

    def head_steps(self) -> tuple[int, ...]:
        """Numbers of heads worth keeping: more would cost more at some shape."""
        return _united(times.inner.attention for times in self.times)

    def neuron_steps(self) -> tuple[int, ...]:
        """Numbers of neurons worth keeping: more would cost more at some shape."""
        return _united(times.inner.feed_forward for times in self.times)

    @property
    def unsettled(self) -> int:
        """How many of the timed networks gave no time twice, as on a machine with other work."""
        timed = (*self.networks, *self.checks)
        return sum(not all(map(settled, network.seconds)) for network in timed)

    def errors(self) -> tuple[float, ...]:
        """The relative error of the prediction, for each check at each shape."""
        return tuple(
            abs(times.seconds(network.structures) / undisturbed(rounds) - 1)
            for network in self.checks
            for times, rounds in zip(self.times, network.seconds, strict=True)
        )

    def refuse_misfit(
        self,
        *,
        machine: str,
        runtime: str,
        precision: str,
        shapes: tuple[Shape, ...],
        cores: int,
        sizes: EncoderSizes,
        any_machine: bool = False,
    ) -> None:
        """Refuse a table that was measured for something else.

        Args:
            machine: the name of this machine.
            runtime: what will run the model.
            precision: in which it will run.
            shapes: of the batches.
            cores: threads that this process may use; a table of fewer is of a smaller server.
            sizes: the model's.
            any_machine: take the times of another machine.

        Raises:
            BadReport: another machine, runtime, precision, shape or model, or more threads than
                this process may use.
        """
        wanted: dict[str, tuple[object, object]] = {
            "model": (self.sizes, sizes),
            "runtime": (self.runtime, runtime),
            "precision": (self.precision, precision),
            "shape": (", ".join(map(str, self.shapes)), ", ".join(map(str, shapes))),
            "machine": (self.machine, machine),
        }
        for what, (found, expected) in wanted.items():
            if found != expected and not (what == "machine" and any_machine):
                raise BadReport(
                    f"the latency table was measured for another {what}",
                    got=f"{found}, expected {expected}",
                    fix=MEASURE_AGAIN + (", or take it all the same" if what == "machine" else ""),
                )
        if self.threads > cores and not any_machine:
            raise BadReport(
                "the latency table was measured with more threads than this process may use",
                got=f"{self.threads}, and {cores} here",
                fix=MEASURE_AGAIN,
            )

    def to_json(self) -> dict[str, Any]:
        """The content of the file, with the number of its schema."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            BadReport: another schema, or a field that is missing or of the wrong kind.
        """
        other = f"{MEASURE_AGAIN}; this version reads schema {SCHEMA}"
        return versioned(
            cls,
            value,
            SCHEMA,
            what="the latency table",
            error=BadReport,
            fix=MEASURE_AGAIN,
            other=other,
        )

    def _all(self, heads: int, neurons: int) -> Structures:
        """The same in every layer."""
        layers = self.sizes.layers
        return Structures(heads=(heads,) * layers, neurons=(neurons,) * layers)

    def _refuse_other_depth(self, structures: Structures) -> None:
        """Refuse structures of a model with another number of layers."""
        if len(structures.heads) != self.sizes.layers:
            raise BadSetting(
                f"the latency table is of {self.sizes.layers} layers",
                got=f"{len(structures.heads)} layers",
                fix="use the table of a model of these sizes",
            )


def _united(parts: Iterable[PartTimes]) -> tuple[int, ...]:
    """The numbers that are worthwhile in some of the parts."""
    return tuple(sorted({kept for part in parts for kept in part.worthwhile()}))


def read_latency_table(file: Path) -> LatencyTable:
    """Read a table.

    Raises:
        BadReport: no such file, or one that is damaged.
    """
    return LatencyTable.from_json(read_json(file, error=BadReport, fix=MEASURE_AGAIN))


def write_latency_table(file: Path, table: LatencyTable) -> None:
    """Write a table, whole or not at all.

    Raises:
        NotWritten: no space, or no permission.
    """
    write_text(file, text_of(table.to_json()))
