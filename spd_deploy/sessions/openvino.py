"""Runs an ONNX artefact in OpenVINO, on the CPU.

OpenVINO has three habits that this module changes. Its default precision is bf16 on processors that
have it. It answers ids that are out of range with numbers instead of an error. And its import
reports the use over the network.
"""

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.errors import BadArtefact, EngineFailed, Unavailable
from spd_deploy.domain.text import INPUTS, Batch
from spd_deploy.domain.versions import version_of
from spd_deploy.sessions.protocol import Closing, Description

_TELEMETRY = "openvino_telemetry"
_HINT = "INFERENCE_PRECISION_HINT"
# The hint for each precision, and the precisions in which products must have run afterwards: in
# no other for fp32, and in at least one of these for the others.
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32", "int8+bf16": "bf16"}
_PROOFS = {"fp32": {"f32"}, "bf16": {"bf16"}, "int8": {"i8", "u8"}, "int8+bf16": {"i8", "u8"}}
_PRODUCTS = ("FullyConnected", "MatMul", "ScaledDotProductAttention")
_OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    # Two pinned sessions in one process would both use the first core.
    "ENABLE_CPU_PINNING": False,
    # 0 turns off OpenVINO's own quantisation of activations.
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    # OpenVINO caches compiled kernels for each new shape, up to half a megabyte for a product.
    # The default of 5000 lets a server that sees many shapes grow by gigabytes. Compiling a
    # dropped kernel again takes about a millisecond.
    "CPU_RUNTIME_CACHE_CAPACITY": 1024,
}


class OpenVinoSession(Closing):
    """An ONNX file of standard operators, compiled by OpenVINO for any number of rows and tokens.

    Inputs are ``input_ids``, ``attention_mask`` and ``token_type_ids``, the output ``logits``.
    One thread at a time may run it.
    """

    def __init__(
        self, model: Path, *, precision: str, positions: int, threads: int | None = None
    ) -> None:
        """Compile ``model`` for ``threads`` threads (None: as many as this process may use cores).

        Args:
            model: an ONNX file.
            precision: ``fp32`` or ``bf16`` for an fp32 file, ``int8`` for a quantised file, and
                ``int8+bf16`` to run the operators that are not quantised in bf16.
            positions: most tokens of a row; OpenVINO itself does not check it.
            threads: threads of the compiled model.

        Raises:
            Unavailable: OpenVINO is missing, or does not run in this precision or with so many
                threads.
            BadArtefact: OpenVINO cannot read the file.
        """
        core = openvino_core()
        _refuse_missing_precision(precision, precisions_of(core))
        try:
            read = core.read_model(model)
            self._rows = {name: _table_rows(read.input(name)) for name in INPUTS}
            self._compiled = _compiled(core, read, precision, threads or default_threads())
            self._logits = self._compiled.output("logits")
            multiplies = _multiplies(read)
        except Exception as err:
            raise BadArtefact(
                f"OpenVINO cannot load {model}", got=err, fix="export it again"
            ) from err
        self._refuse_unlookable(model)
        self._refuse_fallback(precision, threads, multiplies=multiplies)
        self._request = self._compiled.create_infer_request()
        self._positions = positions
        self.description = Description(
            runtime="openvino",
            version=version_of("openvino") or "unknown",
            device="cpu",
            precision=precision,
            threads=int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
        )

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]``.

        Raises:
            EngineFailed: the batch is too long or has ids out of range, or OpenVINO failed on it.
        """
        feed = batch.named()
        self._refuse_beyond_tables(feed)
        try:
            found = self._request.infer(feed)
            return np.array(found[self._logits], np.float32)
        except Exception as err:
            raise EngineFailed(
                "OpenVINO failed on a batch",
                got=err,
                fix="send a smaller batch; if that fails too, export the model again",
            ) from err

    def close(self) -> None:
        """Free the compiled model and its memory."""
        for name in ("_request", "_logits", "_compiled"):
            with contextlib.suppress(AttributeError):
                delattr(self, name)

    def _refuse_unlookable(self, model: Path) -> None:
        """Refuse a graph whose word embeddings are not found, since ids could not be checked."""
        if self._rows["input_ids"] is None:
            raise BadArtefact(
                f"{model} has no embedding table for input_ids", fix="export it again"
            )

    def _refuse_fallback(self, precision: str, threads: int | None, *, multiplies: bool) -> None:
        """Refuse another precision or fewer threads, which OpenVINO takes without an error.

        An int8 file of a model that keeps no head and no neuron has no product to run in int8.
        """
        hint = self._compiled.get_property(_HINT).get_type_name()
        ran, proof = product_precisions(self._compiled), _PROOFS[precision]
        proven = ran == proof if precision == "fp32" else bool(ran & proof)
        proven |= precision.startswith("int8") and not multiplies
        if hint != _HINTS[precision] or not proven:
            raise Unavailable(
                f"OpenVINO does not run this model in {precision}",
                got=f"precision hint {hint}, products in {', '.join(sorted(ran)) or 'none'}",
                fix="run `spd doctor` for what this CPU can, or use --runtime onnxruntime",
            )
        given = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        if threads is not None and given != threads:
            raise Unavailable(
                "OpenVINO starts no more threads than there are cores",
                got=f"--threads {threads}, of which {given} start",
                fix=f"use --threads {given}",
            )

    def _refuse_beyond_tables(self, feed: dict[str, NDArray[np.int64]]) -> None:
        """Refuse rows that are too long and ids out of range, which OpenVINO does not."""
        tokens = feed["input_ids"].shape[1]
        if not 0 < tokens <= self._positions:
            raise _not_taken(f"rows of 1 to {self._positions} tokens", f"{tokens} tokens")
        for name, rows in self._rows.items():
            values_BS = feed[name]
            if rows is not None and values_BS.size:
                low, high = int(values_BS.min()), int(values_BS.max())
                if low < 0 or high >= rows:
                    raise _not_taken(f"{name} of 0 to {rows - 1}", f"{low} to {high}")


def compiled_product(model: bytes, precision: str, threads: int) -> Any:
    """Compile a graph of one product with the options of a session.

    Raises:
        Unavailable: OpenVINO is missing, or does not run in this precision.
    """
    core = openvino_core()
    _refuse_missing_precision(precision, precisions_of(core))
    return _compiled(core, core.read_model(model), precision, threads)


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        with _without_telemetry():
            import openvino
    except ImportError as err:
        raise Unavailable(
            "OpenVINO is not installed", got=err, fix="pip install 'spd-deploy[openvino]'"
        ) from err
    return openvino  # type: ignore[no-any-return]


def openvino_core() -> Any:
    """OpenVINO's core: one for the process, which is never destroyed.

    Its CPU plugin gives the thread that first uses it a stack for signal handlers, and frees that
    with the core. If another thread did so, as after a server has replaced a model, the next signal
    would kill the process without a word in place of running its handler.

    Raises:
        Unavailable: OpenVINO is not installed.
    """
    return _only_core(import_openvino())


@functools.cache
def _only_core(openvino: ModuleType) -> Any:
    """The core of a module, made once."""
    return openvino.Core()


def precisions_of(core: Any) -> frozenset[str]:
    """The precisions that OpenVINO offers on this CPU: fp32, bf16, int8."""
    listed = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    names = {"FP32": "fp32", "BF16": "bf16", "INT8": "int8"}
    return frozenset(ours for theirs, ours in names.items() if theirs in listed)


def product_precisions(compiled: Any) -> frozenset[str]:
    """The precisions in which the compiled model runs its matrix products."""
    layers = (node.get_rt_info() for node in compiled.get_runtime_model().get_ops())
    return frozenset(
        str(layer["runtimePrecision"].value)
        for layer in layers
        if layer["layerType"].value in _PRODUCTS
    )


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Block the import of OpenVINO's telemetry package inside the block.

    OpenVINO then uses a stub that does nothing. The alternative would be a file in the user's home.
    """
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before


def _compiled(core: Any, read: Any, precision: str, threads: int) -> Any:
    """Compile a model for so many threads of the CPU."""
    options = {**_OPTIONS, _HINT: _HINTS[precision], "INFERENCE_NUM_THREADS": threads}
    return core.compile_model(read, "CPU", options)


def _refuse_missing_precision(precision: str, offered: frozenset[str]) -> None:
    """Refuse a precision that this session does not know or this processor does not have."""
    if precision not in _HINTS:
        raise Unavailable(
            f"OpenVINO runs {', '.join(_HINTS)} here",
            got=precision,
            fix="export the model in one of these",
        )
    if not set(precision.split("+")) <= offered:
        raise Unavailable(
            f"this CPU has no {precision} for OpenVINO",
            got=", ".join(sorted(offered)),
            fix="run without it; `spd doctor` lists what there is",
        )


def _multiplies(read: Any) -> bool:
    """Whether a layer of a model has a product: none has where no head and no neuron is kept."""
    names = (n.get_friendly_name() for n in read.get_ops() if n.get_type_name() == "MatMul")
    return any(name.startswith("layer.") and "/norm/" not in name for name in names)


def _table_rows(output: Any) -> int | None:
    """The rows of the table that an input indexes; None where it indexes no table."""
    for target in output.get_target_inputs():
        node = target.get_node()
        if node.get_type_name() == "Gather" and target.get_index() == 1:
            return int(node.input(0).get_partial_shape()[0].get_length())
        if node.get_type_name() == "Convert" and (rows := _table_rows(node.output(0))) is not None:
            return rows
    return None


def _not_taken(takes: str, got: str) -> EngineFailed:
    """The error for a batch that the model does not take."""
    return EngineFailed(
        f"the model takes {takes}", got=got, fix="tokenise with the model's tokenizer"
    )
