"""An exported artefact on disk: all that serving needs, and the proof that it is what it says.

A folder with the model file(s), ``tokenizer.json``, ``config.json``, ``golden.safetensors`` and
``golden.json`` (inputs, and what the checkpoint answered) and ``manifest.json``, which holds the
SHA-256 of every other file and of itself. A damaged or swapped file is found before anything parses
it, and what was verified is what is used, whatever becomes of the folder (``domain.verified``).

Files may be links, as in the volumes of Kubernetes and in hub caches: their content is what counts.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from spd_deploy.domain.checkpoint import CONFIG_FILE
from spd_deploy.domain.documents import (
    refuse_schema,
    value_of,
    with_own_hash,
    without_own_hash,
)
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadArtefact, BadSetting
from spd_deploy.domain.files import json_object, read_json, sha256_of, write_json
from spd_deploy.domain.folders import did_you_mean, refuse_no_model
from spd_deploy.domain.golden import ANSWERS_FILE, GOLDEN_FILE, Golden, golden_of
from spd_deploy.domain.model_config import labels_of
from spd_deploy.domain.number_types import is_quantised
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.runtime_choice import Runtime, RuntimeChoice
from spd_deploy.domain.shapes import Measured
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_deploy.domain.verified import (
    copy_verified,
    errors_naming,
    private_folder,
    read_verified,
    verify,
)

# onnx: a graph for ONNX Runtime and a portable one. trt: a portable one, and the plan of an engine.
Format = Literal["onnx", "trt", "torch"]

MANIFEST_FILE = "manifest.json"
# 1: the first. 2: the manifest has its own hash, and golden.json is there.
# 3: ``runtime_timings`` and ``timed_shapes`` were ``ran`` and ``ran_at``.
SCHEMA = 3

_TOKENIZER_CONFIG = "tokenizer_config.json"
_AGAIN = "export it again"
_NEEDED = (CONFIG_FILE, TOKENIZER_FILE, GOLDEN_FILE, ANSWERS_FILE)


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixRow:
    """One matrix of the artefact: how sparse it is, how it is run, and why so.

    Attributes:
        shape: ``(N, K)`` of the checkpoint's weight: outputs, inputs.
        density: share of non-zeros in the checkpoint's weight.
        lowering: how it is run: ``dense``, ``compact``, ``gathered`` or ``compact, gathered``.
        reason: why this lowering, in words for a reader of ``spd inspect``.
        flops_share: multiplications left, as a share of the dense matrix's.
        measured: times of its product alone, where the export was tuned; one a shape.
    """

    name: str
    shape: tuple[int, int]
    pattern: str
    density: float
    lowering: str
    reason: str
    flops_share: float
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How far the artefact's logits are from the checkpoint's on the golden inputs.

    Attributes:
        max_difference: of the farthest graph, in units of max(1, largest logit).
        tolerance: what a self-test allows: from the checkpoint's logits or, of a graph that has
            golden logits of its own, from those.
    """

    max_difference: float
    tolerance: float
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeTiming:
    """How many seconds the artefact took in a runtime, spelled as ``--runtime`` is, by shape."""

    runtime: str
    seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes:
        precision: of the numbers in the files; a runtime may compute in less.
        files: each file's name with its SHA-256.
        runtime: what it was exported for.
        bf16: whether that runtime is to compute in bf16 where it may round.
        runtime_timings: how fast each runtime was at ``timed_shapes``, where the export was tuned.
        measured: times of the whole network, where the export was tuned; one a shape.
        measured_on: the machine and threads of everything that is ``measured``.
        calibration: how well the scores of the checkpoints fit what is true, by owner.
        scored_rows: on how many rows the scores of the checkpoints were measured; None where they
            are in several files, or that is not recorded.
        recipe: how the checkpoint was made.
        origins: where the models that it was made from were read, if not from a folder, by what
            they were.
    """

    format: Format
    precision: str
    task: Task
    max_tokens: int
    pattern: str
    sparsity: float | None
    matrices: tuple[MatrixRow, ...]
    parity: Parity
    checkpoint_sha256: str
    files: Mapping[str, str]
    opset: int | None = None
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    split: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    runtime: Runtime = "onnxruntime"
    bf16: bool = False
    runtime_timings: tuple[RuntimeTiming, ...] = ()
    timed_shapes: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()
    measured_on: str | None = None
    calibration: Mapping[str, TemperatureScaling] = field(default_factory=dict)
    scored_rows: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @property
    def runtime_choice(self) -> RuntimeChoice:
        """The runtime and precision it runs in where no other is requested."""
        return RuntimeChoice(runtime=self.runtime, precision="bf16" if self.bf16 else None)

    @property
    def nearness(self) -> str:
        """Its parity in words; quantised graphs are judged by the task's score instead."""
        parity = self.parity
        far = f"{parity.max_difference:.1e} from the checkpoint's logits"
        if is_quantised(self.precision):
            return f"{far} on random tokens; what that costs, the score says"
        return f"{far}, {parity.tolerance:.0e} allowed"

    def to_json(self) -> dict[str, Any]:
        """The content of ``manifest.json``, with its own hash."""
        return with_own_hash({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            BadArtefact: another schema, another content than was written, a runtime of another
                version, or a field that is missing, unknown or of the wrong kind.
        """
        fix = f"export it again with this version, which reads schema {SCHEMA}"
        refuse_schema(value, SCHEMA, what="the manifest", error=BadArtefact, fix=fix)
        value = without_own_hash(value, what="the manifest", error=BadArtefact, fix=_AGAIN)
        if (runtime := value.get("runtime", "onnxruntime")) not in get_args(Runtime):
            raise BadArtefact(
                "the manifest names a runtime that this version does not know",
                got=runtime,
                fix=_AGAIN,
            )
        fields = {name: part for name, part in value.items() if name != "schema"}
        return value_of(cls, fields, what="the manifest", error=BadArtefact, fix=_AGAIN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefact:
    """A verified artefact folder. Each file is verified again when it is read."""

    folder: Path
    manifest: Manifest

    @property
    def task(self) -> Task:
        """The labels and metrics of the classifier, from the manifest."""
        return self.manifest.task

    @property
    def encoder(self) -> Encoder:
        """The sizes of its model."""
        shapes = {f"{row.name}.weight": row.shape for row in self.manifest.matrices}
        return Encoder.of_matrices(shapes, self.document(CONFIG_FILE))

    def tokenizer(self) -> Tokenizer:
        """The tokenizer it was trained with, cutting where training cut."""
        return Tokenizer(
            self.folder / TOKENIZER_FILE,
            max_tokens=self.manifest.max_tokens,
            content=self.content(TOKENIZER_FILE).decode("utf-8"),
        )

    def golden(self) -> Golden:
        """The inputs and answers of its self-test."""
        return golden_of(self.content(GOLDEN_FILE), self.content(ANSWERS_FILE), self.folder)

    def weights(self) -> tuple[str, ...]:
        """The files of weights, which may be large, and which a session reads in any case."""
        small = (".json", ".txt", ".onnx")
        return tuple(n for n in self.manifest.files if n != GOLDEN_FILE and not n.endswith(small))

    def content(self, name: str) -> bytes:
        """The content of one of its files.

        Raises:
            BadArtefact: it has none of this name, or not the one that was exported.
        """
        return read_verified(self.folder / name, self._hash_of(name))

    def document(self, name: str) -> dict[str, Any]:
        """The JSON object in one of its files.

        Raises:
            BadArtefact: as :meth:`content`, or it holds no JSON object.
        """
        file = self.folder / name
        return json_object(self.content(name), file, error=BadArtefact, fix=_AGAIN)

    @contextmanager
    def private_copy(self, names: Iterable[str]) -> Iterator[Path]:
        """A folder with verified copies of some files, to load them from; deleted afterwards.

        Errors that are raised meanwhile name the artefact's own files.

        Raises:
            BadArtefact: as :meth:`content`.
            Unavailable: there is no room for copies.
        """
        with private_folder() as private, errors_naming(self.folder, instead_of=private):
            for name in names:
                copy_verified(self.folder / name, self._hash_of(name), private / name)
            yield private

    def refuse_lacking(self, name: str) -> None:
        """Refuse to go on without a file.

        Raises:
            BadArtefact: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BadArtefact(f"the manifest of {self.folder} lists no {name}", fix=_AGAIN)

    def _hash_of(self, name: str) -> str:
        """The hash that the manifest has of a file."""
        self.refuse_lacking(name)
        return self.manifest.files[name]


def is_artefact(folder: Path) -> bool:
    """Whether the folder has a manifest."""
    return (folder / MANIFEST_FILE).is_file()


def open_artefact(folder: Path, *, weights: bool = True) -> Artefact:
    """Read the manifest and verify the SHA-256 of every file it lists.

    Without ``weights`` these are left to the session that loads them, which verifies them as well.

    Raises:
        BadArtefact: not an artefact, a file missing or changed, or files that contradict each
            other.
    """
    if not folder.is_dir():
        meant = did_you_mean(folder, wanted="artefact")
        raise BadArtefact("no such artefact folder", got=str(folder), fix=meant or "check the path")
    if not is_artefact(folder):
        refuse_no_model(folder, wanted="artefact")
        raise BadArtefact(
            f"{folder} is not an artefact: it has no {MANIFEST_FILE}",
            fix=f"make one with: spd export {folder} --format onnx --output DIR",
        )
    value = read_json(folder / MANIFEST_FILE, error=BadArtefact, fix=_AGAIN)
    artefact = Artefact(folder=folder, manifest=Manifest.from_json(value))
    for name, expected in artefact.manifest.files.items():
        _refuse_path(name)
        if weights or name not in artefact.weights():
            verify(folder / name, expected)
    for name in _NEEDED:
        artefact.refuse_lacking(name)
    _refuse_contradictions(artefact)
    return artefact


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, the last file of an artefact to be written."""
    write_json(folder / MANIFEST_FILE, manifest.to_json())


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder but the manifest, by name."""
    return {
        file.name: sha256_of(file)
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != MANIFEST_FILE
    }


def _refuse_path(name: str) -> None:
    """A manifest names files of its own folder."""
    if Path(name).name != name or name in ("", "..", MANIFEST_FILE):
        raise BadArtefact("the manifest names a file outside the artefact", got=name, fix=_AGAIN)


def _refuse_contradictions(artefact: Artefact) -> None:
    """Refuse a manifest that ``config.json`` or the tokenizer contradicts."""
    task, longest = artefact.task, artefact.manifest.max_tokens
    try:
        task.decision.refuse_other_labels(task.labels)
    except BadSetting as err:
        raise BadArtefact(
            f"the manifest of {artefact.folder} is damaged", got=err.what, fix=_AGAIN
        ) from err
    config = artefact.document(CONFIG_FILE)
    labels = labels_of(config, error=BadArtefact) if task.labels else ()
    stated = {
        "problem_type": (
            None if task.sigmoid else task.problem_type.value,
            config.get("problem_type"),
        ),
        "labels": (task.labels, labels),
        "max_tokens": (longest, min(max(longest, 1), artefact.encoder.positions)),
    }
    if _TOKENIZER_CONFIG in artefact.manifest.files:
        cut = artefact.document(_TOKENIZER_CONFIG).get("model_max_length")
        stated["max_tokens of the tokenizer"] = (longest, cut)
    for what, (mine, theirs) in stated.items():
        if mine != theirs:
            raise BadArtefact(
                f"the manifest of {artefact.folder} and its {CONFIG_FILE} disagree about {what}",
                got=f"{mine} and {theirs}",
                fix=_AGAIN,
            )
