"""``spd build``: a trt artefact's engine, built on the GPU that will serve it.

Which kernels a build takes depends on timings that come out a little otherwise each time, so
several are built and the fastest is kept. Where sparse kernels may be taken, every build has a
dense twin of the same graph with the same flags but that one, which starts from its timings, so
that the two differ in nothing else. If the fastest of all is a dense one, it is kept, and
``spd inspect`` says so: sparse kernels are not always faster.

Before anything is written the engine has proved its precision (``exporters.tensorrt.verdict``) and
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
from exporters.tensorrt.profile import ROUNDS, seen_in, time_in_turns
from exporters.tensorrt.verdict import Seen, refuse_other_precision, verdicts_of
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.documents import text_of
from spd_deploy.domain.errors import BadArtefact, NotWritten, VerificationFailed
from spd_deploy.domain.files import not_written, replacing, write_text
from spd_deploy.domain.progress import Advance, Progress, Silent
from spd_deploy.sessions.cuda.device import CudaDevice
from spd_deploy.sessions.onnxruntime import DATA_FILE, PORTABLE_FILE
from spd_deploy.sessions.open import prove
from spd_deploy.sessions.tensorrt.build_plan import PLAN_FILE, BuildPlan, Options, read_plan
from spd_deploy.sessions.tensorrt.compatibility import library, place_of
from spd_deploy.sessions.tensorrt.engine_record import (
    ARMS,
    ENGINE_FILE,
    INSPECTOR_FILE,
    RECORD_FILE,
    Arm,
    Build,
    EngineHost,
    EngineRecord,
    Verdict,
    fastest,
    write_record,
)
from spd_deploy.sessions.tensorrt.executor import Executor
from spd_deploy.sessions.tensorrt.session import TensorRtSession


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """How to build.

    Attributes:
        builds: how many engines of each arm.
        compare: whether a dense twin is built where sparse kernels may be taken.
        options: None for those of the plan.
    """

    builds: int = 3
    compare: bool = True
    options: Options | None = None


def build_engine(
    artefact: Artefact, order: Order, *, progress: Progress | None = None
) -> EngineRecord:
    """Build, time and verify engines, and put the fastest into the artefact's folder.

    Raises:
        Unavailable: no driver, GPU or TensorRT, or not what the plan asks for.
        BadArtefact: no trt artefact, or TensorRT does not take its graph.
        VerificationFailed: the engine is not what was planned; an earlier one is left as it is.
        NotWritten: the folder cannot be written.
    """
    refuse_other_format(artefact)
    plan = read_plan(artefact.folder)
    trt, progress = library(), progress or Silent()
    device = CudaDevice()
    try:
        place = place_of(device, trt)
        progress.note(f"building for {place}")
        site = _Site(artefact=artefact, plan=plan, order=order, trt=trt, device=device, place=place)
        return _built(site, progress)
    finally:
        device.close()


def refuse_other_format(artefact: Artefact) -> None:
    """Refuse an artefact that no engine is built of.

    Raises:
        BadArtefact: it has another format.
    """
    if artefact.manifest.format != "trt":
        raise BadArtefact(
            f"{artefact.folder} has no plan of an engine",
            got=f"an artefact of format {artefact.manifest.format}",
            fix="export the checkpoint with --format trt",
        )


def arms_of(plan: BuildPlan, order: Order) -> tuple[Arm, ...]:
    """What is built: where no matrix may be sparse, there is nothing to compare with."""
    if not plan.sparse_weights:
        return ("dense",)
    return ("sparse", "dense") if order.compare else ("sparse",)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """An engine that was built, and what was seen of it on the GPU."""

    arm: Arm
    compiled: Compiled
    seen: tuple[Seen, ...]
    documents: Sequence[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Site:
    """Where one run of the command builds, and what."""

    artefact: Artefact
    plan: BuildPlan
    order: Order
    trt: ModuleType
    device: CudaDevice
    place: EngineHost

    @property
    def options(self) -> Options:
        """As asked for, else as planned."""
        return self.order.options or self.plan.options

    @contextlib.contextmanager
    def opened(self, engine: bytes) -> Iterator[Executor]:
        """An engine that was just built, on the GPU."""
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

    def compiled(self, arm: Arm, timings: bytes, advance: Advance) -> Compiled:
        """One build."""
        model = self.artefact.folder / PORTABLE_FILE
        return compile_engine(
            self.trt, model, self.plan, self.options, arm, timings=timings, advance=advance
        )


def _built(site: _Site, progress: Progress) -> EngineRecord:
    """Compile, look, time, verify, write."""
    arms = arms_of(site.plan, site.order)
    with progress.stage("build", len(arms) * site.order.builds * (1 + ROUNDS) + 1) as advance:
        made = list(_all_made(site, arms, advance))
        engines = [one.compiled.engine for one in made]
        samples = time_in_turns(engines, site.opened, advance)
        builds = tuple(
            Build(
                arm=one.arm,
                build_s=one.compiled.build_s,
                samples_s=times,
                sparse_layers=_sparse_layers(one.seen),
            )
            for one, times in zip(made, samples, strict=True)
        )
        record = _judged(site, made, builds)
        advance(note="verified")
    _keep(site, made[len(arms) - 1].compiled.timings, progress)
    return record


def _keep(site: _Site, timings: bytes, progress: Progress) -> None:
    """Keep timings for the next build; the engine is whole without, so no failure is one here.

    They must be those of the first draw. The others start from nothing, so theirs lack what builds
    of other models found out.
    """
    try:
        write_cache(cache_file(site.place), timings)
    except (NotWritten, RuntimeError) as err:
        why = f"{err.what}, {err.got}" if isinstance(err, NotWritten) else str(err)
        progress.note(f"the next build times its kernels anew: {why}")


def _all_made(site: _Site, arms: Sequence[Arm], advance: Advance) -> Iterator[_Made]:
    """Every engine. Each draw starts from nothing but the first, which starts from what is known.

    A build from known timings takes the known kernels, and would be no second draw. The arms of a
    draw share their timings.
    """
    for number in range(site.order.builds):
        timings = _known(site) if number == 0 else b""
        for arm in arms:
            compiled = site.compiled(arm, timings, advance)
            timings = compiled.timings
            seen, documents = seen_in(compiled.engine, site.opened, site.trt)
            yield _Made(arm=arm, compiled=compiled, seen=seen, documents=documents)
            advance(note=f"{arm} engine {number + 1} of {site.order.builds}")


def _known(site: _Site) -> bytes:
    """The timings of earlier builds; nothing where the user has no home to keep them in."""
    try:
        return read_cache(cache_file(site.place))
    except RuntimeError:
        return b""


def _sparse_layers(seen: Sequence[Seen]) -> tuple[str, ...]:
    """The layers with a sparse kernel, in any bucket."""
    return tuple(sorted({layer.name for one in seen for layer in one.layers if layer.sparse}))


def _judged(site: _Site, made: Sequence[_Made], builds: tuple[Build, ...]) -> EngineRecord:
    """Prove the fastest engine, judge the best sparse one, and write both down."""
    chosen = fastest(builds)
    assert chosen is not None  # noqa: S101 - something was built
    compiled, files = made[chosen].compiled, site.artefact.manifest.files
    proved = refuse_other_precision(site.plan.matrices, made[chosen].seen)
    best = {arm: found for arm in ARMS if (found := fastest(builds, arm)) is not None}
    inspected = {str(arm): made[i].documents for arm, i in best.items()}
    verdicts: tuple[Verdict, ...] = ()
    if "sparse" in best:
        dense = made[best["dense"]].seen if "dense" in best else None
        verdicts = verdicts_of(site.plan.matrices, made[best["sparse"]].seen, dense)
    told = text_of(inspected)
    record = EngineRecord(
        place=site.place,
        onnx_sha256=files[PORTABLE_FILE],
        weights_sha256=files[DATA_FILE],
        masks_sha256=site.plan.masks_sha256,
        plan_sha256=files[PLAN_FILE],
        engine_sha256=hashlib.sha256(compiled.engine).hexdigest(),
        engine_bytes=len(compiled.engine),
        inspector_sha256=hashlib.sha256(told.encode()).hexdigest(),
        timing_cache_sha256=hashlib.sha256(compiled.timings).hexdigest(),
        buckets=site.plan.buckets,
        options=site.options,
        flags=compiled.flags,
        precision=site.plan.precision,
        proved=proved,
        parity=_parity(site, compiled.engine),
        builds=builds,
        chosen=chosen,
        sparsity_log=made[best.get("sparse", chosen)].compiled.sparsity_log,
        verdicts=verdicts,
    )
    _write(site.artefact.folder, compiled.engine, told, record)
    return record


def _parity(site: _Site, engine: bytes) -> float:
    """How far the engine's logits are from the checkpoint's on the golden inputs.

    Raises:
        VerificationFailed: further than the artefact's precision allows.
    """
    with site.opened(engine) as executor:
        session = TensorRtSession.of(
            executor, site.trt, site.artefact, precision=site.plan.precision
        )
        try:
            return prove(session, site.artefact)
        except BadArtefact as err:
            raise VerificationFailed(
                "the engine does not give the checkpoint's logits",
                got=err.got,
                fix="nothing was written; please report this, with TensorRT's version",
            ) from err


def _write(folder: Path, engine: bytes, inspected: str, record: EngineRecord) -> None:
    """Put the engine into the folder; while it is there without its record, it is not opened."""
    try:
        (folder / RECORD_FILE).unlink(missing_ok=True)
    except OSError as err:
        raise not_written(folder, err) from err
    with replacing(folder / ENGINE_FILE) as draft:
        draft.write_bytes(engine)
    write_text(folder / INSPECTOR_FILE, inspected)
    write_record(folder, record)
