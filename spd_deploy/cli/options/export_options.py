"""The options of ``spd export``, as one value that refuses options which do not go together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import click

from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.number_types import is_quantised

_BATCHES, _SEQS = (1, 8), (32, 128)
MAX_DROP = 1.0  # points of 100


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """The options as they were typed; None for one that was left out."""

    checkpoint: Path
    revision: str | None
    format_: Literal["onnx", "trt", "torch"]
    precision: str | None
    task_name: str | None
    data_dir: Path | None
    skip_broken_rows: bool
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
    def resolved_precision(self) -> str:
        """The precision of the export. Default: fp32 for onnx, fp16 for the formats of GPUs."""
        return self.precision or ("fp32" if self.format_ == "onnx" else "fp16")

    @property
    def forced_lowering(self) -> LoweringName | None:
        """The lowering of ``--lowering``; None for ``auto``."""
        return None if self.lowering == "auto" else cast(LoweringName, self.lowering)

    @property
    def allowed_drop(self) -> float:
        """How much of the task's first metric may be lost, in points of 100."""
        return MAX_DROP if self.max_drop is None else self.max_drop

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Batch sizes and sequence lengths to tune for, or to build an engine for."""
        return self.batches or _BATCHES, self.seqs or _SEQS

    @property
    def needs_data(self) -> bool:
        """Whether a precision rounds so far that the task's metric has to be measured."""
        may_round = self.tune or "bf16" in self.runtime_name
        rounds = self.data_dir is not None and may_round
        return is_quantised(self.resolved_precision) or rounds

    def refuse_misfits(self) -> None:
        """Refuse options that contradict one another or would be ignored.

        Raises:
            UsageError: two options contradict each other, or one has no effect.
        """
        if self.format_ == "torch":
            self._refuse_for_torch()
            return
        self._refuse_other_formats()
        self._refuse_without_effect()
        if self.tune and self.tuning is not None:
            raise click.UsageError(
                "--tune measures times and --tuning reads them from a file: give one of the two"
            )
        if self.tune or self.tuning is not None:
            self._refuse_untunable("--tune" if self.tune else "--tuning")

    def _refuse_untunable(self, given: str) -> None:
        """Refuse options that leave a tuning nothing to choose."""
        if self.resolved_precision == "fp16":
            raise click.UsageError(
                f"{given} has times of fp32 and int8 only: leave {given} out, or --precision fp16"
            )
        if self.lowering != "auto":
            raise click.UsageError(
                f"{given} chooses lowerings and --lowering forces one: leave one of them out"
            )

    def _refuse_for_torch(self) -> None:
        """Refuse what a torch artefact does not have: int8, other runtimes, tuning at export."""
        if self.resolved_precision == "int8":
            raise click.UsageError(
                "--format torch has no int8: use fp16 or bf16, or --format onnx for int8"
            )
        if self.runtime_name not in ("auto", "torch"):
            raise click.UsageError(
                f"--runtime {self.runtime_name} cannot run a torch artefact: leave --runtime out"
            )
        _refuse_given(
            self._data_options(),
            why="does not go with --format torch: in fp16 and bf16 it is verified by its logits",
        )
        _refuse_given(
            {
                "--tune": self.tune or None,
                "--tuning": self.tuning,
                **self._shape_options(),
                **self._timing_options(),
                "--no-build": self.no_build or None,
            },
            why="does not go with --format torch: its kernels are tuned on the GPU that serves it, "
            "when the artefact is opened there",
        )

    def _refuse_other_formats(self) -> None:
        """Refuse options that need another format than the one that is written, onnx or trt."""
        if self.resolved_precision == "bf16":
            raise click.UsageError(
                "--precision bf16 needs --format torch; for bf16 in OpenVINO, export fp32 with "
                "--runtime openvino:bf16"
            )
        engine = self.format_ == "trt"
        if engine and (self.tune or self.tuning is not None):
            raise click.UsageError(
                "--tune and --tuning are about CPUs: leave them out with --format trt"
            )
        if engine and self.runtime_name not in ("auto", "tensorrt"):
            raise click.UsageError("a trt artefact runs in TensorRT only: leave --runtime out")
        if not engine and self.runtime_name == "tensorrt":
            raise click.UsageError("--runtime tensorrt needs a TensorRT engine: add --format trt")
        if not engine and self.no_build:
            raise click.UsageError(
                "--no-build needs --format trt, the only format with an engine to build"
            )

    def _refuse_without_effect(self) -> None:
        """Refuse options that would have no effect."""
        if not self.needs_data:
            why = (
                "needs --precision int8, --tune or --runtime openvino:bf16: else nothing is scored"
            )
            _refuse_given(self._data_options(), why=why)
        if not self.tune:
            why = "needs --tune: else nothing is timed"
            _refuse_given(self._timing_options(), why=why)
        if not self.tune and self.format_ != "trt":
            why = "needs --tune or --format trt: else shapes do not matter"
            _refuse_given(self._shape_options(), why=why)

    def _data_options(self) -> Mapping[str, object]:
        """The options that name data, and how much may be lost on them."""
        return {
            "--data": self.data_dir,
            "--task": self.task_name,
            "--max-drop": self.max_drop,
            "--skip-broken-rows": self.skip_broken_rows or None,
        }

    def _shape_options(self) -> Mapping[str, object]:
        """The options that name shapes."""
        return {"--batch": self.batches, "--seq": self.seqs}

    def _timing_options(self) -> Mapping[str, object]:
        """The options that say how to time."""
        return {"--threads": self.threads, "--seconds": self.seconds}


def _refuse_given(options: Mapping[str, object], *, why: str) -> None:
    """Refuse the first of the options that was given, for the reason ``why``."""
    for name, value in options.items():
        if value is not None:
            raise click.UsageError(f"{name} {why}")
