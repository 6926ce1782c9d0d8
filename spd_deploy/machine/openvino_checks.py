"""The checks of OpenVINO and the precisions in which it runs on this processor."""

from collections.abc import Collection, Iterator

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.versions import version_of
from spd_deploy.machine.check import Check, failed, passed
from spd_deploy.machine.processor import cpu_features
from spd_deploy.sessions.openvino import openvino_core, precisions_of

GROUP = "OpenVINO"
_INT8 = ("VNNI", "AMX")


def openvino_checks() -> Iterator[Check]:
    """Checks of the package, of bf16 and of int8."""
    try:
        core = openvino_core()
    except Unavailable as err:
        yield failed(
            GROUP,
            "openvino",
            reason="the optional package openvino does not import",
            found=err.got,
            remedy=f"{err.fix}; artefacts also run in ONNX Runtime",
        )
        return
    yield passed(GROUP, "openvino", f"openvino {version_of('openvino')}")
    offered = precisions_of(core)
    yield bf16_check(offered)
    yield int8_check(offered, cpu_features() or ())


def bf16_check(offered: Collection[str]) -> Check:
    """Whether fp32 artefacts can run in bf16."""
    if "bf16" in offered:
        return passed(GROUP, "openvino in bf16", "--runtime openvino:bf16")
    return failed(
        GROUP,
        "openvino in bf16",
        reason="OpenVINO offers no bf16 on this processor",
        remedy="use fp32 or int8, which run on every processor",
    )


def int8_check(offered: Collection[str], features: Collection[str]) -> Check:
    """Whether the processor has instructions for int8 products."""
    found = [name for name in _INT8 if name in features]
    if "int8" in offered and found:
        return passed(GROUP, "openvino in int8", f"products by {' and '.join(found)}")
    return failed(
        GROUP,
        "openvino in int8",
        reason=f"the processor has neither {' nor '.join(_INT8)} for int8 products",
        remedy="int8 artefacts run, but may not be faster than fp32; measure with: spd bench",
    )
