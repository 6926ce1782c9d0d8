"""The table of runtimes agrees with itself and with the formats of export."""

from typing import get_args

import pytest

from spd_deploy.domain.artefact import Format
from spd_deploy.domain.runtime_choice import (
    CPU_RUNTIMES,
    RUNTIME_CHOICES,
    RUNTIMES,
    Runtime,
    reads_portable,
    runtimes_of,
    traits_of,
)
from spd_deploy.domain.scores import score_owner


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_has_formats_and_a_device(runtime: Runtime) -> None:
    """Each runtime runs a format that exists, in the format's own precision, on some device."""
    traits = traits_of(runtime)

    assert set(traits.formats) <= set(get_args(Format))
    assert traits.formats and traits.devices and traits.precisions_of("fp32")[0] == "fp32"
    assert ("cpu" in traits.devices) >= (runtime in CPU_RUNTIMES)


def test_each_format_begins_with_the_runtime_it_is_for() -> None:
    """A format's first runtime is the one that an export of it is served in."""
    assert [runtimes_of(format_)[0] for format_ in get_args(Format)] == [
        "onnxruntime",
        "tensorrt",
        "torch",
    ]
    assert runtimes_of("trt") == ("tensorrt", "onnxruntime", "openvino")


def test_the_choices_are_each_runtime_and_each_rounding() -> None:
    """``--runtime`` takes auto, every runtime, and OpenVINO's bf16."""
    assert set(RUNTIME_CHOICES) == {"auto", *RUNTIMES, "openvino:bf16"}


@pytest.mark.parametrize(
    ("format_", "runtime", "owner"),
    [
        ("onnx", "onnxruntime", "int8"),
        ("onnx", "openvino", "int8, portable"),
        ("trt", "openvino", "int8"),
        ("trt", "tensorrt", "int8"),
        ("onnx", "torch eager", "int8"),
    ],
)
def test_the_portable_score_is_that_of_a_second_graph(
    format_: str, runtime: str, owner: str
) -> None:
    """Only an ``onnx`` artefact has two graphs, and so a score of the portable one."""
    assert score_owner(pruned=True, precision="int8", format_=format_, runtime=runtime) == owner
    assert (owner == "int8, portable") <= reads_portable(runtime)
