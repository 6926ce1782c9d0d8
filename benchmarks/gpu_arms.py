"""The arms of :mod:`benchmarks.gpu` at one shape: made on the GPU, held to a reference, timed.

Every arm runs by CUDA graph, in the sessions that ``spd bench`` and ``spd serve`` use. Rounds are
interleaved, since the clocks of a GPU drift.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, Literal, assert_never, get_args

import numpy as np

from benchmarks.gpu_networks import NETWORKS, SparseNetwork, drawn_model, encoder_of, spd_network
from benchmarks.gpu_report import Line, with_gains
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import reason_of
from spd_deploy.domain.patterns import Block
from spd_deploy.domain.shapes import Shape, random_batch
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.device_runs import DeviceRun
from spd_deploy.timing.cuda_clock import DeviceClock, stream_seconds

DENSE = SparseNetwork(name="dense")
Form = Literal["torch-eager", "torch-compile", "torch-spd"]
FORMS: tuple[Form, ...] = get_args(Form)
_SPD: tuple[Form, ...] = ("torch-spd",)
_WARM_UPS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuArm:
    """A network in a form: Transformers' eager or compiled by graph, or this project's."""

    network: SparseNetwork
    form: Form

    def __str__(self) -> str:
        """Such as ``structured 75%, torch-compile``."""
        return f"{self.network.name}, {self.form}"

    @property
    def dense(self) -> bool:
        """Whether it is a baseline."""
        return self.network == DENSE


def arms_of_session() -> tuple[GpuArm, ...]:
    """Dense in every form, then structured in every form, then patterns in this project's.

    Zeros in place make no stock kernel faster, so a pattern has one form.
    """
    return tuple(
        GpuArm(network=network, form=form)
        for network in (DENSE, *NETWORKS)
        for form in (FORMS if network.pattern is None else _SPD)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How many rounds, and runs of each arm in a round."""

    rounds: int = 7
    runs: int = 20


@dataclass(kw_only=True)
class Samples:
    """Seconds of an arm by the GPU's clock."""

    hot: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)

    def line(self) -> Line:
        """The figures, and each round's samples."""
        tenths = quantiles(self.hot, n=10)
        return {
            "graph_s": median(self.hot),
            "spread_s": [tenths[0], tenths[-1]],
            "cold_s": median(self.cold),
            "samples_s": self.hot,
        }


def timed(runs: Mapping[str, DeviceRun], clock: DeviceClock, timing: Timing) -> dict[str, Samples]:
    """All runs in turn, in a new order each round; the first round's order is theirs."""
    found = {name: Samples() for name in runs}
    draw, order = random.Random(0), list(runs)
    for _ in range(timing.rounds):
        for name in order:
            run, samples = runs[name], found[name]
            for _ in range(_WARM_UPS):
                run.enqueue()
            for _ in range(timing.runs):
                samples.hot.append(stream_seconds(clock, run.stream_handle, run.enqueue))
            for _ in range(max(1, timing.runs // 4)):
                clock.flush(run.stream_handle)
                samples.cold.append(stream_seconds(clock, run.stream_handle, run.enqueue))
        draw.shuffle(order)
    return found


def measured_shape(
    model: str,
    shape: Shape,
    *,
    clock: Callable[[], DeviceClock],
    timing: Timing,
    arms: tuple[GpuArm, ...] | None = None,
    prepare: "Callable[..., tuple[DeviceRun, float]] | None" = None,
) -> Iterator[Line]:
    """A line an arm at a shape: its times, its gain, and how far its logits are from a reference.

    An arm that does not run has a line with the reason, at once.
    """
    encoder = encoder_of(model)
    batch = random_batch(shape, encoder.vocabulary, np.random.default_rng(0))
    runs: dict[str, DeviceRun] = {}
    about: dict[str, dict[str, Any]] = {}
    ready = prepare or Preparing(encoder, batch)
    for arm in arms_of_session() if arms is None else arms:
        try:
            runs[str(arm)], difference = ready(arm)
        except Exception as err:  # noqa: BLE001 - the other arms are to run
            yield {"arm": str(arm), "not_run": reason_of(err)}
            continue
        about[str(arm)] = {"arm": str(arm), "dense": arm.dense, "difference": difference}
    samples = timed(runs, clock(), timing)
    yield from with_gains([{**about[name], **one.line()} for name, one in samples.items()])


class Preparing:
    """Makes the runs of arms on a GPU; a network's models are drawn once for all its forms."""

    def __init__(self, encoder: Encoder, batch: Batch) -> None:
        self.encoder, self.batch = encoder, batch
        self._drawn: tuple[SparseNetwork, Any, np.ndarray] | None = None

    def __call__(self, arm: GpuArm) -> tuple[DeviceRun, float]:
        """The arm's run, captured, and how far its logits are from eager PyTorch's."""
        model, expected_BC = self._model(arm.network)
        run = prepared(arm, model, self.encoder, self.batch)
        run.copy_to_device()
        run.enqueue()
        run.copy_to_host()
        return run, float(np.abs(run.logits() - expected_BC).max())

    def _model(self, network: SparseNetwork) -> tuple[Any, np.ndarray]:
        """The drawn model of a network, and its logits."""
        import torch

        if self._drawn is None or self._drawn[0] != network:
            model = drawn_model(self.encoder, network, "cuda", torch.float16)
            ids_BS, types_BS = (
                torch.from_numpy(array).cuda() for array in (self.batch.ids_BS, self.batch.types_BS)
            )
            with torch.inference_mode():
                logits_BC = model(input_ids=ids_BS, token_type_ids=types_BS).logits
            self._drawn = (network, model, logits_BC.float().cpu().numpy())
        return self._drawn[1], self._drawn[2]


def prepared(arm: GpuArm, model: Any, encoder: Encoder, batch: Batch) -> DeviceRun:
    """A run by CUDA graph of a drawn model in one form."""
    from spd_deploy.benchmark.dense.torch_dense import DenseTorchSession
    from spd_deploy.kernels.backends import EagerBackend, TritonBackend
    from spd_deploy.kernels.two_four import TwoFourSelector
    from spd_deploy.sessions.torch_network.graphs import CudaGraphs

    match arm.form:
        case "torch-eager":
            return DenseTorchSession.of_model(model, mode="eager").prepare(batch, graph=True)
        case "torch-compile":
            return DenseTorchSession.of_model(model, mode="compile").prepare(batch, graph=True)
        case "torch-spd":
            blocks = isinstance(arm.network.pattern, Block)
            network = spd_network(
                model,
                encoder,
                arm.network,
                backend=TritonBackend() if blocks else EagerBackend(),
                selector=TwoFourSelector(),
            )
            return CudaGraphs(network).prepare(batch, graph=True)
        case never:
            assert_never(never)
