"""What runs a model: token ids in, logits out.

A session proves on opening that it runs on the device and runtime it was asked for, or refuses.
Nothing falls back in silence.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.text import Batch

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """How a session runs, as it found out itself.

    Attributes:
        threads: None where it has no say.
        kernels: what runs the matrices, where the runtime has several ways; else empty.
        sparse_kernels: names of the kernels that skip zeros in it, where it knows for certain,
            as from an engine's inspector or because it launches them itself; None where it does
            not know, which is no claim either way.
    """

    runtime: str
    version: str
    device: Device
    precision: str
    threads: int | None
    kernels: str = ""
    sparse_kernels: tuple[str, ...] | None = None

    def __str__(self) -> str:
        """What ran where, such as ``openvino 2026.4.1 on cpu in bf16``."""
        where = f"{self.runtime} {self.version} on {self.device} in {self.precision}"
        return f"{where}, {self.kernels}" if self.kernels else where


class Session(Protocol):
    """A model ready to run; a context manager, since it holds threads and memory."""

    @property
    def description(self) -> Description:
        """How it runs."""
        ...

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of the batch, in memory of the caller's own."""
        ...

    def close(self) -> None:
        """Free what it holds; a closed session may not be run."""
        ...

    def __enter__(self) -> Self:
        """The session itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        ...


class Closing:
    """The context manager's half of a session."""

    def close(self) -> None:
        """Free what it holds."""
        raise AssertionError("a session must say how it closes")

    def __enter__(self) -> Self:
        """The session itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
