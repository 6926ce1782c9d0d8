"""Whole networks to be timed: their graphs as an export writes them, and how they are opened."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

import numpy as np

from exporters.autotune.product_model import ASSUMED_RANGE, target_of
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.storage import write_graphs
from exporters.precision import Precision, arithmetic_for, word_embedding_precision
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape, random_batch
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.openvino import OpenVinoSession
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.interleaved import Run


def write_networks(
    networks: Mapping[Path, Mapping[str, LoweringChoice]],
    weights: ClassifierWeights,
    *,
    runtime: CpuRuntime,
    precision: Precision,
) -> None:
    """Write graphs into one folder, over one file of weights: lowerings by matrix, by file."""
    target = target_of(runtime)
    ranges = dict.fromkeys((m.name for m in weights.encoder.matrices()), ASSUMED_RANGE)
    arithmetic = arithmetic_for(precision, target, ranges)
    stored = word_embedding_precision(precision, target)
    (folder,) = {file.parent for file in networks}
    write_graphs(
        folder,
        {
            file.name: ClassifierGraph(weights, choices, target, arithmetic, stored)
            for file, choices in networks.items()
        },
    )


@contextmanager
def opened_network(
    model: Path,
    encoder: Encoder,
    *,
    shapes: Sequence[Shape],
    runtime: CpuRuntime,
    precision: str,
    threads: int,
) -> Iterator[Run]:
    """A function that runs the network once at one of the shapes, on random token ids."""
    with _session(model, encoder, runtime, precision, threads) as session:
        yield random_run(session, encoder.vocabulary, shapes)


def random_run(session: Session, vocabulary: int, shapes: Sequence[Shape]) -> Run:
    """A function that runs a session once at one of the shapes, on the same random token ids."""
    generator = np.random.default_rng(0)
    batches = {shape: random_batch(shape, vocabulary, generator) for shape in shapes}
    return lambda shape: session.run(batches[shape])


def _session(
    model: Path, encoder: Encoder, runtime: CpuRuntime, precision: str, threads: int
) -> Session:
    """A session of the network in a runtime."""
    match runtime:
        case "onnxruntime":
            return OnnxSession(model, precision=precision, threads=threads)
        case "openvino":
            positions = encoder.positions
            return OpenVinoSession(model, precision=precision, positions=positions, threads=threads)
        case never:
            assert_never(never)
