"""An exported artefact on disk: all that serving needs, and the proof that it is what it says.

A folder with the model file(s), ``tokenizer.json``, ``config.json``, ``golden.safetensors``
(inputs, and the logits the checkpoint gave for them) and ``manifest.json``, which holds the
SHA-256 of every other file. Opening an artefact verifies them all, so a damaged or swapped file is
found before any runtime parses it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from spd_deploy.domain.checkpoint import read_config
from spd_deploy.domain.documents import refuse_schema, value_of
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.files import read_json, sha256_of, write_json
from spd_deploy.domain.folders import did_you_mean, refuse_no_model
from spd_deploy.domain.golden import GOLDEN_FILE, Golden, read_golden
from spd_deploy.domain.runtime_choice import Runtime, RuntimeChoice
from spd_deploy.domain.shapes import Measured
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer

# onnx: a graph for ONNX Runtime and a portable one. trt: a portable one, and the plan of an engine.
Format = Literal["onnx", "trt", "torch"]

MANIFEST_FILE = "manifest.json"
SCHEMA = 1

_AGAIN = "export it again"
# For pydantic, which reads manifests: a field that no version wrote is damage, and so is NaN.


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
    """What ``manifest.json`` says.

    Attributes:
        precision: of the numbers in the files; a runtime may be asked to compute in less.
        files: each file's name with its SHA-256.
        runtime: what it was exported for; older manifests, which have none, mean ONNX Runtime.
        bf16: whether that runtime is to compute in bf16 where it may round.
        ran: how fast each runtime was at the shapes ``ran_at``, where the export was tuned.
        measured: times of the whole network, where the export was tuned; one a shape.
        measured_on: the machine and threads of everything that is ``measured``.
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
    ran: tuple[RuntimeTiming, ...] = ()
    ran_at: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()
    measured_on: str | None = None

    @property
    def asked(self) -> RuntimeChoice:
        """The runtime and precision it runs in where nothing else is asked for."""
        return RuntimeChoice(runtime=self.runtime, precision="bf16" if self.bf16 else None)

    @property
    def nearness(self) -> str:
        """Its parity in words; quantised graphs are judged by the task's score instead."""
        parity = self.parity
        far = f"{parity.max_difference:.1e} from the checkpoint's logits"
        if self.precision == "int8":
            return f"{far} on random tokens; what that costs, the score says"
        return f"{far}, {parity.tolerance:.0e} allowed"

    def to_json(self) -> dict[str, Any]:
        """The content of ``manifest.json``."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            BadArtefact: another schema, a runtime of another version, or a field that is missing,
                unknown or of the wrong kind.
        """
        fix = f"export it again with this version, which reads schema {SCHEMA}"
        refuse_schema(value, SCHEMA, what="the manifest", error=BadArtefact, fix=fix)
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
    """A verified artefact folder."""

    folder: Path
    manifest: Manifest

    @property
    def task(self) -> Task:
        """What it answers."""
        return self.manifest.task

    @property
    def encoder(self) -> Encoder:
        """The sizes of its model."""
        shapes = {f"{row.name}.weight": row.shape for row in self.manifest.matrices}
        return Encoder.of_matrices(shapes, read_config(self.folder))

    def tokenizer(self) -> Tokenizer:
        """The tokenizer it was trained with, cutting where training cut."""
        return Tokenizer(self.folder / TOKENIZER_FILE, max_tokens=self.manifest.max_tokens)

    def golden(self) -> Golden:
        """The inputs and logits of its self-test."""
        return read_golden(self.folder / GOLDEN_FILE)


def is_artefact(folder: Path) -> bool:
    """Whether the folder has a manifest."""
    return (folder / MANIFEST_FILE).is_file()


def open_artefact(folder: Path) -> Artefact:
    """Read the manifest and verify the SHA-256 of every file it lists.

    Raises:
        BadArtefact: not an artefact, a file missing or changed, or a link to elsewhere.
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
    manifest = Manifest.from_json(value)
    for name, expected in manifest.files.items():
        _verify(folder, name, expected)
    missing = {TOKENIZER_FILE, GOLDEN_FILE} - set(manifest.files)
    if missing:
        raise BadArtefact(f"the manifest of {folder} lists no {min(missing)}", fix=_AGAIN)
    return Artefact(folder=folder, manifest=manifest)


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


def _verify(folder: Path, name: str, expected: str) -> None:
    """One file of the manifest: a plain name, no link, and the bytes it was exported with."""
    file = folder / name
    if Path(name).name != name or file.is_symlink():
        raise BadArtefact("the manifest names a file outside the artefact", got=name, fix=_AGAIN)
    if not file.is_file():
        raise BadArtefact(f"{file} is missing", fix=_AGAIN)
    found = sha256_of(file)
    if found != expected:
        raise BadArtefact(
            f"{file} was changed after the export",
            got=f"SHA-256 {found[:12]}, expected {str(expected)[:12]}",
            fix=_AGAIN,
        )
