"""Built engines on the GPU: how long each takes at each bucket, and what runs in them.

Whole engines are timed in turns, each loaded, timed at every bucket and dropped, again and again,
so that a GPU that slows down does so for all. Layers are timed by TensorRT's own profiler, whose
sum is more than the engine takes: it waits after each. So they compare with each other alone.
"""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from statistics import median
from types import ModuleType
from typing import Any

from exporters.tensorrt.inspector import Layer, layers_in
from exporters.tensorrt.verdict import Seen
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.progress import Advance
from spd_deploy.sessions.tensorrt.executor import Executor, ProfileContext
from spd_deploy.timing.rounds import interleave

Opener = Callable[[bytes], AbstractContextManager[Executor]]

ROUNDS = 3
_WARM_UP, _LAUNCHES = 5, 20
_PROFILED = 10
_PROFILE = re.compile(r"\s*\[profile \d+\]$")


def time_in_turns(
    engines: Sequence[bytes], opened: Opener, advance: Advance
) -> list[tuple[tuple[float, ...], ...]]:
    """Of each engine, the samples at each bucket, in seconds on the GPU."""
    found: list[list[list[float]]] = [[] for _ in engines]
    for _, i in interleave(range(len(engines)), ROUNDS):
        with opened(engines[i]) as executor:
            rounds = [_launched(executor, profile) for profile in executor.profiles]
        found[i] = [*map(list.__add__, found[i], rounds)] if found[i] else rounds
        advance(note="timed in turns")
    return [tuple(tuple(samples) for samples in of_engine) for of_engine in found]


def seen_in(
    engine: bytes, opened: Opener, tensorrt: ModuleType
) -> tuple[tuple[Seen, ...], list[Any]]:
    """What runs in an engine at each bucket, with the inspector's own documents."""
    documents: list[Any] = []
    found = []
    with opened(engine) as executor:
        for number, profile in enumerate(executor.profiles):
            text = _inspected(executor, profile, tensorrt)
            documents.append(json.loads(text))
            layers = of_profile(layers_in(text), number, len(executor.profiles))
            found.append(Seen(layers=layers, seconds=_profiled(executor, profile, tensorrt)))
            del profile  # it would keep its context past the memory that this points to
    return tuple(found), documents


def of_profile(layers: tuple[Layer, ...], number: int, profiles: int) -> tuple[Layer, ...]:
    """The layers of one of ``profiles``, of a document that tells of all; none where it is unclear.

    Profiles lie one after another, each with as many layers. Marks of profiles may be missing on
    compiled layers, so the place counts, unless a mark contradicts it; then the marks do.
    """
    each, rest = divmod(len(layers), profiles)
    turns = [layers[i * each : (i + 1) * each] for i in range(profiles)]
    agree = all(layer.profile in (0, i) for i, turn in enumerate(turns) for layer in turn)
    if not rest and agree:
        return turns[number]
    marked = [i for i, layer in enumerate(layers) if layer.profile > 0]
    if number == 0:  # what has no mark after the first that has one may be of any profile
        return layers[: marked[0]] if marked else ()
    return tuple(layers[i] for i in marked if layers[i].profile == number)


def _launched(executor: Executor, profile: ProfileContext) -> list[float]:
    """A profile's times after some launches that do not count."""
    for _ in range(_WARM_UP):
        executor.launch(profile)
    samples = []
    with executor.device.timer() as timer:
        for _ in range(_LAUNCHES):
            with timer.around():
                executor.launch(profile)
            samples.append(timer.seconds())
    return samples


def _inspected(executor: Executor, profile: ProfileContext, tensorrt: ModuleType) -> str:
    """What the inspector says of a profile."""
    inspector = executor.engine.create_engine_inspector()
    inspector.execution_context = profile.context
    return str(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))


def _profiled(
    executor: Executor, profile: ProfileContext, tensorrt: ModuleType
) -> dict[str, float]:
    """The median time of each layer by its name, without a graph."""
    times: dict[str, list[float]] = {}
    profiler = _profiler_of(tensorrt, times)
    profile.context.profiler = profiler
    for _ in range(_PROFILED):
        if not profile.context.execute_async_v3(executor.device.stream):
            raise EngineFailed(
                "TensorRT failed to time layers", got=executor.messages.why(), fix="see above"
            )
        executor.device.wait()
    return {name: median(seconds) for name, seconds in times.items()}


def _profiler_of(tensorrt: ModuleType, times: dict[str, list[float]]) -> Any:
    """A profiler that keeps what it is told."""

    class Profiler(tensorrt.IProfiler):  # type: ignore[name-defined,misc]  # known when imported
        """TensorRT's side of it."""

        def __init__(self) -> None:
            tensorrt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """One layer of one run."""
            times.setdefault(_PROFILE.sub("", layer_name), []).append(ms / 1e3)

    return Profiler()
