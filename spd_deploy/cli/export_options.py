"""What was asked of ``spd export``, as one value that refuses options which do not go together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

if TYPE_CHECKING:
    from exporters.lowering.candidates import LoweringName

_BATCHES, _SEQS = (1, 8), (32, 128)
_DROP = 1.0  # points


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """The options as typed; None where one was left out."""

    checkpoint: Path
    format_: Literal["onnx", "trt", "torch"]
    precision: str | None
    task_name: str | None
    data_dir: Path | None
    max_drop: float | None
    tune: bool
    tuning: Path | None
    batches: tuple[int, ...] | None
    seqs: tuple[int, ...] | None
    no_build: bool
    threads: int | None
    seconds: float | None
    lowering: str
    runtime_name: str
    output: Path
    overwrite: bool
    as_json: bool

    @property
    def number(self) -> str:
        """The precision: by default fp16 in what is for GPUs."""
        return self.precision or ("fp32" if self.format_ == "onnx" else "fp16")

    @property
    def way(self) -> "LoweringName | None":
        """The lowering that is forced, if one is."""
        return None if self.lowering == "auto" else cast("LoweringName", self.lowering)

    @property
    def drop(self) -> float:
        """Points of the headline that may be lost."""
        return _DROP if self.max_drop is None else self.max_drop

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Rows and tokens to tune at, or to make an engine for."""
        return self.batches or _BATCHES, self.seqs or _SEQS

    @property
    def judged(self) -> bool:
        """Whether something rounds so far that the task's score has to judge it."""
        rounds = self.tune or "bf16" in self.runtime_name
        return self.number == "int8" or (self.data_dir is not None and rounds)

    def refuse_misfits(self) -> None:
        """Refuse options that contradict one another or would be ignored.

        Raises:
            UsageError: there are some.
        """
        if self.format_ == "torch":
            self._refuse_for_torch()
            return
        self._refuse_other_formats()
        self._refuse_idle_ones()
        if self.tune and self.tuning is not None:
            raise click.UsageError("--tune measures and --tuning does not: leave one of them out")
        if self.tune or self.tuning is not None:
            self._refuse_untunable("--tune" if self.tune else "--tuning")

    def _refuse_untunable(self, given: str) -> None:
        """What leaves a tuning nothing to choose."""
        if self.number == "fp16":
            raise click.UsageError(
                f"a tuning holds times of fp32 or int8: leave {given} or --precision out"
            )
        if self.lowering != "auto":
            raise click.UsageError(f"{given} chooses the lowerings: leave --lowering out")

    def _refuse_for_torch(self) -> None:
        """A torch artefact is tuned where it runs, and has no int8."""
        if self.number == "int8":
            raise click.UsageError(
                "--format torch has no int8: use fp16 or bf16, or --format onnx for int8"
            )
        if self.runtime_name not in ("auto", "torch"):
            raise click.UsageError(
                f"--runtime {self.runtime_name} does not run a torch artefact: leave it out"
            )
        _refuse_idle(
            {
                **self._of_data(), "--tune": self.tune or None, "--tuning": self.tuning,
                **self._of_shapes(), **self._of_measuring(), "--no-build": self.no_build or None,
            },
            why="is not for --format torch: what its kernels are tuned by is measured and "
            "remembered where the artefact runs",
        )  # fmt: skip

    def _refuse_other_formats(self) -> None:
        """What goes with another format than the one asked for."""
        if self.number == "bf16":
            raise click.UsageError(
                "--precision bf16 is for --format torch; OpenVINO rounds an fp32 artefact to it "
                "with --runtime openvino:bf16"
            )
        engine = self.format_ == "trt"
        if engine and (self.tune or self.tuning is not None):
            raise click.UsageError(
                "--tune and --tuning are of a CPU: leave them out with --format trt"
            )
        if engine and self.runtime_name not in ("auto", "tensorrt"):
            raise click.UsageError("a trt artefact is for TensorRT: leave --runtime out")
        if not engine and self.runtime_name == "tensorrt":
            raise click.UsageError("--runtime tensorrt needs an engine: add --format trt")
        if not engine and self.no_build:
            raise click.UsageError("--no-build goes with --format trt")

    def _refuse_idle_ones(self) -> None:
        """What would be ignored."""
        if not self.judged:
            why = "is for what rounds: int8, --tune or bf16, with data"
            _refuse_idle(self._of_data(), why=why)
        if not self.tune:
            why = "says how to measure: it needs --tune"
            _refuse_idle(self._of_measuring(), why=why)
        if not self.tune and self.format_ != "trt":
            why = "says at which shapes: it needs --tune, or --format trt"
            _refuse_idle(self._of_shapes(), why=why)

    def _of_data(self) -> Mapping[str, object]:
        """The options that name data, and what may be lost on it."""
        return {"--data": self.data_dir, "--task": self.task_name, "--max-drop": self.max_drop}

    def _of_shapes(self) -> Mapping[str, object]:
        """Those that name shapes."""
        return {"--batch": self.batches, "--seq": self.seqs}

    def _of_measuring(self) -> Mapping[str, object]:
        """Those that say how to measure."""
        return {"--threads": self.threads, "--seconds": self.seconds}


def _refuse_idle(given: Mapping[str, object], *, why: str) -> None:
    """Refuse the first option that is given."""
    for name, value in given.items():
        if value is not None:
            raise click.UsageError(f"{name} {why}")
