"""Artefacts against the forms of a dense model on a GPU: from what was named to a report."""

from collections.abc import Sequence

from spd_deploy.benchmark.arms import Arm
from spd_deploy.benchmark.cuda.entrants import Weigh, entrant_of
from spd_deploy.benchmark.cuda.run import run_on_gpu
from spd_deploy.benchmark.dense.dense_arms import DenseModel, dense_entrants
from spd_deploy.benchmark.device.device_records import Skipped
from spd_deploy.benchmark.records import BenchmarkSettings
from spd_deploy.benchmark.report import Report
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.progress import Progress
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda


def compare_on_gpu(
    arms: Sequence[Arm],
    model: DenseModel | None,
    names: Sequence[str],
    settings: BenchmarkSettings,
    *,
    weigh: Weigh,
    absent: Sequence[Skipped] = (),
    spare: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Measure the arms in turns with the forms of a dense model that have these names.

    Forms come first, so that the first that runs is the report's baseline by name; every arm that
    is not sparse is a dense one too. With ``spare``, sparse arms that do not run are left out.

    Raises:
        SpdError: there is no GPU, or an arm does not run on it.
    """
    refuse_off_gpu(arms)
    refuse_without_cuda()
    entrants = tuple(entrant_of(arm, settings, weigh=weigh) for arm in arms)
    forms, lacking = (
        ((), ())
        if model is None
        else dense_entrants(model, names, settings, engines=engines_of(arms))
    )
    return run_on_gpu(
        (*forms, *entrants),
        settings,
        absent=(*absent, *lacking),
        spare=spare,
        progress=progress,
    )


def refuse_off_gpu(arms: Sequence[Arm]) -> None:
    """Refuse runtimes that have no GPU, before anything is opened.

    Raises:
        Unavailable: an arm is to run in one.
    """
    if any(arm.runtime == "openvino" for arm in arms):
        raise Unavailable(
            "OpenVINO runs on the CPU here",
            got="device cuda",
            fix="use --runtime onnxruntime, or --device cpu",
        )


def engines_of(arms: Sequence[Arm]) -> frozenset[str]:
    """The precisions of the dense TensorRT artefacts among the arms."""
    manifests = [arm.artefact.manifest for arm in arms]
    return frozenset(m.precision for m in manifests if m.format == "trt" and m.sparsity is None)
