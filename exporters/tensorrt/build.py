"""``spd build``: builds the engine of a trt artefact on the GPU that will serve it.

TensorRT chooses kernels by timings that vary from build to build. So several engines are built, and
the fastest is kept. Where sparse kernels may be chosen, each sparse build is followed by a dense
build of the same graph. It starts from the timings of the sparse build and differs from it in the
sparsity flag alone. If a dense engine is the fastest of all, it is kept, and ``spd inspect`` says
so: sparse kernels are not always faster.

Before anything is written, the engine has proved its precision (``exporters.tensorrt.verdict``) and
given the checkpoint's logits.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from exporters.tensorrt.cache import cache_file, read_cache, write_cache
from exporters.tensorrt.compile import Compiled, compile_engine
from exporters.tensorrt.profile import ROUNDS, profile_engine, time_engines
from exporters.tensorrt.verdict import BucketProfile, prove_precision, verdicts_of
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.documents import text_of
from spd_deploy.domain.errors import BadArtefact, NotWritten, VerificationFailed
from spd_deploy.domain.files import not_written, replacing, write_text
from spd_deploy.domain.progress import Advance, Progress, Silent
from spd_deploy.sessions.cuda.device import CudaDevice
from spd_deploy.sessions.onnxruntime import DATA_FILE, PORTABLE_FILE
from spd_deploy.sessions.open import prove
from spd_deploy.sessions.tensorrt.build_plan import PLAN_FILE, BuildPlan, Options, read_plan
from spd_deploy.sessions.tensorrt.compatibility import engine_host, load_tensorrt
from spd_deploy.sessions.tensorrt.engine_record import (
    ENGINE_FILE,
    INSPECTOR_FILE,
    RECORD_FILE,
    VARIANTS,
    Build,
    EngineHost,
    EngineRecord,
    Variant,
    Verdict,
    fastest_build,
    write_record,
)
from spd_deploy.sessions.tensorrt.executor import Executor
from spd_deploy.sessions.tensorrt.session import TensorRtSession


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRequest:
    """How to build an engine.

    Attributes:
        builds: the number of engines to build of each variant, sparse and dense.
        compare: whether dense engines are built as well where sparse kernels may be chosen.
        options: options for TensorRT; None takes those of the plan.
    """

    builds: int = 3
    compare: bool = True
    options: Options | None = None


def build_engine(
    artefact: Artefact, request: BuildRequest, *, progress: Progress | None = None
) -> EngineRecord:
    """Build, time and verify engines, and put the fastest into the artefact's folder.

    Raises:
        Unavailable: driver, GPU or TensorRT is missing, or cannot do what the plan needs.
        BadArtefact: the artefact is no trt artefact, or TensorRT cannot parse its graph.
        VerificationFailed: the engine differs from its plan; an earlier engine stays in place.
        NotWritten: the folder cannot be written.
    """
    refuse_other_format(artefact)
    plan = read_plan(artefact.folder)
    trt, progress = load_tensorrt(), progress or Silent()
    device = CudaDevice()
    try:
        host = engine_host(device, trt)
        progress.note(f"building for {host}")
        job = _BuildJob(
            artefact=artefact, plan=plan, request=request, trt=trt, device=device, host=host
        )
        return _build_and_judge(job, progress)
    finally:
        device.close()


def refuse_other_format(artefact: Artefact) -> None:
    """Refuse an artefact of another format than trt.

    Raises:
        BadArtefact: its format is another.
    """
    if artefact.manifest.format != "trt":
        raise BadArtefact(
            f"{artefact.folder} is not a trt artefact, so no engine can be built from it",
            got=f"format {artefact.manifest.format}",
            fix="export the checkpoint with --format trt",
        )


def variants_of(plan: BuildPlan, request: BuildRequest) -> tuple[Variant, ...]:
    """The variants to build: dense alone where no matrix can run on a sparse kernel."""
    if not plan.sparse_weights:
        return ("dense",)
    return ("sparse", "dense") if request.compare else ("sparse",)


@dataclass(frozen=True, kw_only=True, slots=True)
class _BuiltEngine:
    """An engine that was built, with its layers in each bucket and the inspector's documents."""

    variant: Variant
    compiled: Compiled
    profiles: tuple[BucketProfile, ...]
    documents: Sequence[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _BuildJob:
    """The artefact, plan and GPU of one build, with what opens and compiles engines there."""

    artefact: Artefact
    plan: BuildPlan
    request: BuildRequest
    trt: ModuleType
    device: CudaDevice
    host: EngineHost

    @property
    def options(self) -> Options:
        """The options of the request, else those of the plan."""
        return self.request.options or self.plan.options

    @contextlib.contextmanager
    def opened(self, engine: bytes) -> Iterator[Executor]:
        """Load an engine onto the GPU for the length of the block."""
        executor = Executor(
            self.trt,
            self.device,
            engine,
            self.plan.buckets,
            self.options,
            classes=self.artefact.task.outputs,
        )
        try:
            yield executor
        finally:
            executor.close()

    def compiled(self, variant: Variant, timings: bytes, advance: Advance) -> Compiled:
        """Build one engine, starting from known ``timings``."""
        model = self.artefact.folder / PORTABLE_FILE
        return compile_engine(
            self.trt, model, self.plan, self.options, variant, timings=timings, advance=advance
        )


def _build_and_judge(job: _BuildJob, progress: Progress) -> EngineRecord:
    """Build all engines, profile and time them, then verify the fastest and write it."""
    variants = variants_of(job.plan, job.request)
    with progress.stage("build", len(variants) * job.request.builds * (1 + ROUNDS) + 1) as advance:
        engines = list(_build_all(job, variants, advance))
        samples = time_engines([one.compiled.engine for one in engines], job.opened, advance)
        builds = tuple(
            Build(
                variant=one.variant,
                build_s=one.compiled.build_s,
                samples_s=times,
                sparse_layers=_sparse_layers(one.profiles),
            )
            for one, times in zip(engines, samples, strict=True)
        )
        record = _verify_and_write(job, engines, builds)
        advance(note="verified")
    _save_timings(job, engines[len(variants) - 1].compiled.timings, progress)
    return record


def _save_timings(job: _BuildJob, timings: bytes, progress: Progress) -> None:
    """Save kernel timings, so that the next build need not measure them again.

    The engine is done, so a failure is noted and ends nothing. ``timings`` are those after the
    first round of builds, which began with the saved ones. Later rounds begin with none: saving
    theirs would lose the timings of other models.
    """
    try:
        write_cache(cache_file(job.host), timings)
    except (NotWritten, RuntimeError) as err:
        why = f"{err.what}, {err.got}" if isinstance(err, NotWritten) else str(err)
        progress.note(
            f"kernel timings were not saved, so the next build takes as long as this one: {why}"
        )


def _build_all(
    job: _BuildJob, variants: Sequence[Variant], advance: Advance
) -> Iterator[_BuiltEngine]:
    """Build every engine, in rounds of one engine a variant.

    The first round starts from saved timings. The others start from empty ones: a build from known
    timings would choose the same kernels again. The variants of a round share their timings.
    """
    for build_round in range(job.request.builds):
        timings = _saved_timings(job) if build_round == 0 else b""
        for variant in variants:
            compiled = job.compiled(variant, timings, advance)
            timings = compiled.timings
            profiles, documents = profile_engine(compiled.engine, job.opened, job.trt)
            yield _BuiltEngine(
                variant=variant, compiled=compiled, profiles=profiles, documents=documents
            )
            advance(note=f"{variant} engine {build_round + 1} of {job.request.builds}")


def _saved_timings(job: _BuildJob) -> bytes:
    """The timings of earlier builds; empty where the user has no home folder."""
    try:
        return read_cache(cache_file(job.host))
    except RuntimeError:
        return b""


def _sparse_layers(profiles: Sequence[BucketProfile]) -> tuple[str, ...]:
    """The names of the layers that run on a sparse kernel in some bucket."""
    return tuple(sorted({layer.name for one in profiles for layer in one.layers if layer.sparse}))


def _verify_and_write(
    job: _BuildJob, engines: Sequence[_BuiltEngine], builds: tuple[Build, ...]
) -> EngineRecord:
    """Verify the fastest engine, and write it with its record.

    The record's verdicts are about the fastest sparse engine, also where a dense one is faster.
    """
    chosen = fastest_build(builds)
    assert chosen is not None  # noqa: S101 - something was built
    compiled, files = engines[chosen].compiled, job.artefact.manifest.files
    proof = prove_precision(job.plan.matrices, engines[chosen].profiles)
    best = {variant: i for variant in VARIANTS if (i := fastest_build(builds, variant)) is not None}
    inspected = {str(variant): engines[i].documents for variant, i in best.items()}
    verdicts: tuple[Verdict, ...] = ()
    if "sparse" in best:
        dense = engines[best["dense"]].profiles if "dense" in best else None
        verdicts = verdicts_of(job.plan.matrices, engines[best["sparse"]].profiles, dense)
    inspected_text = text_of(inspected)
    record = EngineRecord(
        host=job.host,
        onnx_sha256=files[PORTABLE_FILE],
        weights_sha256=files[DATA_FILE],
        masks_sha256=job.plan.masks_sha256,
        plan_sha256=files[PLAN_FILE],
        engine_sha256=hashlib.sha256(compiled.engine).hexdigest(),
        engine_bytes=len(compiled.engine),
        inspector_sha256=hashlib.sha256(inspected_text.encode()).hexdigest(),
        timing_cache_sha256=hashlib.sha256(compiled.timings).hexdigest(),
        buckets=job.plan.buckets,
        options=job.options,
        flags=compiled.flags,
        precision=job.plan.precision,
        precision_proof=proof,
        parity=_parity(job, compiled.engine),
        builds=builds,
        chosen=chosen,
        sparsity_log=engines[best.get("sparse", chosen)].compiled.sparsity_log,
        verdicts=verdicts,
    )
    _write(job.artefact.folder, compiled.engine, inspected_text, record)
    return record


def _parity(job: _BuildJob, engine: bytes) -> float:
    """The difference of the engine's logits from the checkpoint's on the golden inputs.

    Raises:
        VerificationFailed: the difference is larger than the artefact's precision allows.
    """
    with job.opened(engine) as executor:
        session = TensorRtSession.of(executor, job.trt, job.artefact, precision=job.plan.precision)
        try:
            return prove(session, job.artefact)
        except BadArtefact as err:
            raise VerificationFailed(
                "the engine does not give the checkpoint's logits",
                got=err.got,
                fix="nothing was written; please report this, with TensorRT's version",
            ) from err


def _write(folder: Path, engine: bytes, inspected: str, record: EngineRecord) -> None:
    """Write the engine, then its record; an engine without a record is never opened."""
    try:
        (folder / RECORD_FILE).unlink(missing_ok=True)
    except OSError as err:
        raise not_written(folder, err) from err
    with replacing(folder / ENGINE_FILE) as draft:
        draft.write_bytes(engine)
    write_text(folder / INSPECTOR_FILE, inspected)
    write_record(folder, record)
