"""Compatibility checks before an engine is deserialised, since it is native code for one machine.

The checks ask the driver library, the installed packages and the files. No TensorRT object is made
before they pass: without a driver TensorRT returns objects that crash the process when used, and
its error for an engine of another version or GPU does not name the cause.
"""

import hashlib
from collections.abc import Iterator
from types import ModuleType

from spd_deploy.domain.artefact import MANIFEST_FILE, Artefact
from spd_deploy.domain.errors import BadArtefact, SpdError, Unavailable
from spd_deploy.domain.nvidia import driver_version
from spd_deploy.domain.verified import refuse_outside
from spd_deploy.sessions.cuda.device import CudaDevice
from spd_deploy.sessions.cuda.driver import load_driver
from spd_deploy.sessions.onnxruntime import DATA_FILE, PORTABLE_FILE
from spd_deploy.sessions.tensorrt.build_plan import PLAN_FILE, BuildPlan
from spd_deploy.sessions.tensorrt.engine_record import ENGINE_FILE, EngineHost, EngineRecord
from spd_deploy.sessions.tensorrt.versions import (
    cuda_major_of_tensorrt,
    import_tensorrt,
    numbers_of,
)

_SPARSE_SINCE = (8, 0)


def engine_fault() -> str | None:
    """The reason why engines can be neither built nor run here; None if they can."""
    try:
        trt = load_tensorrt()
        device = CudaDevice()
        try:
            engine_host(device, trt)
        finally:
            device.close()
    except SpdError as err:
        return f"{err.what}{f' ({err.got})' if err.got else ''}"
    return None


def load_tensorrt() -> ModuleType:
    """Import TensorRT after NVIDIA's driver has been initialised.

    Raises:
        Unavailable: no driver, no cuda-bindings, no TensorRT, or an unsupported version of it.
    """
    load_driver()
    return import_tensorrt()


def engine_host(device: CudaDevice, tensorrt: ModuleType) -> EngineHost:
    """The GPU, driver and TensorRT of this process.

    Raises:
        Unavailable: the driver is older than the CUDA that TensorRT was built for.
    """
    host = EngineHost(
        gpu=device.name,
        compute_capability=device.compute_capability,
        driver=driver_version() or "unknown",
        cuda=device.cuda,
        tensorrt=str(tensorrt.__version__),
    )
    refuse_old_driver(host, built_for=cuda_major_of_tensorrt())
    return host


def refuse_old_driver(host: EngineHost, *, built_for: int | None) -> None:
    """Refuse a driver whose major version of CUDA is older than the one TensorRT was built for.

    Raises:
        Unavailable: ``built_for`` is newer than the driver's CUDA.
    """
    if built_for is not None and numbers_of(host.cuda)[0] < built_for:
        raise Unavailable(
            f"the driver is too old for this TensorRT, which was built for CUDA {built_for}",
            got=f"driver {host.driver}, which runs CUDA {host.cuda} and older",
            fix=f"update NVIDIA's driver, or install tensorrt-cu{numbers_of(host.cuda)[0]}",
        )


def refuse_incompatible(record: EngineRecord, here: EngineHost) -> None:
    """Refuse an engine that this machine cannot run.

    A newer driver than at build time is accepted, an older one is refused.

    Raises:
        Unavailable: another GPU, another TensorRT, or an older driver.
    """
    for what, found in _mismatches(record, here):
        raise Unavailable(
            what, got=found, fix="build it for this machine: spd build ARTEFACT; until then "
            "--runtime onnxruntime runs its portable.onnx"
        )  # fmt: skip


def _mismatches(record: EngineRecord, here: EngineHost) -> Iterator[tuple[str, str]]:
    """Each requirement of the engine that this machine misses, with what was found here."""
    there, options = record.host, record.options
    if options.version_compatible:
        if numbers_of(here.tensorrt) < numbers_of(there.tensorrt):
            yield f"the engine needs TensorRT {there.tensorrt} or later", here.tensorrt
    elif here.tensorrt != there.tensorrt:
        yield f"the engine was built by TensorRT {there.tensorrt}", f"TensorRT {here.tensorrt}"
    found = f"{here.gpu}, compute capability {here.compute_capability}"
    match options.hardware:
        case "same_gpu":
            if (here.gpu, here.compute_capability) != (there.gpu, there.compute_capability):
                yield f"the engine was built for {there.gpu}", found
        case "same_compute_capability":
            if here.compute_capability != there.compute_capability:
                built = there.compute_capability
                yield f"the engine was built for GPUs of compute capability {built}", found
        case "ampere_plus":
            if numbers_of(here.compute_capability) < _SPARSE_SINCE:
                yield "the engine was built for GPUs of Ampere and later", found
    if numbers_of(here.cuda) < numbers_of(there.cuda):
        built = f"driver {there.driver} for CUDA {there.cuda}"
        yield f"the engine was built under {built}", f"driver {here.driver} for CUDA {here.cuda}"


def verified_engine(artefact: Artefact, record: EngineRecord) -> bytes:
    """The engine's bytes, verified to be built from this artefact.

    The file is read once, so that the bytes returned are the bytes verified.

    Raises:
        BadArtefact: the engine was changed, or was built from other files.
    """
    files = artefact.manifest.files
    built_from = {
        PORTABLE_FILE: record.onnx_sha256,
        DATA_FILE: record.weights_sha256,
        PLAN_FILE: record.plan_sha256,
    }
    for name, sha256 in built_from.items():
        if files.get(name) != sha256:
            raise _stale(artefact, f"another {name}", sha256, files.get(name, "none"))
    masks = BuildPlan.from_json(artefact.document(PLAN_FILE)).masks_sha256
    if record.masks_sha256 != masks:
        raise _stale(artefact, "weights with other zeros", record.masks_sha256, masks)
    file = artefact.folder / ENGINE_FILE
    refuse_outside(artefact.folder, file, anchor=artefact.folder / MANIFEST_FILE)
    try:
        engine = file.read_bytes()
    except OSError as err:
        raise BadArtefact(f"cannot read {file}", got=err.strerror, fix=_again(artefact)) from err
    found = hashlib.sha256(engine).hexdigest()
    if found != record.engine_sha256:
        raise BadArtefact(
            f"{file} was changed after it was built",
            got=f"SHA-256 {found[:12]}, expected {record.engine_sha256[:12]}",
            fix=_again(artefact),
        )
    return engine


def _stale(artefact: Artefact, other: str, built: str, found: str) -> BadArtefact:
    """The error for an engine that was built from other files than the artefact's."""
    return BadArtefact(
        f"the engine in {artefact.folder} was built from {other}",
        got=f"SHA-256 {built[:12]}, the artefact has {found[:12]}",
        fix=_again(artefact),
    )


def _again(artefact: Artefact) -> str:
    """The remedy for an engine that cannot be used."""
    return f"build it again: spd build {artefact.folder}"
