"""The interface of a session, which runs a model: token ids in, logits out.

A session checks at opening that it runs on the requested device in the requested precision, and
raises otherwise. There is no silent fallback.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.runtime_choice import Device as Device
from spd_deploy.domain.text import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """How a session runs, as it has found out from its runtime.

    Attributes:
        threads: threads on the CPU; None on a GPU.
        kernels: what multiplies the matrices, where the runtime has several ways; else empty.
        sparse_kernels: names of the kernels that skip zeros, where the session knows them from an
            engine's inspector or launches them itself; None where it does not know.
    """

    runtime: str
    version: str
    device: Device
    precision: str
    threads: int | None
    kernels: str = ""
    sparse_kernels: tuple[str, ...] | None = None

    def __str__(self) -> str:
        """Runtime, device and precision, such as ``openvino 2026.4.1 on cpu in bf16``."""
        where = f"{self.runtime} {self.version} on {self.device} in {self.precision}"
        return f"{where}, {self.kernels}" if self.kernels else where


class Session(Protocol):
    """A model that is ready to run; a context manager that frees threads and memory."""

    @property
    def description(self) -> Description:
        """Runtime, version, device and precision, as the session itself found out."""
        ...

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of the batch; later runs do not overwrite them."""
        ...

    def close(self) -> None:
        """Free threads and memory; a closed session cannot run."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Closing:
    """Base class that makes a session a context manager."""

    def close(self) -> None:
        """Free threads and memory."""
        raise AssertionError("a session must say how it closes")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
