"""``engine.json``: what an engine was built from, with and for, how fast it is, and what it does.

An engine is native code, and deserialising it runs it. A session therefore first compares this
record with the machine and with the files beside it (``sessions.tensorrt.compatibility``). That
finds damaged, swapped and copied engines. It does not find an attacker, who could write this file
too: trust a folder with an engine only as you would trust a program.
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
# 1: the first. 2: it has its own hash. 3: ``host`` and ``precision_proof`` were ``place`` and
# ``proved``; of a verdict ``precision``, ``sparse_tactic`` and ``reason`` were ``typed``,
# ``picked`` and ``why``. 4: ``variant`` of a build was ``arm``.
SCHEMA = 4
_MANIFEST_FILE = "manifest.json"  # of ``domain.artefact``, which knows nothing of engines
_AGAIN = "build it again: spd build ARTEFACT"

Variant = Literal["sparse", "dense"]
VARIANTS: tuple[Variant, ...] = ("sparse", "dense")
# Whether a sparse tactic runs a matrix; "unknown" where layer fusion hides it.
SparseTactic = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineHost:
    """The GPU and the software that an engine is built on or runs on.

    Attributes:
        gpu: name of the GPU, as the driver gives it.
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
        """All of it in one line, for reports."""
        return (
            f"{self.gpu} (compute capability {self.compute_capability}), driver {self.driver} for "
            f"CUDA {self.cuda}, TensorRT {self.tensorrt}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """One of several builds, since builds choose different tactics by their timings.

    Attributes:
        variant: ``sparse`` with sparse tactics allowed, ``dense`` without.
        build_s: seconds that building took.
        samples_s: GPU seconds of each run, a tuple for each bucket.
        sparse_layers: the layers whose tactic's name says that it is sparse.
    """

    variant: Variant
    build_s: float
    samples_s: tuple[tuple[float, ...], ...]
    sparse_layers: tuple[str, ...]

    @property
    def seconds(self) -> tuple[float, ...]:
        """Median GPU seconds of a run at each bucket."""
        return tuple(median(samples) for samples in self.samples_s)

    @property
    def score_s(self) -> float:
        """Geometric mean of the medians over the buckets; the lowest build is chosen."""
        return geometric_mean(self.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a sparse tactic runs one matrix at one bucket of the best sparse build.

    Attributes:
        bucket: index of the bucket; TensorRT chooses tactics for each bucket.
        two_of_four: whether the matrix has the 2:4 pattern.
        precision: the one that the engine's tensor formats prove; None where they do not.
        eligible: whether TensorRT could choose a sparse tactic.
        sparse_tactic: whether TensorRT chose a sparse tactic.
        tactic: name of the tactic (the kernel).
        sparse_s: GPU seconds of its layer.
        dense_s: the same in the best dense build of the graph; None where not comparable.
        reason: why, as a sentence.
    """

    matrix: str
    bucket: int
    two_of_four: bool
    precision: str | None
    eligible: bool
    sparse_tactic: SparseTactic
    tactic: str | None
    sparse_s: float | None
    dense_s: float | None
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRecord:
    """The content of ``engine.json``.

    Attributes:
        onnx_sha256: hash of the ONNX file that was parsed.
        weights_sha256: hash of the file with its weights.
        masks_sha256: hash of the positions of the zeros, as in the plan.
        plan_sha256: hash of ``build.json``.
        engine_sha256: hash of the engine.
        inspector_sha256: hash of the inspector's output for it and the dense baseline.
        timing_cache_sha256: hash of the timing cache of the build.
        buckets: the shapes of its optimization profiles, in their order.
        options: the options of this build, which may differ from the plan's.
        flags: names of the ``BuilderFlag`` values that were set.
        precision_proof: for how many products the engine proves that precision, as a sentence.
        parity: largest difference of its logits from the checkpoint's on the golden inputs.
        builds: all builds, which were timed in interleaved rounds.
        chosen: index of the fastest build, which is the engine.
        sparsity_log: the builder's messages on sparse tactics.
        verdicts: one for each matrix and bucket; empty where no matrix is sparse.
    """

    host: EngineHost
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
    precision_proof: str
    parity: float
    builds: tuple[Build, ...]
    chosen: int
    sparsity_log: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    def __post_init__(self) -> None:
        """Refuse an index that is no build's, and builds with times of other buckets."""
        timed = all(len(build.samples_s) == len(self.buckets) for build in self.builds)
        if not 0 <= self.chosen < len(self.builds) or not timed or not self.buckets:
            raise BadArtefact(f"{RECORD_FILE} contradicts itself", fix=_AGAIN)

    @property
    def variant(self) -> Variant:
        """The variant of the chosen build."""
        return self.builds[self.chosen].variant

    def best(self, variant: Variant) -> Build | None:
        """The fastest build of a variant; None where the variant has no build."""
        found = fastest_build(self.builds, variant)
        return None if found is None else self.builds[found]

    def sparse_kernels(self, buckets: Container[int]) -> tuple[str, ...] | None:
        """Names of the sparse tactics that the engine runs at the buckets of these indices.

        None where fused layers hide whether there is any.
        """
        if (
            self.variant == "dense"
        ):  # the verdicts are of the best sparse build, which was not chosen
            return ()
        there = [verdict for verdict in self.verdicts if verdict.bucket in buckets]
        found = dict.fromkeys(v.tactic for v in there if v.sparse_tactic == "yes" and v.tactic)
        unknown = any(verdict.sparse_tactic == "unknown" for verdict in there)
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


def fastest_build(builds: Sequence[Build], variant: Variant | None = None) -> int | None:
    """Index of the fastest build, of one variant or of all; None where there is no build."""
    of_variant = [i for i, build in enumerate(builds) if variant in (None, build.variant)]
    return min(of_variant, key=lambda i: builds[i].score_s, default=None)


def is_built(folder: Path) -> bool:
    """Whether an artefact's folder holds an engine's record, whether valid or not."""
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
            fix=f"run spd build {folder} on the machine that will run it, or use "
            "--runtime onnxruntime, which runs its portable.onnx",
        )
    refuse_outside(folder, folder / RECORD_FILE, anchor=folder / _MANIFEST_FILE)
    value = read_json(folder / RECORD_FILE, error=BadArtefact, fix=_AGAIN)
    return EngineRecord.from_json(value)


def write_record(folder: Path, record: EngineRecord) -> None:
    """Write ``engine.json``; it is written last, after all other files of the engine."""
    write_text(folder / RECORD_FILE, text_of(record.to_json()))
