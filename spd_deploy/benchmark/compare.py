"""``spd bench`` as a function: artefacts against a baseline, on a CPU or a GPU."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns

from spd_deploy.benchmark.arms import AUTO, Arm, ArmSource, refuse_long
from spd_deploy.benchmark.artefact_arms import arms_of, refuse_unreadable, sources_of
from spd_deploy.benchmark.baseline import baseline_from
from spd_deploy.benchmark.dense.dense_arms import NAMES, DenseModel, DenseName, dense_arms
from spd_deploy.benchmark.http.http_records import HttpSettings
from spd_deploy.benchmark.http.measure_http import measure_http, sources_to_serve
from spd_deploy.benchmark.http.servers import match_servers
from spd_deploy.benchmark.records import BenchmarkSettings, Skipped
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.run import run_benchmark
from spd_deploy.domain.artefact import is_artefact, open_artefact
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtime_choice import RuntimeChoice
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda


def compare_artefacts(
    artefacts: Sequence[Path],
    settings: BenchmarkSettings,
    *,
    baseline: Path | None = None,
    runtime_choices: Sequence[RuntimeChoice] = (AUTO,),
    dense: Sequence[DenseName] = NAMES,
    profile: bool = False,
    http: HttpSettings | None = None,
    urls: Sequence[str] = (),
    api_key: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure the artefacts in each requested runtime, in turns with the baseline.

    On a CPU a checkpoint as the baseline is exported dense, and the first runtime's is compared
    with. On a GPU the dense arms named by ``dense`` run it. Each shape is then compared
    with the fastest dense arm, dense artefacts included.

    With ``http`` the arms are then measured behind HTTP too: in servers that are started for it,
    or in those at ``urls``, which want ``api_key``.

    Raises:
        SpdError: a folder holds no artefact or model, an arm does not run here, or a shape is
            longer than some arm reads.
    """
    progress, on_gpu = progress or Silent(), settings.device == "cuda"
    opened = [open_artefact(path) for path in artefacts]
    sources = sources_of(opened, runtime_choices)
    refuse_long(sources, settings)  # before a baseline is exported for nothing
    refuse_unreadable(sources, settings.device)
    if on_gpu:
        refuse_without_cuda()
    dense_models: tuple[Arm, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    with ExitStack() as stack:
        if baseline is not None and on_gpu and not is_artefact(baseline):
            scratch = stack.enter_context(scratch_folder("bench"))
            model = DenseModel.of(open_checkpoint(baseline), scratch)
            dense_models, skipped = dense_arms(model, dense, engines=engines_of(sources))
        elif baseline is not None:
            opened.insert(0, stack.enter_context(baseline_from(baseline, progress=progress)))
        arms = (*dense_models, *arms_of(opened, runtime_choices))
        named = () if baseline is None else (arms[0].name,)
        if http is not None:  # before minutes are spent on the bare engines
            match_servers(sources_to_serve(arms), urls, api_key=api_key)
        report = run_benchmark(
            arms,
            settings,
            baselines=dense_names(arms) if on_gpu else named,
            skipped=skipped,
            profile=profile,
            progress=progress,
        )
        if http is None:
            return report
        part = measure_http(
            arms,
            settings,
            http,
            urls=urls,
            api_key=api_key,
            clock=perf_counter_ns,
            progress=progress,
        )
        return replace(report, http=part)


def dense_names(arms: Sequence[Arm]) -> tuple[str, ...]:
    """The names of the dense arms."""
    return tuple(arm.name for arm in arms if arm.dense)


def engines_of(sources: Sequence[ArmSource]) -> frozenset[str]:
    """The precisions of the dense TensorRT artefacts."""
    manifests = [source.artefact.manifest for source in sources]
    return frozenset(m.precision for m in manifests if m.format == "trt" and m.sparsity is None)
