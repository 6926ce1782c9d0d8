"""Runs the Triton kernels on the CPU, in Triton's interpreter, in a process of its own.

The interpreter is chosen by a variable that Triton reads when it is imported, and a process that
has it cannot compile. So one process is started for all tests that need it, and asked over a pipe.
Tensors cross it as fp32 arrays, which hold fp16 and bf16 exactly, with the name of their numbers.
"""

import multiprocessing
import os
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spd_deploy.domain.number_types import FloatType
from spd_deploy.kernels.stationary import StationaryTile
from spd_deploy.kernels.tiles import Tile, candidates
from spd_deploy.kernels.weights import BlockWeight, dtype_of, float_type_of
from spd_deploy.sessions.protocol import Closing


class Interpreter(Closing):
    """The process, as a context manager."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join()
        self._pipe.close()

    def linear(
        self,
        x_KT: Tensor,
        weight: BlockWeight,
        tile: Tile | StationaryTile,
        *,
        activation: str = "none",
        residual_NT: Tensor | None = None,
        wide: bool = False,
    ) -> Tensor:
        """The block-sparse kernel; ``wide`` makes it compute addresses in 64 bits."""
        return self._ask(
            "linear",
            tensors={
                "x": x_KT,
                "values": weight.values_GRJ,
                "bias": weight.bias_N,
                **({} if residual_NT is None else {"residual": residual_NT}),
            },
            dtype=float_type_of(x_KT.dtype),
            rows=weight.rows_GJ.numpy(),
            tile=tile,
            activation=activation,
            wide=wide,
        )

    def tuned(self, x_KT: Tensor, weight: BlockWeight, fastest: Tile) -> tuple[Tensor, Tensor]:
        """The same product by the tuner, by whose clock one tile is the fastest.

        Returns:
            The product, and rows, tokens and inputs of each tile that was measured for it; the
            last is the one that was taken.
        """
        tensors = {"x": x_KT, "values": weight.values_GRJ, "bias": weight.bias_N}
        rows, dtype = weight.rows_GJ.numpy(), float_type_of(x_KT.dtype)
        found = self._ask("tuned", tensors=tensors, dtype=dtype, rows=rows, fastest=fastest)
        return found, self._ask("measured", tensors={}, dtype="fp32")

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias_BS: Tensor,
        heads: int,
        *,
        biases_AD: Tensor | None = None,
        wide: bool = False,
    ) -> Tensor:
        """The attention kernel."""
        tensors = {"q": q, "k": k, "v": v, "bias": bias_BS}
        if biases_AD is not None:
            tensors["biases"] = biases_AD
        return self._ask(
            "attention", tensors=tensors, dtype=float_type_of(q.dtype), heads=heads, wide=wide
        )

    def norm(
        self,
        x_HT: Tensor,
        weight_H: Tensor,
        bias_H: Tensor,
        epsilon: float,
        *,
        wide: bool = False,
    ) -> Tensor:
        """The layer norm kernel."""
        tensors = {"x": x_HT, "weight": weight_H, "bias": bias_H}
        return self._ask(
            "norm", tensors=tensors, dtype=float_type_of(x_HT.dtype), epsilon=epsilon, wide=wide
        )

    def logits(self, folder: Path, inputs: Mapping[str, Tensor]) -> Tensor:
        """A torch artefact's logits, its layers run by the kernels."""
        arrays = {name: value.numpy() for name, value in inputs.items()}
        return self._ask("logits", tensors={}, dtype="fp32", folder=folder, inputs=arrays)

    def _ask(
        self, work: str, *, tensors: Mapping[str, Tensor], dtype: FloatType, **rest: Any
    ) -> Tensor:
        """Send the work, wait for its result."""
        arrays = {name: value.float().numpy() for name, value in tensors.items()}
        self._pipe.send((work, arrays, dtype, rest))
        kind, found = self._pipe.recv()
        if kind == "error":
            raise RuntimeError(found)
        return torch.from_numpy(found).to(dtype_of(dtype))


def _serve(pipe: Connection) -> None:
    """Answer until told to stop."""
    os.environ["TRITON_INTERPRET"] = "1"
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*__array__.*", category=DeprecationWarning)
    torch.set_num_threads(1)
    _mend_bf16()
    _mend_index()
    works: Mapping[str, Callable[..., Tensor]] = {
        "linear": _linear,
        "attention": _attention,
        "norm": _norm,
        "logits": _logits,
        "tuned": _tuned,
        "measured": lambda tensors, kind: torch.tensor(_MEASURED),
    }
    while (asked := pipe.recv()) is not None:
        work, arrays, dtype, rest = asked
        from spd_deploy.kernels import launch

        launch._WIDE = 0 if rest.pop("wide", False) else 2**31
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        try:
            with torch.inference_mode():
                found = works[work](tensors, dtype_of(dtype), **rest)
            pipe.send(("result", found.float().numpy()))
        except Exception as err:  # noqa: BLE001 - the test that asked is to fail, not this process
            pipe.send(("error", repr(err)))


def _mend_bf16() -> None:
    """Triton's interpreter multiplies bf16 as the integers that it keeps them in; mend that."""
    import numpy as np
    from triton.language import bfloat16, float32
    from triton.runtime import interpreter

    plain = interpreter.InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        widened = [
            interpreter.TensorHandle((one.data.astype(np.uint32) << 16).view(np.float32), float32)
            if one.dtype.scalar == bfloat16
            else one
            for one in (a, b)
        ]
        return plain(self, *widened, d, *rest)

    interpreter.InterpreterBuilder.create_dot = create_dot


def _mend_index() -> None:
    """Before 3.9 bounds of its loops are arrays of one dtype, no index to NumPy 2.4."""
    from triton.runtime import interpreter

    plain = interpreter._patch_lang_tensor

    def patched(tensor: Any, *scope: Any) -> None:
        plain(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = patched


def _linear(
    tensors: Mapping[str, Tensor],
    kind: torch.dtype,
    *,
    rows: Any,
    tile: Tile | StationaryTile,
    activation: str,
) -> Tensor:
    """One product."""
    from spd_deploy.kernels import launch

    weight = BlockWeight(
        values_GRJ=tensors["values"].to(kind),
        rows_GJ=torch.from_numpy(rows),
        bias_N=tensors["bias"],
    )
    residual = tensors.get("residual")
    return launch.block_linear(
        tensors["x"].to(kind),
        weight,
        tile,
        activation=activation,
        residual_NT=None if residual is None else residual.to(kind),
    )


_MEASURED: list[tuple[int, int, int]] = []


def _tuned(tensors: Mapping[str, Tensor], kind: torch.dtype, *, rows: Any, fastest: Tile) -> Tensor:
    """A product by the tuner, whose clock is made up."""
    from spd_deploy.kernels import launch
    from spd_deploy.kernels.sources.tuned import tile_of, tuned_block_linear

    def bench(*arguments: Any, config: Any, **constants: Any) -> list[float]:
        tile = tile_of(config)
        _MEASURED.append((tile.rows, tile.tokens, tile.inputs))
        return [0.0 if tile == fastest else 1.0] * 3

    _MEASURED.clear()
    tuned_block_linear._bench = bench
    weight = BlockWeight(
        values_GRJ=tensors["values"].to(kind),
        rows_GJ=torch.from_numpy(rows),
        bias_N=tensors["bias"],
    )
    found = launch.block_linear(tensors["x"].to(kind), weight)
    taken = tile_of(tuned_block_linear.best_config)
    _MEASURED.append((taken.rows, taken.tokens, taken.inputs))
    return found


def _attention(tensors: Mapping[str, Tensor], kind: torch.dtype, *, heads: int) -> Tensor:
    """One layer's attention."""
    from spd_deploy.kernels import launch

    q, k, v = (tensors[name].to(kind) for name in "qkv")
    return launch.attention(q, k, v, tensors["bias"], heads=heads, biases_AD=tensors.get("biases"))


def _norm(tensors: Mapping[str, Tensor], kind: torch.dtype, *, epsilon: float) -> Tensor:
    """One norm."""
    from spd_deploy.kernels import launch

    return launch.layer_norm(tensors["x"].to(kind), tensors["weight"], tensors["bias"], epsilon)


class _Untuned:
    """The kernels, each product with the first tile of its shape: there is no GPU to time."""

    label = "the interpreter"

    def __init__(self) -> None:
        from spd_deploy.kernels import launch

        self.layer_norm, self.attention = launch.layer_norm, launch.attention

    def block_linear(
        self,
        x_KT: Tensor,
        weight: BlockWeight,
        *,
        activation: str = "none",
        residual_NT: Tensor | None = None,
    ) -> Tensor:
        from spd_deploy.kernels import launch

        tile = candidates(weight.problem(x_KT.shape[1]))[0]
        return launch.block_linear(
            x_KT, weight, tile, activation=activation, residual_NT=residual_NT
        )


def _logits(
    tensors: Mapping[str, Tensor], kind: torch.dtype, *, folder: Path, inputs: Mapping[str, Any]
) -> Tensor:
    """A whole network."""
    from spd_deploy.domain.artefact import open_artefact
    from spd_deploy.sessions.torch_network.network import Network
    from spd_deploy.sessions.torch_network.network_plan import TENSORS_FILE, read_plan
    from spd_deploy.sessions.torch_network.tensors import read_tensors

    network = Network(
        read_plan(folder),
        open_artefact(folder).encoder,
        read_tensors(folder / TENSORS_FILE, "cpu"),
        backend=_Untuned(),
        selector=None,
    )
    ids, mask, types = (torch.from_numpy(inputs[name]) for name in ("ids", "mask", "types"))
    return network.logits(ids, mask, types)
