"""A session on a GPU in minutes: dense and sparse BERT shapes by CUDA graph, in one report.

    python -m benchmarks.gpu --output DIR --until 540

Weights are drawn on the GPU, so it needs neither network, data nor exports. Dense arms are eager
PyTorch, compiled PyTorch and this project's own network. Sparse arms begin with the structured
network, in the same three forms. Phases come in the order of their worth, each with the seconds
that it is expected to take; none starts that would not end in time. The same command again goes on
where the last one ended, with the next ten minutes.

DIR gets ``results.jsonl``, flushed line by line, ``report.md``, ``manifest.json`` and ``gpu.tar``
of these three. ONNX Runtime and TensorRT need exports: ``python -m benchmarks.gpu_artefacts`` has
them.
"""

import argparse
import contextlib
import faulthandler
import importlib.util
import json
import signal
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_arms import Timing, measured_shape
from benchmarks.gpu_report import REPORT_FILE, RESULTS_FILE, Line, write_gpu_report
from benchmarks.gpu_session import MANIFEST_FILE, DeadlinePassed, Phase, run_phases
from spd_deploy.domain.errors import BadSetting, SpdError, Unavailable, reason_of
from spd_deploy.domain.shapes import Shape
from spd_deploy.timing.cuda_clock import CudaClock

if TYPE_CHECKING:
    from torch import Tensor

    from spd_deploy.kernels.weights import BlockWeight

TAR_FILE = "gpu.tar"
# Free memory that BERT-large at the largest shape needs, with its graphs.
_LEAST_FREE_BYTES = 16 * 2**30
# Packages that the phases import; a machine may have PyTorch and lack the rest.
_NEEDED = ("numpy", "transformers", "triton")
# After the deadline, until a phase that does not listen is ended with its process.
_GRACE_S = 15.0
# Seconds of a phase: compilation of two models in three forms, tuning of tiles, and measuring.
_SHAPES = (
    ("base", Shape(batch=32, seq=128), 200.0),
    ("base", Shape(batch=1, seq=128), 150.0),
    ("base", Shape(batch=128, seq=384), 200.0),
    ("base", Shape(batch=1, seq=32), 150.0),
    ("large", Shape(batch=32, seq=128), 250.0),
)
_PRODUCTS_S = 90.0


def phases_of(timing: Timing) -> tuple[Phase, ...]:
    """All phases, those that say most first."""
    clock = CudaClock
    shapes = [
        Phase(
            name=f"BERT-{model} {shape}",
            expected_s=expected_s,
            work=partial(measured_shape, model, shape, clock=clock, timing=timing),
        )
        for model, shape, expected_s in _SHAPES
    ]
    machine = Phase(name="machine", expected_s=10.0, work=machine_lines)
    products = Phase(name="products of BERT-base, 4096 tokens", expected_s=_PRODUCTS_S,
                     work=product_lines)  # fmt: skip
    return (machine, shapes[0], products, *shapes[1:])


def machine_lines() -> Iterator[Line]:
    """What was measured on, and what other engines would need."""
    import torch

    from spd_deploy.domain.versions import versions_of

    properties = torch.cuda.get_device_properties()
    packages = ("spd-deploy", "torch", "triton", "transformers", "numpy")
    versions = ", ".join(f"{name} {v}" for name, v in versions_of(*packages).items())
    yield {"fact": f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"}
    yield {"fact": f"CUDA {torch.version.cuda}, {versions}"}
    for engine in ("onnxruntime", "tensorrt"):
        yield {"arm": engine, "not_run": "measured by python -m benchmarks.gpu_artefacts"}


def product_lines() -> Iterator[Line]:
    """The block-sparse kernel at each product of a layer, beside the bytes that it moves."""
    from benchmarks.kernel import PRODUCTS, Case, line_of, measured, operands
    from spd_deploy.kernels.traffic import streamed_bytes

    for product, (N, K) in PRODUCTS["base"].items():
        for rows in (128, 64):
            case = Case(model="base", product=product, outputs=N, inputs=K, density=0.1, rows=rows,
                        number="fp16", tokens=4096)  # fmt: skip
            try:
                result = measured(case, rounds=10)
            except Exception as err:  # noqa: BLE001 - the other products are to run
                yield {"arm": str(case), "not_run": reason_of(err)}
                continue
            weight, x_KT = operands(case)
            moved = streamed_bytes(weight.problem(case.tokens), result.tile)
            traffic = _moved(moved, median(result.hot["kernel"]))
            yield {"fact": f"{line_of(result)}; {traffic}", "moved_bytes": moved}
            yield _stationary_line(str(case), weight, x_KT)


def _stationary_line(case: str, weight: "BlockWeight", x_KT: "Tensor") -> Line:
    """The same product by the kernel that keeps its weights in shared memory."""
    import torch

    from spd_deploy.kernels.launch import block_linear
    from spd_deploy.kernels.stationary import stationary_tile
    from spd_deploy.kernels.traffic import stationary_bytes
    from spd_deploy.timing.cuda_clock import graph_seconds

    properties: Any = torch.cuda.get_device_properties()
    problem = weight.problem(x_KT.shape[1])
    tile = stationary_tile(
        problem,
        shared_bytes=properties.shared_memory_per_block_optin,
        multiprocessors=properties.multi_processor_count,
    )
    name = f"{case}, weights in shared memory"
    if tile is None:
        return {"arm": name, "not_run": "they do not fit"}
    try:
        seconds = graph_seconds(lambda: block_linear(x_KT, weight, tile))
    except Exception as err:  # noqa: BLE001 - the other products are to run
        return {"arm": name, "not_run": reason_of(err)}
    moved = stationary_bytes(problem, tile)
    fact = f"{name}: {1e6 * seconds:.1f} us; {_moved(moved, seconds)}; {tile}"
    return {"fact": fact, "moved_bytes": moved, "seconds": seconds}


def _moved(moved_bytes: int, seconds: float) -> str:
    """Bytes through L2 and the rate at which they moved."""
    return f"{moved_bytes / 1e6:.0f} MB through L2 at {moved_bytes / seconds / 1e12:.2f} TB/s"


def preflight(folder: Path) -> None:
    """Refuse at once what would end the session minutes later.

    Raises:
        Unavailable: no GPU that the kernels support, a package missing, or memory taken.
        BadSetting: ``folder`` is a file.
    """
    import torch

    from spd_deploy.sessions.torch_network.load import refuse_unsupported_gpu

    if folder.exists() and not folder.is_dir():
        raise BadSetting("--output is no folder", got=folder, fix="name a folder")
    refuse_unsupported_gpu()
    refuse_missing(_NEEDED)
    free, total = torch.cuda.mem_get_info()
    if free < _LEAST_FREE_BYTES:
        raise Unavailable(
            f"the GPU has not {_LEAST_FREE_BYTES / 2**30:.0f} GiB of free memory",
            got=f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB",
            fix="stop other processes on the GPU",
        )


def refuse_missing(packages: Sequence[str]) -> None:
    """Refuse a machine without one of these packages.

    Raises:
        Unavailable: with all that are missing.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise Unavailable(
            "packages of this script are missing",
            got=", ".join(missing),
            fix=f"pip install {' '.join(missing)}",
        )


def run_session(phases: Sequence[Phase], folder: Path, *, until_s: float, title: str) -> None:
    """Do what the time allows; every line is on the disk before the next is measured."""
    folder.mkdir(parents=True, exist_ok=True)
    _end_half_line(folder / RESULTS_FILE)
    with (
        (folder / RESULTS_FILE).open("a", encoding="utf-8") as results,
        contextlib.suppress(
            DeadlinePassed
        ),  # between two phases; the report is written all the same
    ):
        for line in run_phases(
            phases, folder, until_s=until_s, clock=monotonic, reason_of=reason_of
        ):
            results.write(json.dumps(line) + "\n")
            results.flush()
            print(_shown(line), flush=True)
    report = write_gpu_report(folder, title)
    with tarfile.open(folder / TAR_FILE, "w") as tar:
        for name in (RESULTS_FILE, REPORT_FILE, MANIFEST_FILE):
            if (folder / name).exists():
                tar.add(folder / name, arcname=name)
    print(report)


def _end_half_line(file: Path) -> None:
    """End a line that a killed process left half, so that the next stands by itself."""
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        whole = file.read_bytes().rpartition(b"\n")
        file.write_bytes(whole[0] + whole[1])


def _shown(line: Line) -> str:
    """A line for who looks on."""
    what = f"{line['phase']}: {line.get('arm', '')}"
    if "not_run" in line:
        return f"{what}: not run: {line['not_run']}"
    if "graph_s" in line:
        gain = f", {line['gain']:.2f}x" if "gain" in line else ""
        return f"{what}: {1e3 * line['graph_s']:.3f} ms{gain}"
    return f"{what}{line.get('fact', '')}"


def keep_deadline(until_s: float) -> None:
    """End the phase that runs at the deadline, and the process if the phase does not listen."""

    def passed(signum: int, frame: FrameType | None) -> None:
        raise DeadlinePassed

    signal.signal(signal.SIGALRM, passed)
    signal.setitimer(signal.ITIMER_REAL, until_s)
    faulthandler.dump_traceback_later(until_s + _GRACE_S, exit=True)


def main() -> None:
    """Refuse in one line, or measure until the time is up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--until", type=float, default=540.0, help="seconds that a call may last")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    begun = monotonic()
    try:
        if options.until <= 0 or options.rounds < 1:
            raise BadSetting("--until and --rounds are positive", fix="use --until 540 --rounds 7")
        preflight(options.output)
        left_s = options.until - (monotonic() - begun)
        keep_deadline(left_s)
        run_session(
            phases_of(Timing(rounds=options.rounds)),
            options.output,
            until_s=left_s,
            title="A session on a GPU",
        )
    except SpdError as err:
        raise SystemExit(f"benchmarks.gpu: {err}") from err
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
