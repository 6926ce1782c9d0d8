"""Builds one engine: parses the ONNX file, configures the builder, and runs it for minutes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from exporters.tensorrt.interrupts import Stop, held_back
from spd_deploy.domain.errors import BadArtefact, EngineFailed
from spd_deploy.domain.progress import Advance
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.text import INPUTS
from spd_deploy.sessions.tensorrt.build_plan import BuildPlan, Options
from spd_deploy.sessions.tensorrt.engine_record import Variant
from spd_deploy.sessions.tensorrt.messages import Messages
from spd_deploy.sessions.tensorrt.versions import (
    apply_options,
    flags_for,
    network_flags,
)

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """The result of one build.

    Attributes:
        engine: the serialised engine.
        timings: the timing cache after the build.
        flags: the names of the builder flags that were set.
        sparsity_log: the lines of the builder's log about sparse kernels.
    """

    engine: bytes
    timings: bytes
    flags: tuple[str, ...]
    build_s: float
    sparsity_log: tuple[str, ...]


def compile_engine(
    tensorrt: ModuleType,
    model: Path,
    plan: BuildPlan,
    options: Options,
    variant: Variant,
    *,
    timings: bytes,
    advance: Advance,
) -> Compiled:
    """Build an engine of ``model`` for the plan's buckets, starting from known ``timings``.

    Raises:
        BadArtefact: TensorRT's parser refuses the file; the error lists all of its messages.
        Unavailable: this TensorRT cannot do what the plan needs, or the GPU's memory is full.
        EngineFailed: TensorRT built no engine.
    """
    messages = Messages(tensorrt)
    builder = _builder_of(tensorrt, messages)
    network = builder.create_network(network_flags(tensorrt))
    _parse(tensorrt, network, messages, model)
    flags = flags_for(tensorrt, plan, options, variant)
    config = configured(tensorrt, builder, plan, options, flags)
    cache = _cache_of(config, timings, messages)
    start = time.perf_counter()
    with held_back() as stop:
        config.progress_monitor = _monitor_of(tensorrt, advance, stop)
        built = builder.build_serialized_network(network, config)
    build_s = time.perf_counter() - start
    if built is None:
        raise messages.failure(
            EngineFailed("TensorRT built no engine", got=messages.why(), fix="run `spd doctor`")
        )
    return Compiled(
        engine=bytes(built),
        timings=bytes(cache.serialize()),
        flags=flags,
        build_s=build_s,
        sparsity_log=tuple(dict.fromkeys(messages.sparsity)),
    )


def _builder_of(tensorrt: ModuleType, messages: Messages) -> Any:
    """A builder of TensorRT.

    Raises:
        EngineFailed: TensorRT made none; its binding raises an error without a reason then.
    """
    try:
        return tensorrt.Builder(messages.logger)
    except (RuntimeError, TypeError) as err:
        raise messages.failure(
            EngineFailed(
                "TensorRT cannot build engines on this GPU",
                got=messages.why(),
                fix="run `spd doctor`",
            )
        ) from err


def _cache_of(config: Any, timings: bytes, messages: Messages) -> Any:
    """The timing cache to start from; an empty one where TensorRT refuses ``timings``."""
    for content in (timings, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    raise messages.failure(
        EngineFailed("TensorRT made no timing cache", got=messages.why(), fix="run `spd doctor`")
    )


def configured(
    tensorrt: ModuleType, builder: Any, plan: BuildPlan, options: Options, flags: Sequence[str]
) -> Any:
    """The builder's configuration: flags, limits, and one profile for each bucket."""
    config = builder.create_builder_config()
    for name in flags:
        config.set_flag(getattr(tensorrt.BuilderFlag, name))
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # fp32 in the graph stays fp32
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    apply_options(tensorrt, config, options)
    for bucket in plan.buckets:
        _add_profile(builder, config, bucket)
    return config


def _parse(
    tensorrt: ModuleType, network: "trt.INetworkDefinition", messages: Messages, model: Path
) -> None:
    """Parse the ONNX file into ``network``.

    Raises:
        BadArtefact: the parser refuses it.
    """
    parser = tensorrt.OnnxParser(network, messages.logger)
    if parser.parse_from_file(str(model)):
        return
    errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
    raise BadArtefact(
        f"TensorRT's parser refuses {model.name}",
        got=" | ".join(errors) or messages.why(),
        fix="export it again; if that fails too, please report this, with TensorRT's version",
    )


def _add_profile(builder: Any, config: Any, bucket: Shape) -> None:
    """Add a profile whose minimum, optimum and maximum shape are all the bucket."""
    profile = builder.create_optimization_profile()
    shape = (bucket.batch, bucket.seq)
    for name in INPUTS:
        profile.set_shape(name, shape, shape, shape)
    if config.add_optimization_profile(profile) < 0:
        raise EngineFailed(
            f"TensorRT refuses the shape {bucket}",
            fix="export again with other --batch and --seq",
        )


def _monitor_of(tensorrt: ModuleType, advance: Advance, stop: Stop) -> Any:
    """A progress monitor that reports TensorRT's phases, and stops the build after Ctrl-C."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[name-defined,misc]  # late, as above
        """TensorRT calls this while it builds. An exception here ends the build and is lost."""

        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Report a phase that is no part of another."""
            try:
                if parent_phase is None:
                    advance(0, note=phase_name)
            except KeyboardInterrupt:
                stop.requested = True

        def phase_finish(self, phase_name: str) -> None:
            """Report nothing when a phase ends: the next one does."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Whether TensorRT may continue: no after Ctrl-C."""
            return not stop.requested

    return Monitor()
