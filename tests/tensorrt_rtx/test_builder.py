"""TensorRT's own parser and builder on our graphs and plans; they need no GPU (``assemble.py``)."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporters.precision import Precision
from exporters.tensorrt.compile import Compiled, compile_engine, configured
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadArtefact, EngineFailed
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.shapes import Shape
from spd_deploy.sessions.onnxruntime import PORTABLE_FILE
from spd_deploy.sessions.tensorrt.build_plan import BuildPlan, Options, read_plan
from spd_deploy.sessions.tensorrt.engine_record import Variant
from spd_deploy.sessions.tensorrt.messages import Messages
from spd_deploy.sessions.tensorrt.versions import import_tensorrt, network_flags
from tests.exporters.test_precisions import calibration_set
from tests.sessions.tensorrt.conftest import exported
from tests.tiny import tiny_checkpoint

trt = pytest.importorskip("tensorrt", reason="no TensorRT; `make test-tensorrt` brings one along")

PATTERNS = ("", "2:4", "block:32x1", "block:16x4", "structured", "unstructured")
EXACT = (trt.LayerType.SOFTMAX, trt.LayerType.NORMALIZATION)


def artefact_of(folder: Path, spelled: str, precision: Precision, **sizes: Any) -> Artefact:
    """A trt artefact of a small checkpoint with this pattern."""
    pattern = parse_pattern(spelled, None if ":" in spelled[:2] else 0.75) if spelled else None
    checkpoint = tiny_checkpoint(folder / "checkpoint", pattern=pattern, **sizes)
    judged = calibration_set(checkpoint, max_drop=100) if precision is Precision.INT8 else None
    return exported(checkpoint, folder / "artefact", precision=precision, calibration_set=judged)


def build(
    artefact: Artefact,
    *,
    plan: BuildPlan | None = None,
    options: Options | None = None,
    variant: Variant = "sparse",
    timings: bytes = b"",
    notes: list[str] | None = None,
) -> Compiled:
    """One build of an artefact's graph."""
    told: list[str] = [] if notes is None else notes

    def advance(steps: int = 1, *, note: str | None = None) -> None:
        told.append(note or "")

    plan = plan or read_plan(artefact.folder)
    return compile_engine(
        import_tensorrt(),
        artefact.folder / PORTABLE_FILE,
        plan,
        options or plan.options,
        variant,
        timings=timings,
        advance=advance,
    )


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """A 2:4 artefact in fp16."""
    return artefact_of(tmp_path_factory.mktemp("sparse"), "2:4", Precision.FP16)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize("spelled", PATTERNS)
def test_every_graph_becomes_an_engine(spelled: str, precision: Precision, tmp_path: Path) -> None:
    """Whatever the pattern and the precision; the flags are those of the plan."""
    artefact = artefact_of(tmp_path, spelled, precision, hidden=64, heads=4, intermediate=256)

    made = build(artefact)

    assert made.engine and made.timings
    eligible = spelled == "2:4" and precision is not Precision.FP32
    assert made.flags == (("SPARSE_WEIGHTS",) if eligible else ())
    assert build(artefact, variant="dense").flags == ()


@pytest.mark.parametrize("spelled", ["block:16x1", "structured"])
@pytest.mark.parametrize(
    "architecture",
    ["bert", "roberta", "distilbert", "electra", "mpnet", "modernbert", "deberta-v2"],
)
def test_every_architecture_becomes_an_engine(
    architecture: str, spelled: str, tmp_path: Path
) -> None:
    """Also those that TensorRT's parser meets with other inputs, embeddings and attention."""
    assert build(artefact_of(tmp_path, spelled, Precision.FP16, architecture=architecture)).engine


def parsed(artefact: Artefact) -> tuple[Any, list[Any]]:
    """The network that the parser makes of an artefact's graph, and what must outlive it."""
    messages = Messages(trt)
    builder = trt.Builder(messages.logger)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, messages.logger)
    assert parser.parse_from_file(str(artefact.folder / PORTABLE_FILE)), messages.why()
    return network, [parser, builder]


@pytest.mark.parametrize("spelled", ["2:4", "block:16x1"])
def test_layers_have_the_types_and_the_names_of_the_plan(spelled: str, tmp_path: Path) -> None:
    """Each matrix's product is one layer that says which node it was, in fp16; norms are fp32."""
    artefact = artefact_of(tmp_path, spelled, Precision.FP16)
    network, _held = parsed(artefact)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    products = {
        layer.metadata: [layer.get_input(i).dtype for i in range(layer.num_inputs)]
        for layer in layers
        if layer.type == trt.LayerType.MATRIX_MULTIPLY
    }

    for matrix in read_plan(artefact.folder).matrices:
        assert matrix.precision == "fp16"
        assert products[f"[ONNX Layer: {matrix.onnx_node}]"] == [trt.float16, trt.float16]
    exact = [layer for layer in layers if layer.type in EXACT]
    assert {layer.type for layer in exact} == set(EXACT)
    assert all(layer.get_output(0).dtype == trt.float32 for layer in exact)


def test_a_build_starts_from_known_timings_and_tells_its_phase(sparse: Artefact) -> None:
    """The cache that a build leaves is taken by the next."""
    notes: list[str] = []

    first = build(sparse, notes=notes)
    again = build(sparse, timings=first.timings)

    assert notes and all(notes)
    assert again.timings == first.timings


def test_timings_that_are_damaged_are_none(sparse: Artefact) -> None:
    """They cost the time of a build that starts from nothing."""
    assert build(sparse, timings=b"half").timings


def test_the_builder_is_told_all(sparse: Artefact) -> None:
    """Flags, one profile a bucket, no TF32, and an inspector that hides nothing."""
    plan, options = read_plan(sparse.folder), Options(workspace_bytes=1 << 28)
    builder = trt.Builder(Messages(trt).logger)

    config = configured(trt, builder, plan, options, ("SPARSE_WEIGHTS",))

    assert config.get_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert config.num_optimization_profiles == len(plan.buckets)
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 28


@pytest.mark.parametrize(
    "options", [Options(workspace_bytes=1 << 28), Options(strict_nans=True)], ids=str
)
def test_options_are_taken(options: Options, sparse: Artefact) -> None:
    """A limit of memory, and exactness about NaN."""
    made = build(sparse, options=options)

    assert ("STRICT_NANS" in made.flags) == options.strict_nans


@pytest.fixture
def soon() -> Iterator[None]:
    """Ctrl-C, a moment from now; also where it is ignored, as in a job in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_build(sparse: Artefact, soon: None) -> None:
    """Though C++ is at work when it comes."""
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1000):
            build(sparse)


def test_a_broken_graph_is_refused_in_the_parsers_words(sparse: Artefact, tmp_path: Path) -> None:
    """What came of half a file."""
    broken = replace(sparse, folder=tmp_path)
    whole = (sparse.folder / PORTABLE_FILE).read_bytes()
    (tmp_path / PORTABLE_FILE).write_bytes(whole[: len(whole) // 2])

    with pytest.raises(BadArtefact, match=r"parser refuses.*Failed to parse the ONNX model"):
        build(broken, plan=read_plan(sparse.folder))


def test_the_reason_is_told_beside_another_builder(sparse: Artefact) -> None:
    """TensorRT logs to the logger of the first object that lives, whoever failed."""
    first = Messages(trt)
    builder = trt.Builder(first.logger)
    plan = replace(read_plan(sparse.folder), buckets=(Shape(batch=1, seq=4096),))

    with pytest.raises(EngineFailed, match=r"TensorRT built no engine; got .*Error Code"):
        build(sparse, plan=plan)
    assert builder is not None
