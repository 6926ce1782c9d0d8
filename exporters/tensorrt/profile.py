"""Built engines on the GPU: how long each takes at each bucket, and what runs in them.

Whole engines take turns: each is loaded, timed at every bucket and dropped, in several rounds. A
GPU that slows down then slows all of them down. Layers are timed by TensorRT's own profiler. It
waits after each layer, so their sum is more than the engine takes, and their times compare with
each other only.
"""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from statistics import median
from types import ModuleType
from typing import Any

from exporters.tensorrt.inspector import Layer, layers_in
from exporters.tensorrt.verdict import BucketProfile
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.progress import Advance
from spd_deploy.sessions.tensorrt.executor import Executor, ProfileContext
from spd_deploy.timing.rounds import interleave

Opener = Callable[[bytes], AbstractContextManager[Executor]]

ROUNDS = 3
_WARM_UP, _LAUNCHES = 5, 20
_PROFILED = 10
_PROFILE = re.compile(r"\s*\[profile \d+\]$")


def time_engines(
    engines: Sequence[bytes], opened: Opener, advance: Advance
) -> list[tuple[tuple[float, ...], ...]]:
    """The times of each engine at each bucket, in seconds on the GPU."""
    samples: list[list[list[float]]] = [[] for _ in engines]
    for _, i in interleave(range(len(engines)), ROUNDS):
        with opened(engines[i]) as executor:
            rounds = [_launched(executor, lane) for lane in executor.profiles]
        samples[i] = [*map(list.__add__, samples[i], rounds)] if samples[i] else rounds
        advance(note="timed in turns")
    return [tuple(map(tuple, buckets)) for buckets in samples]


def profile_engine(
    engine: bytes, opened: Opener, tensorrt: ModuleType
) -> tuple[tuple[BucketProfile, ...], list[Any]]:
    """The layers of an engine at each bucket with their times, and the inspector's documents."""
    documents: list[Any] = []
    profiles = []
    with opened(engine) as executor:
        for number, lane in enumerate(executor.profiles):
            text = _inspected(executor, lane, tensorrt)
            documents.append(json.loads(text))
            layers = layers_of_profile(layers_in(text), number, len(executor.profiles))
            profiles.append(
                BucketProfile(layers=layers, seconds=_profiled(executor, lane, tensorrt))
            )
            del lane  # it would keep its context past the memory that this points to
    return tuple(profiles), documents


def layers_of_profile(layers: tuple[Layer, ...], number: int, profiles: int) -> tuple[Layer, ...]:
    """The layers of profile ``number``, from a document of all ``profiles``; empty if unclear.

    Profiles follow one another with the same number of layers each. Compiled layers may lack the
    mark of their profile, so the position decides, unless a mark contradicts it; then marks do.
    """
    each, rest = divmod(len(layers), profiles)
    parts = [layers[i * each : (i + 1) * each] for i in range(profiles)]
    agree = all(layer.profile in (0, i) for i, part in enumerate(parts) for layer in part)
    if not rest and agree:
        return parts[number]
    marked = [i for i, layer in enumerate(layers) if layer.profile > 0]
    if number == 0:  # what has no mark after the first that has one may be of any profile
        return layers[: marked[0]] if marked else ()
    return tuple(layers[i] for i in marked if layers[i].profile == number)


def _launched(executor: Executor, lane: ProfileContext) -> list[float]:
    """The seconds of some launches of a lane, after launches to warm up."""
    for _ in range(_WARM_UP):
        executor.launch(lane)
    samples = []
    with executor.device.timer() as timer:
        for _ in range(_LAUNCHES):
            with timer.around():
                executor.launch(lane)
            samples.append(timer.seconds())
    return samples


def _inspected(executor: Executor, lane: ProfileContext, tensorrt: ModuleType) -> str:
    """The inspector's document of a lane, as JSON."""
    inspector = executor.engine.create_engine_inspector()
    inspector.execution_context = lane.context
    return str(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))


def _profiled(executor: Executor, lane: ProfileContext, tensorrt: ModuleType) -> dict[str, float]:
    """The median seconds of each layer by its name, run without a CUDA graph."""
    times: dict[str, list[float]] = {}
    profiler = _profiler_of(tensorrt, times)
    lane.context.profiler = profiler
    for _ in range(_PROFILED):
        if not lane.context.execute_async_v3(executor.device.stream_handle):
            raise EngineFailed(
                "TensorRT failed to time layers",
                got=executor.messages.why(),
                fix="run `spd doctor`; if it finds nothing, report this with TensorRT's version",
            )
        executor.device.wait()
    return {name: median(seconds) for name, seconds in times.items()}


def _profiler_of(tensorrt: ModuleType, times: dict[str, list[float]]) -> Any:
    """A profiler that collects the times of each layer in ``times``."""

    class Profiler(tensorrt.IProfiler):  # type: ignore[name-defined,misc]  # known when imported
        """TensorRT calls this for each layer of each run."""

        def __init__(self) -> None:
            tensorrt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """Note the time of one layer in one run; the mark of its profile is cut off."""
            times.setdefault(_PROFILE.sub("", layer_name), []).append(ms / 1e3)

    return Profiler()
