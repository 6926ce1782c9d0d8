"""The checks of ONNX Runtime's execution providers: whether each one really loads.

ONNX Runtime lists the providers that it was built with. Where one cannot start, it falls back to
the CPU and writes a log line. Therefore each provider opens a session on a one-node model in a
separate process. A crash stays in that process, and its log, which has the reason, can be read.

    python -m spd_deploy.machine.providers CUDAExecutionProvider
"""

import re
import subprocess
import sys
from collections.abc import Collection, Iterator

from spd_deploy.domain.child import child_environment, python_module
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.versions import version_of
from spd_deploy.machine.check import Check, failed, passed
from spd_deploy.sessions.onnxruntime import import_onnxruntime, refuse_double_install

GROUP = "ONNX Runtime"
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_COMMON = ("CPUExecutionProvider", CUDA, TENSORRT)
# This provider sends work to a cloud service.
_REMOTE = "AzureExecutionProvider"
_TIMEOUT_S = 120.0
# An ONNX model that returns its input, in a version that every runtime reads. It is written out,
# since the package onnx need not be installed.
ONE_NODE = (
    b'\x08\x08:9\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x03oneZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12'
    b"\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def provider_checks(*, has_gpu: bool) -> Iterator[Check]:
    """A check of the package, then one of each provider that is listed or commonly wanted."""
    try:
        refuse_double_install()
        ort = import_onnxruntime()
    except Unavailable as err:
        yield failed(GROUP, "onnxruntime", found=err.got, reason=err.what, remedy=err.fix)
        return
    package = "onnxruntime-gpu" if version_of("onnxruntime-gpu") else "onnxruntime"
    yield passed(GROUP, "onnxruntime", f"{package} {ort.__version__}")
    listed = [name for name in ort.get_available_providers() if name != _REMOTE]
    for name in dict.fromkeys((*_COMMON, *listed)):
        fault = failure_of(name) if name in listed else None
        yield check_of(name, listed, fault, has_gpu=has_gpu)


def check_of(name: str, listed: Collection[str], fault: str | None, *, has_gpu: bool) -> Check:
    """The check of a provider, given the listed ones and the reason why it does not load."""
    if name not in listed:
        return failed(
            GROUP,
            name,
            reason="the installed build of ONNX Runtime does not contain it",
            remedy=_remedy(name, has_gpu=has_gpu),
        )
    if fault is not None:
        remedy = _remedy(name, has_gpu=has_gpu)
        return failed(GROUP, name, found="built in", reason=fault, remedy=remedy)
    return passed(GROUP, name, "loads and runs")


def failure_of(provider: str) -> str | None:
    """The reason why no session starts on ``provider``; None if one does."""
    command = [*python_module(__name__), provider]
    try:
        done = subprocess.run(
            command,
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        return f"the process that tries it did not end: {err}"
    if done.returncode == 0:
        return None
    return reason_in(done.stderr) or f"the process that tried it ended with code {done.returncode}"


def reason_in(stderr: str) -> str | None:
    """The reason in a log: a library that does not load, else the runtime's error or last line."""
    if libraries := re.findall(r"with error: (.+)", stderr):
        return str(libraries[-1]).strip()
    lines = [line.strip() for line in stderr.splitlines() if line.strip(" *")]
    telling = [line for line in lines if "[E:" in line or line.startswith("EP Error")] or lines
    return telling[-1].rpartition("] ")[2] if telling else None


def runs_on(provider: str) -> bool:
    """Whether a session with ``provider`` runs on it; if not, ONNX Runtime logs the reason."""
    import numpy as np

    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(ONE_NODE, options, providers=[provider])
    session.run(None, {"x": np.ones(1, np.float32)})
    return provider in session.get_providers()


def _remedy(name: str, *, has_gpu: bool) -> str:
    """The remedy for a provider that does not load."""
    if name in (CUDA, TENSORRT) and not has_gpu:
        return "it needs an NVIDIA GPU; use --device cpu"
    match name:
        case "CUDAExecutionProvider":
            return (
                "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'spd-deploy[gpu]' "
                "'onnxruntime-gpu[cuda,cudnn]'"
            )
        case "TensorrtExecutionProvider":
            return "install the TensorRT that this build of ONNX Runtime is linked with"
        case _:
            return "reinstall ONNX Runtime, or run on another provider"


if __name__ == "__main__":
    sys.exit(0 if runs_on(sys.argv[1]) else 3)
