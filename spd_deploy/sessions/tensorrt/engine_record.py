"""``engine.json``: what an engine was built from, with and for, how fast it is, and what it does.

An engine is native code: whoever deserialises one runs it. So a session first holds this record
against the machine it is on and the files beside it (``sessions.tensorrt.compatibility``). That
finds what was damaged, swapped or carried to another machine; it does not find malice, since who
can write the engine can write this file as well. Folders of engines are to be trusted as programs
are.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, Literal, Self

from spd_deploy.domain.documents import (
    refuse_schema,
    text_of,
    versioned,
    with_own_hash,
    without_own_hash,
)
from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.domain.files import read_json, write_text
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.verified import refuse_outside
from spd_deploy.sessions.tensorrt.build_plan import Options

ENGINE_FILE = "engine.plan"
RECORD_FILE = "engine.json"
INSPECTOR_FILE = "inspector.json"
# 1: the first. 2: it has its own hash.
SCHEMA = 2
_MANIFEST_FILE = "manifest.json"  # of ``domain.artefact``, which knows nothing of engines
_AGAIN = "build it again: spd build ARTEFACT"

Arm = Literal["sparse", "dense"]
ARMS: tuple[Arm, ...] = ("sparse", "dense")
# Whether a sparse kernel runs a matrix. What is fused with others may hide it: then nobody knows.
Picked = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineHost:
    """Where an engine is built or run.

    Attributes:
        gpu: as the driver names it.
        compute_capability: NVIDIA's version of its instruction set, such as ``9.0``.
        driver: NVIDIA's version of the driver.
        cuda: the newest version of CUDA that the driver runs, such as ``13.0``.
        tensorrt: the version of TensorRT.
    """

    gpu: str
    compute_capability: str
    driver: str
    cuda: str
    tensorrt: str

    def __str__(self) -> str:
        """In one line."""
        return (
            f"{self.gpu} (compute capability {self.compute_capability}), driver {self.driver} for "
            f"CUDA {self.cuda}, TensorRT {self.tensorrt}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """One engine of several: which kernels a build takes is a matter of how its timings fall out.

    Attributes:
        arm: with sparse kernels allowed, or the dense build of the same graph.
        build_s: how long building took.
        samples_s: times on the GPU at each bucket, in the order of the buckets.
        sparse_layers: the layers whose kernels are sparse by their names.
    """

    arm: Arm
    build_s: float
    samples_s: tuple[tuple[float, ...], ...]
    sparse_layers: tuple[str, ...]

    @property
    def seconds(self) -> tuple[float, ...]:
        """The median at each bucket."""
        return tuple(median(samples) for samples in self.samples_s)

    @property
    def score_s(self) -> float:
        """One number to choose by: the geometric mean over the buckets."""
        return geometric_mean(self.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What became of one matrix in the best sparse build, at one bucket.

    Attributes:
        bucket: its number; kernels are chosen for each bucket alone.
        two_of_four: whether the pattern holds.
        typed: the precision that the engine's own formats prove; None where they do not tell.
        eligible: whether a sparse kernel could be taken.
        picked: whether one was.
        tactic: the kernel's name.
        sparse_s: its layer's time.
        dense_s: the same in the best dense build of the same graph; None where not comparable.
        why: the outcome in words.
    """

    matrix: str
    bucket: int
    two_of_four: bool
    typed: str | None
    eligible: bool
    picked: Picked
    tactic: str | None
    sparse_s: float | None
    dense_s: float | None
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRecord:
    """What ``engine.json`` says.

    Attributes:
        onnx_sha256: of the ONNX file that was parsed.
        weights_sha256: of the file with its weights.
        masks_sha256: of where the matrices' zeros are, as in the plan.
        plan_sha256: of ``build.json``.
        engine_sha256: of the engine.
        inspector_sha256: of what TensorRT's inspector says of it and of its dense twin.
        timing_cache_sha256: of the timings by which its kernels were chosen.
        buckets: of the profiles, in their order.
        options: as it was built, which may be otherwise than planned.
        flags: the builder's, by TensorRT's names.
        proved: of how many products the engine itself proves that precision, in words.
        parity: the difference of its logits from the checkpoint's, on the golden inputs.
        builds: all that were made and timed in turns.
        chosen: the number of the fastest, which is the engine.
        sparsity_log: what the builder itself said of sparse kernels.
        verdicts: of each matrix at each bucket; empty where no matrix was to be sparse.
    """

    place: EngineHost
    onnx_sha256: str
    weights_sha256: str
    masks_sha256: str
    plan_sha256: str
    engine_sha256: str
    engine_bytes: int
    inspector_sha256: str
    timing_cache_sha256: str
    buckets: tuple[Shape, ...]
    options: Options
    flags: tuple[str, ...]
    precision: str
    proved: str
    parity: float
    builds: tuple[Build, ...]
    chosen: int
    sparsity_log: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    def __post_init__(self) -> None:
        """Refuse a choice of none of the builds, and times of other buckets than its own."""
        timed = all(len(build.samples_s) == len(self.buckets) for build in self.builds)
        if not 0 <= self.chosen < len(self.builds) or not timed or not self.buckets:
            raise BadArtefact(f"{RECORD_FILE} contradicts itself", fix=_AGAIN)

    @property
    def arm(self) -> Arm:
        """Whether the engine is a build with sparse kernels allowed."""
        return self.builds[self.chosen].arm

    def best(self, arm: Arm) -> Build | None:
        """The fastest build of an arm; None where there is none."""
        found = fastest(self.builds, arm)
        return None if found is None else self.builds[found]

    def sparse_kernels(self, buckets: Container[int]) -> tuple[str, ...] | None:
        """Names of the sparse kernels that the engine runs in buckets of these numbers.

        None where fused regions hide whether there is any.
        """
        if self.arm == "dense":  # whatever its sparse twin would have run
            return ()
        there = [verdict for verdict in self.verdicts if verdict.bucket in buckets]
        found = dict.fromkeys(v.tactic for v in there if v.picked == "yes" and v.tactic)
        unknown = any(verdict.picked == "unknown" for verdict in there)
        return None if unknown and not found else tuple(found)

    def to_json(self) -> dict[str, Any]:
        """The content of ``engine.json``, with its own hash."""
        return with_own_hash({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            BadArtefact: another schema, another content than was written, or a field that is
                missing, unknown or of the wrong kind.
        """
        refuse_schema(value, SCHEMA, what=RECORD_FILE, error=BadArtefact, fix=_AGAIN)
        content = without_own_hash(value, what=RECORD_FILE, error=BadArtefact, fix=_AGAIN)
        return versioned(cls, content, SCHEMA, what=RECORD_FILE, error=BadArtefact, fix=_AGAIN)


def fastest(builds: Sequence[Build], arm: Arm | None = None) -> int | None:
    """The number of the fastest build, of an arm or of all; None where there is none."""
    of_arm = [i for i, build in enumerate(builds) if arm in (None, build.arm)]
    return min(of_arm, key=lambda i: builds[i].score_s, default=None)


def is_built(folder: Path) -> bool:
    """Whether an engine stands in an artefact's folder, whatever it is worth."""
    return (folder / RECORD_FILE).is_file()


def read_record(folder: Path) -> EngineRecord:
    """The record of an artefact's engine.

    Raises:
        Unavailable: there is no engine yet.
        BadArtefact: the record is damaged or of another version.
    """
    if not is_built(folder):
        raise Unavailable(
            f"the engine of {folder} is not built",
            got=f"no {RECORD_FILE}",
            fix=f"on the machine that is to serve: spd build {folder}; "
            "until then --runtime onnxruntime runs its portable.onnx",
        )
    refuse_outside(folder, folder / RECORD_FILE, anchor=folder / _MANIFEST_FILE)
    value = read_json(folder / RECORD_FILE, error=BadArtefact, fix=_AGAIN)
    return EngineRecord.from_json(value)


def write_record(folder: Path, record: EngineRecord) -> None:
    """Write ``engine.json``, the last file of an engine to be written."""
    write_text(folder / RECORD_FILE, text_of(record.to_json()))
