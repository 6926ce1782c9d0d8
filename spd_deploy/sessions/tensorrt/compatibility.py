"""What must hold before an engine is deserialised: it is native code, made for one machine.

Everything is asked of the driver library, of installed packages and of files. Nothing of
TensorRT's runtime is made until all of it has been answered: without a driver TensorRT hands out
objects that crash the process when they are used, and an engine of another version or GPU fails in
words that help no one.
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
    """Why no engine can be built or run here; None if one can."""
    try:
        trt = library()
        device = CudaDevice()
        try:
            place_of(device, trt)
        finally:
            device.close()
    except SpdError as err:
        return f"{err.what}{f' ({err.got})' if err.got else ''}"
    return None


def library() -> ModuleType:
    """TensorRT, on a machine whose driver starts.

    Raises:
        Unavailable: no driver or no bindings of it, no TensorRT, or one of an unknown version.
    """
    load_driver()
    return import_tensorrt()


def place_of(device: CudaDevice, tensorrt: ModuleType) -> EngineHost:
    """Where this process is.

    Raises:
        Unavailable: the driver is older than the CUDA that TensorRT was built for.
    """
    place = EngineHost(
        gpu=device.name,
        compute_capability=device.compute_capability,
        driver=driver_version() or "unknown",
        cuda=device.cuda,
        tensorrt=str(tensorrt.__version__),
    )
    refuse_old_driver(place, built_for=cuda_major_of_tensorrt())
    return place


def refuse_old_driver(place: EngineHost, *, built_for: int | None) -> None:
    """A driver runs programs of its own major version of CUDA and of older ones.

    Raises:
        Unavailable: TensorRT was ``built_for`` a newer one.
    """
    if built_for is not None and numbers_of(place.cuda)[0] < built_for:
        raise Unavailable(
            f"the driver is too old for this TensorRT, which was built for CUDA {built_for}",
            got=f"driver {place.driver}, which runs CUDA {place.cuda} and older",
            fix=f"update NVIDIA's driver, or install tensorrt-cu{numbers_of(place.cuda)[0]}",
        )


def refuse_elsewhere(record: EngineRecord, here: EngineHost) -> None:
    """Refuse an engine that was not built for where this process is.

    A newer driver than the one it was built with is fine, an older one is not.

    Raises:
        Unavailable: another GPU, another TensorRT, or an older driver.
    """
    for what, found in _mismatches(record, here):
        raise Unavailable(
            what, got=found, fix="build it for this machine: spd build ARTEFACT; until then "
            "--runtime onnxruntime runs its portable.onnx"
        )  # fmt: skip


def _mismatches(record: EngineRecord, here: EngineHost) -> Iterator[tuple[str, str]]:
    """What differs, with what was found here."""
    there, options = record.place, record.options
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
    """The engine's bytes, if it is the one that was built from this very artefact.

    What is verified is what is returned: the file is read once.

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
    """The error for an engine of another artefact."""
    return BadArtefact(
        f"the engine in {artefact.folder} was built from {other}",
        got=f"SHA-256 {built[:12]}, the artefact has {found[:12]}",
        fix=_again(artefact),
    )


def _again(artefact: Artefact) -> str:
    """What mends an engine."""
    return f"build it again: spd build {artefact.folder}"
