"""OpenVINO: PyTorch's and ONNX Runtime's logits, in the precision asked for, or a refusal."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, EngineFailed, Unavailable
from spd_deploy.domain.text import Batch, Tokens, pad
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE
from spd_deploy.sessions.open import (
    BF16_TOLERANCE,
    difference_between,
    prove,
    session_from_artefact,
)
from spd_deploy.sessions.openvino import (
    OpenVinoSession,
    openvino_core,
    precisions_of,
    product_precisions,
)
from spd_deploy.sessions.torch import TorchSession
from tests.portable import with_portable

NAMES = ("input_ids", "attention_mask", "token_type_ids")
LENGTHS = ((1,), (1, 1, 1), (5, 30, 2, 17), (32,), (3, 3), (7, 1), (1,))


@pytest.fixture(scope="module", params=["dense", "block"])
def checkpoint(
    request: pytest.FixtureRequest, dense_checkpoint: Checkpoint, block_checkpoint: Checkpoint
) -> Checkpoint:
    """One whose matrices run dense, and one whose matrices run gathered."""
    return dense_checkpoint if request.param == "dense" else block_checkpoint


@pytest.fixture(scope="module")
def artefact(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("openvino")
    return with_portable(artefact_from_checkpoint(checkpoint, folder / "plain"), folder / "a")


@pytest.fixture
def session(artefact: Artefact) -> Iterator[OpenVinoSession]:
    with opened(artefact) as found:
        yield found


def opened(artefact: Artefact, **options: Any) -> OpenVinoSession:
    """The artefact's portable file in OpenVINO."""
    found = session_from_artefact(artefact, runtime="openvino", threads=1, **options)
    assert isinstance(found, OpenVinoSession)
    return found


def batch_of(*lengths: int, seed: int = 0) -> Batch:
    """Rows of random ids, padded to the longest."""
    draw = np.random.default_rng(seed)
    rows = [
        Tokens(
            ids=tuple(draw.integers(5, 40, n).tolist()), types=(0,) * (n // 2) + (1,) * (n - n // 2)
        )
        for n in lengths
    ]
    return pad(rows, pad_id=0)


def offers_bf16() -> bool:
    return "bf16" in precisions_of(openvino_core())


def test_logits_are_those_of_pytorch_and_onnx_runtime(
    artefact: Artefact, checkpoint: Checkpoint, session: OpenVinoSession
) -> None:
    """Mixed lengths, single tokens and padded rows, one shape after the other in one session."""
    with TorchSession(checkpoint.folder) as reference, session_from_artefact(artefact) as ort:
        for lengths in LENGTHS:
            batch = batch_of(*lengths, seed=len(lengths))
            found_BC = session.run(batch)
            assert difference_between(found_BC, reference.run(batch)) < 1e-4
            assert difference_between(found_BC, ort.run(batch)) < 1e-4


def test_a_row_has_its_logits_whatever_it_runs_with(session: OpenVinoSession) -> None:
    """Neither the other rows of a batch nor padding changes an answer."""
    batch = batch_of(4, 31, 1)
    together_BC = session.run(batch)

    for i, n in enumerate((4, 31, 1)):
        row = (slice(i, i + 1), slice(n))
        alone_BC = session.run(
            Batch(
                ids_BS=batch.ids_BS[row], mask_BS=batch.mask_BS[row], types_BS=batch.types_BS[row]
            )
        )
        np.testing.assert_allclose(alone_BC[0], together_BC[i], rtol=1e-4, atol=1e-5)


def test_logits_are_the_callers_own(session: OpenVinoSession) -> None:
    """A later batch does not write into what an earlier one gave."""
    first_BC = session.run(batch_of(9, 4))
    kept_BC = first_BC.copy()
    session.run(batch_of(9, 4, seed=1))

    np.testing.assert_array_equal(first_BC, kept_BC)


def test_sessions_side_by_side_do_not_mix(artefact: Artefact) -> None:
    """Two in one process, run in turns, give each batch the answer that one alone gives."""
    batches = [batch_of(6, 3, seed=1), batch_of(6, 3, seed=2)]
    with opened(artefact) as one, opened(artefact) as other:
        alone = [one.run(batch) for batch in batches]
        turns = [(one.run(batches[0]), other.run(batches[1])) for _ in range(3)]

    for first_BC, second_BC in turns:
        np.testing.assert_array_equal(first_BC, alone[0])
        np.testing.assert_array_equal(second_BC, alone[1])


def test_fp32_is_fp32(artefact: Artefact, session: OpenVinoSession) -> None:
    """Every product runs in f32 also where the processor has bf16, OpenVINO's default there."""
    description = session.description

    assert product_precisions(session._compiled) == {"f32"}
    assert prove(session, artefact) <= 1e-4
    assert (description.runtime, description.precision, description.threads) == (
        "openvino",
        "fp32",
        1,
    )


def test_bf16_is_bf16_or_refused(artefact: Artefact) -> None:
    """Its logits differ from fp32's, by no more than rounding does; without bf16 it says so."""
    if not offers_bf16():
        with pytest.raises(Unavailable, match="this CPU has no bf16"):
            opened(artefact, precision="bf16")
        return
    with opened(artefact, precision="bf16") as session:
        assert "bf16" in product_precisions(session._compiled)
        assert artefact.manifest.parity.tolerance < prove(session, artefact) <= BF16_TOLERANCE
        assert session.description.precision == "bf16"


def test_an_int8_file_runs_in_int8(dense_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Quantised products run in 8 bits, and answer as ONNX Runtime answers for the same file."""
    plain = artefact_from_checkpoint(dense_checkpoint, tmp_path / "plain")
    file = quantised(plain, tmp_path / "int8.onnx")
    batch = plain.golden().batch

    with OpenVinoSession(file, precision="int8", positions=64, threads=1) as session:
        ran, found_BC = product_precisions(session._compiled), session.run(batch)

    assert ran & {"i8", "u8"}
    assert difference_between(found_BC, onnx_runtime_logits(file, batch)) < 0.1


def test_int8_is_refused_where_nothing_is_quantised(artefact: Artefact) -> None:
    """A file of fp32 does not pass for int8."""
    with pytest.raises(
        Unavailable,
        match="does not run this model in int8; got precision hint f32, products in f32",
    ):
        OpenVinoSession(artefact.folder / PORTABLE_FILE, precision="int8", positions=64, threads=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp16"}, r"OpenVINO runs fp32, bf16, int8, int8\+bf16 here; got fp16"),
        (
            {"precision": "fp32", "threads": 4096},
            "threads than there are cores; got --threads 4096",
        ),
    ],
    ids=["precision", "threads"],
)
def test_what_openvino_would_change_in_silence_is_refused(
    options: Mapping[str, Any], said: str, artefact: Artefact
) -> None:
    """OpenVINO would run fp16 as bf16 and cut the threads to the cores, without a word."""
    with pytest.raises(Unavailable, match=said):
        OpenVinoSession(artefact.folder / PORTABLE_FILE, positions=64, **options)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (replace(batch_of(4), ids_BS=np.full((1, 4), 10**6)), "takes input_ids of 0 to"),
        (replace(batch_of(4), ids_BS=np.full((1, 4), -1)), "takes input_ids of 0 to"),
        (replace(batch_of(4), types_BS=np.full((1, 4), 2)), "takes token_type_ids of 0 to 1"),
        (batch_of(65), "takes rows of 1 to 64 tokens; got 65 tokens"),
    ],
    ids=["id", "negative", "type", "long"],
)  # fmt: skip
def test_a_batch_beyond_the_models_tables_is_an_error(
    batch: Batch, said: str, session: OpenVinoSession
) -> None:
    """OpenVINO would answer with numbers; the session refuses and goes on with the next batch."""
    before_BC = session.run(batch_of(4))

    with pytest.raises(EngineFailed, match=said):
        session.run(batch)

    np.testing.assert_array_equal(session.run(batch_of(4)), before_BC)


def test_the_longest_row_is_taken(session: OpenVinoSession, checkpoint: Checkpoint) -> None:
    """As many tokens as there are positions still give PyTorch's logits."""
    with TorchSession(checkpoint.folder) as reference:
        batch = batch_of(64)
        assert difference_between(session.run(batch), reference.run(batch)) < 1e-4


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """OpenVINO's own error becomes one of ours."""
    (tmp_path / PORTABLE_FILE).write_bytes(b"not a model")

    for name in (PORTABLE_FILE, "gone.onnx"):
        with pytest.raises(BadArtefact, match="OpenVINO cannot load"):
            OpenVinoSession(tmp_path / name, precision="fp32", positions=8)


def test_a_model_whose_ids_cannot_be_checked_is_refused(tmp_path: Path) -> None:
    """A graph that looks its ids up nowhere has no bound to hold them to."""
    kind = onnx.TensorProto.INT64
    ends = [onnx.helper.make_tensor_value_info(n, kind, ["B", "S"]) for n in NAMES]
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["B", "S"])
    total = onnx.helper.make_node("Sum", ["f0", "f1", "f2"], ["logits"])
    casts = [
        onnx.helper.make_node("Cast", [name], [f"f{i}"], to=onnx.TensorProto.FLOAT)
        for i, name in enumerate(NAMES)
    ]
    graph = onnx.helper.make_graph([*casts, total], "sum", ends, [out])
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "sum.onnx")

    with pytest.raises(BadArtefact, match="has no embedding table for input_ids"):
        OpenVinoSession(tmp_path / "sum.onnx", precision="fp32", positions=8)


def test_a_missing_openvino_says_how_to_get_it(
    artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the command that installs the extra."""
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(Unavailable, match=r"pip install 'spd-deploy\[openvino\]'"):
        opened(artefact)


def test_importing_openvino_reports_nothing(tmp_path: Path) -> None:
    """What reports is not loaded, leaves no file at home, and may be imported by others later."""
    code = (
        "import sys; from spd_deploy.sessions.openvino import import_openvino; import_openvino();"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')]);"
        "import openvino_telemetry; print(openvino_telemetry.__name__)"
    )
    quiet = ("CI", "TF_BUILD", "JENKINS_URL")  # with these it would not report anyway
    environment = {k: v for k, v in os.environ.items() if k not in quiet} | {"HOME": str(tmp_path)}

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )

    assert found.stdout.split() == ["[]", "openvino_telemetry"]
    assert list(tmp_path.iterdir()) == []


def feed_of(batch: Batch) -> dict[str, NDArray[np.int64]]:
    return dict(zip(NAMES, (batch.ids_BS, batch.mask_BS, batch.types_BS), strict=True))


def quantised(artefact: Artefact, file: Path) -> Path:
    """The artefact's model with its products quantised to 8 bits, calibrated on its golden rows."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Rows(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = [feed_of(artefact.golden().batch)]

        def get_next(self) -> dict[str, NDArray[np.int64]] | None:
            return self._left.pop() if self._left else None

    quantize_static(
        artefact.folder / MODEL_FILE,
        file,
        Rows(),
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
    )
    return file


def onnx_runtime_logits(file: Path, batch: Batch) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], feed_of(batch))[0])


def test_a_signal_is_handled_after_another_thread_has_closed_a_session(artefact: Artefact) -> None:
    """OpenVINO frees a stack for signals with its core; a handler that ran on it would end all."""
    code = f"""
import gc, signal, threading
from pathlib import Path
from spd_deploy.sessions.openvino import OpenVinoSession
opened = [OpenVinoSession(Path({str(artefact.folder / PORTABLE_FILE)!r}), precision="fp32",
                          positions=64, threads=1)]
def close():
    opened.pop().close()
    gc.collect()
thread = threading.Thread(target=close)
thread.start()
thread.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert (found.returncode, found.stdout) == (0, "handled\n"), found.stderr
