"""What each version of TensorRT is told, and what it is not."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from exporters.tensorrt.build import Order, build_engine
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.engines.plan import BuildPlan, Options, Typed, read_plan
from spd_deploy.domain.errors import Unavailable
from spd_deploy.sessions.cuda.library import load_driver
from spd_deploy.sessions.tensorrt import versions
from spd_deploy.sessions.tensorrt.messages import Messages
from spd_deploy.sessions.tensorrt.versions import (
    flags_for,
    import_tensorrt,
    numbers_of,
    pin_types,
    supported,
)
from tests.engines.conftest import Machine

Made = Callable[..., Machine]


def plan_in(artefact: Artefact, precision: Typed) -> BuildPlan:
    return replace(read_plan(artefact.folder), precision=precision)


@pytest.mark.parametrize(
    ("version", "precision", "expected"),
    [
        ("8.6.1", "fp32", ()),
        ("8.6.1", "fp16", ("FP16", "OBEY_PRECISION_CONSTRAINTS")),
        ("8.6.1", "int8", ("INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS")),
        ("10.0.1", "fp16", ()),
        ("10.16.1.11", "int8", ()),
        ("11.4.0.106", "fp16", ()),
    ],
)
def test_precision_is_a_flag_in_8_alone(
    version: str, precision: Typed, expected: tuple[str, ...], machine: Made, artefact: Artefact
) -> None:
    """From 10 on the graph's own types rule; sparse kernels are asked for in all."""
    machine(version)
    trt, plan = import_tensorrt(), plan_in(artefact, precision)

    assert flags_for(trt, plan, Options(), "sparse") == (*expected, "SPARSE_WEIGHTS")
    assert flags_for(trt, plan, Options(), "dense") == expected


@pytest.mark.parametrize(("version", "bits"), [("8.6.1", 1), ("10.13.3.9", 2), ("11.4.0.106", 2)])
def test_networks_are_explicit_or_strongly_typed(
    version: str, bits: int, machine: Made, artefact: Artefact
) -> None:
    """Bit 0 is the explicit batch, which 8.6 needs; bit 1 is strong typing, which 10 needs."""
    here = machine(version)

    build_engine(artefact, Order(builds=1))

    assert {config["network"] for config in here.log.configs} == {bits}
    assert all("TF32" in config["cleared"] for config in here.log.configs)
    assert all(config["profiling_verbosity"] == "DETAILED" for config in here.log.configs)


@pytest.mark.parametrize(("version", "pinned"), [("8.6.1", True), ("10.13.3.9", False)])
def test_types_of_layers_are_pinned_in_8_alone(
    version: str, pinned: bool, machine: Made, artefact: Artefact
) -> None:
    """A layer norm of fp32 stays fp32 under the flag; casts and shapes are left as they are."""
    here = machine(version)

    build_engine(artefact, Order(builds=1))

    product, norm, cast, shape = here.log.configs[0]["pinned"]
    half: dict[str, Any] = {"precision": "float16", "output 0": "float16"}
    single: dict[str, Any] = {"precision": "float32", "output 0": "float32"}
    assert product == (half if pinned else {})
    assert norm == (single if pinned else {})
    assert [cast, shape] == [{}, {}]


def test_quantised_products_are_not_pinned(machine: Made, artefact: Artefact) -> None:
    """Their outputs are fp32, and they would be run so; a norm stays single in int8 too."""
    machine("8.6.1")
    trt, plan = import_tensorrt(), plan_in(artefact, "int8")
    load_driver()
    made = trt.Builder(Messages(trt).logger).create_network(1)

    pin_types(trt, made, plan)

    product, norm, *_ = [made.get_layer(i).pinned for i in range(made.num_layers)]
    assert product == {}
    assert norm == {"precision": "float32", "output 0": "float32"}


def test_what_a_version_lacks_is_refused(machine: Made, artefact: Artefact) -> None:
    """Strict NaNs, and GPUs of the same compute capability, are not of 8.6."""
    machine("8.6.1")
    plan = read_plan(artefact.folder)
    options = Options(hardware="same_compute_capability")

    with pytest.raises(Unavailable, match=r"TensorRT 8\.6\.1 has no STRICT_NANS"):
        flags_for(import_tensorrt(), plan, Options(strict_nans=True), "dense")
    with pytest.raises(Unavailable, match="does not know same_compute_capability"):
        build_engine(artefact, Order(builds=1, options=options))


def test_strict_nans_are_the_same_in_both_arms(machine: Made, artefact: Artefact) -> None:
    """The flag is no difference between what is compared."""
    here = machine()

    build_engine(artefact, Order(builds=1, options=Options(strict_nans=True)))

    assert len(here.log.configs) == 2
    assert all("STRICT_NANS" in config["flags"] for config in here.log.configs)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("8.6.0", True),
        ("8.5.3.1", False),
        ("9.3.0", False),
        ("10.0.0b6", True),
        ("10.16.1.11", True),
        ("11.4.0", True),
        ("12.0.0", False),
    ],
)
def test_three_versions_are_known(version: str, known: bool, machine: Made) -> None:
    """Others are refused by name: what they need is not known here."""
    machine("10.13.3.9")
    vars(sys.modules["tensorrt"])["__version__"] = version

    assert supported(version) == known
    if not known:
        with pytest.raises(Unavailable, match=rf"works with TensorRT 8\.6.*got {version}"):
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
