"""What each version of TensorRT is told, and what it is not."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from exporters.tensorrt.build import BuildRequest, build_engine
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import Unavailable
from spd_deploy.sessions.tensorrt import versions
from spd_deploy.sessions.tensorrt.build_plan import BuildPlan, Options, TrtPrecision, read_plan
from spd_deploy.sessions.tensorrt.versions import (
    apply_options,
    flags_for,
    import_tensorrt,
    numbers_of,
    supported,
)
from tests.sessions.tensorrt.conftest import Machine

Made = Callable[..., Machine]


def plan_in(artefact: Artefact, precision: TrtPrecision) -> BuildPlan:
    return replace(read_plan(artefact.folder), precision=precision)


@pytest.mark.parametrize("version", ["10.0.1", "10.16.1.11", "11.4.0.106"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_precision_is_the_graphs_and_no_flag(
    version: str, precision: TrtPrecision, machine: Made, artefact: Artefact
) -> None:
    """The flag for sparse kernels is all that the two variants differ in."""
    machine(version)
    trt, plan = import_tensorrt(), plan_in(artefact, precision)

    assert flags_for(trt, plan, Options(), "sparse") == ("SPARSE_WEIGHTS",)
    assert flags_for(trt, plan, Options(), "dense") == ()


def test_what_a_version_lacks_is_refused(artefact: Artefact) -> None:
    """A flag or a level of compatibility that came with a later release is named."""
    none: Any = SimpleNamespace(
        __version__="10.0.1",
        BuilderFlag=SimpleNamespace(SPARSE_WEIGHTS=0),
        HardwareCompatibilityLevel=SimpleNamespace(NONE=0, AMPERE_PLUS=1),
    )
    options, anything = Options(hardware="same_compute_capability"), cast(Any, None)

    with pytest.raises(Unavailable, match=r"TensorRT 10\.0\.1 has no STRICT_NANS"):
        flags_for(none, read_plan(artefact.folder), Options(strict_nans=True), "dense")
    with pytest.raises(Unavailable, match="does not know same_compute_capability"):
        apply_options(none, anything, options)


def test_options_reach_the_builder() -> None:
    """Its workspace, and the GPUs that the engine is to run on; by default TensorRT's own."""
    levels = SimpleNamespace(NONE=0, AMPERE_PLUS=1, SAME_COMPUTE_CAPABILITY=2)
    trt: Any = SimpleNamespace(
        HardwareCompatibilityLevel=levels, MemoryPoolType=SimpleNamespace(WORKSPACE="workspace")
    )
    limits: dict[str, int] = {}
    config: Any = SimpleNamespace(set_memory_pool_limit=limits.__setitem__)

    apply_options(trt, config, Options())
    assert not hasattr(config, "hardware_compatibility_level") and not limits
    apply_options(trt, config, Options(hardware="same_compute_capability", workspace_bytes=1 << 30))
    assert (config.hardware_compatibility_level, limits) == (2, {"workspace": 1 << 30})


def test_strict_nans_are_the_same_in_both_arms(machine: Made, artefact: Artefact) -> None:
    """The flag is no difference between what is compared."""
    here = machine()

    build_engine(artefact, BuildRequest(builds=1, options=Options(strict_nans=True)))

    assert len(here.log.builds) == 2
    assert all("STRICT_NANS" in built["flags"] for built in here.log.builds)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("8.6.1", False),
        ("9.3.0", False),
        ("10.0.0b6", True),
        ("10.16.1.11", True),
        ("11.4.0", True),
        ("12.0.0", False),
    ],
)
def test_two_versions_are_known(version: str, known: bool, machine: Made) -> None:
    """Others are refused by name: what they need is not known here."""
    machine("10.13.3.9")
    vars(sys.modules["tensorrt"])["__version__"] = version

    assert supported(version) == known
    if not known:
        with pytest.raises(
            Unavailable, match=rf"TensorRT 10 or 11 is needed; got TensorRT {version}"
        ):
            import_tensorrt()


def test_versions_compare_as_numbers() -> None:
    """10.9 is older than 10.13."""
    assert numbers_of("10.9.0.34") < numbers_of("10.13.3.9") < numbers_of("11")
    assert numbers_of("11") == (11, 0)


def test_the_cuda_of_an_installation_is_read_off_its_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest of those whose names tell one; none where none does."""
    installed = {"tensorrt_cu13_bindings": "11.4", "tensorrt_cu12": "10.1"}
    monkeypatch.setattr("spd_deploy.domain.versions.version_of", installed.get)
    assert versions.cuda_major_of_tensorrt() == 13

    installed.clear()
    assert versions.cuda_major_of_tensorrt() is None
