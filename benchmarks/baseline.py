"""Is our dense baseline a fair one? Ours against ONNX Runtime's own fused form of the same model.

A speed-up is worth what its baseline is worth. This exports a random BERT twice: with
``spd export``, and with PyTorch's TorchScript exporter followed by ONNX Runtime's transformer
optimiser (Attention, SkipLayerNormalization and BiasGelu fused), then times both in turn.

    python -m benchmarks.baseline --model minilm
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.shapes import MODELS, artefact_of
from spd_deploy.benchmark.dense.fused import fused_from_checkpoint
from spd_deploy.domain.text import INPUTS
from spd_deploy.sessions.onnxruntime import MODEL_FILE

SHAPES = ((1, 32), (1, 128), (8, 128))


def main() -> None:
    """Export both, check that they agree, time them in alternating rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="minilm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ours = artefact_of(Path(scratch), options.model, "dense", None, keep=True)
        checkpoint, file = Path(scratch) / "dense-checkpoint", Path(scratch) / "fused.onnx"
        theirs = fused_from_checkpoint(checkpoint, ours.encoder, file, gpu=False)
        files = {"spd": ours.folder / MODEL_FILE, "fused by ONNX Runtime": theirs}
        samples: dict[tuple[str, tuple[int, int]], list[float]] = {}
        for _ in range(options.rounds):
            for name, file in files.items():
                session = open_session(file, options.threads)
                for shape in SHAPES:
                    samples.setdefault((name, shape), []).extend(timed(session, shape))
                del session
    for shape in SHAPES:
        p50 = {name: statistics.median(samples[name, shape]) for name in files}
        shown = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in p50.items())
        ratio = p50["fused by ONNX Runtime"] / p50["spd"]
        print(f"{shape[0]}x{shape[1]}: {shown}; ours is {ratio:.2f}x as fast")


def open_session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session with all of ONNX Runtime's optimisations on."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def timed(session: onnxruntime.InferenceSession, shape: tuple[int, int]) -> list[float]:
    """Seconds of some runs after two that are not counted."""
    ids = np.random.default_rng(0).integers(1, 30000, shape)
    feed = dict(zip(INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


if __name__ == "__main__":
    main()
