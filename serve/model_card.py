"""The model card of a served model: where it comes from and how sparse it is, for ``/info``."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from spd_deploy.domain.artefact import Artefact, Parity
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.temperature import TemperatureScaling

CHECKPOINT = "checkpoint"
NOT_EXPORTED = (
    "the model is not exported: it runs in PyTorch without sparse speed-up; "
    "run spd export to make an artefact"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Density:
    """Share of non-zeros in the prunable matrices, from 0 to 1: of all weights, and by matrix."""

    overall: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """Where a model comes from and how sparse it is.

    Attributes:
        format: ``onnx`` for an artefact, ``checkpoint`` for a model folder run in PyTorch.
        pattern: the sparsity pattern, or ``dense``.
        sparsity: share of zeros that the pattern was given; None for a dense model.
        density: None where it was not measured.
        sha256: hash of the checkpoint's weights.
        lowerings: number of matrices by the way they are multiplied.
        parity: difference of the export's logits from its checkpoint's; None for a checkpoint.
        self_test: the same difference on this machine, measured at start.
        scores: metrics on ``split`` of this model and of those that it was made from.
        versions: versions of the packages that wrote the model.
        calibration: how well the scores of this model and of those that it was made from fit what
            is true, and the temperature of each.
    """

    format: str
    pattern: str
    sparsity: float | None
    density: Density | None
    sha256: str
    lowerings: Mapping[str, int] = field(default_factory=dict)
    parity: Parity | None = None
    self_test: float | None = None
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    split: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, TemperatureScaling] = field(default_factory=dict)

    @property
    def temperature(self) -> float | None:
        """The divisor of the last layer; 1 for logits as they were trained; None: unknown."""
        own = self.calibration.get("dense" if self.sparsity is None else "sparse")
        return None if own is None else own.temperature

    @property
    def warning(self) -> str | None:
        """A warning for the operator of the server; None where there is none."""
        return NOT_EXPORTED if self.format == CHECKPOINT else None


def card_of(source: Artefact | Checkpoint, *, self_test: float | None) -> ModelCard:
    """The card of an opened artefact or checkpoint."""
    match source:
        case Artefact():
            return _card_of_artefact(source, self_test=self_test)
        case Checkpoint():
            return _card_of_checkpoint(source)


def _card_of_artefact(artefact: Artefact, *, self_test: float | None) -> ModelCard:
    """The card of an artefact, from its manifest."""
    manifest = artefact.manifest
    rows = manifest.matrices
    return ModelCard(
        format=manifest.format,
        pattern=manifest.pattern,
        sparsity=manifest.sparsity,
        density=_density([(row.shape, row.density) for row in rows]),
        lowerings=Counter(row.lowering for row in rows),
        parity=manifest.parity,
        self_test=self_test,
        scores=manifest.scores,
        split=manifest.split,
        sha256=manifest.checkpoint_sha256,
        versions=manifest.versions,
        calibration=manifest.calibration,
    )


def _card_of_checkpoint(checkpoint: Checkpoint) -> ModelCard:
    """The card of a checkpoint, from ``spd.json``."""
    shapes = {matrix.name: matrix.shape for matrix in checkpoint.encoder.matrices()}
    densities = checkpoint.densities.items()
    known = [(shapes[name], share) for name, share in densities if name in shapes]
    return ModelCard(
        format=CHECKPOINT,
        pattern="dense" if checkpoint.pattern is None else str(checkpoint.pattern),
        sparsity=None if checkpoint.pattern is None else checkpoint.pattern.sparsity,
        density=_density(known),
        scores=checkpoint.scores,
        split=checkpoint.split,
        sha256=checkpoint.weights_sha256,
        versions=checkpoint.versions,
        calibration=checkpoint.calibration,
    )


def _density(matrices: list[tuple[tuple[int, int], float]]) -> Density | None:
    """Overall, lowest and highest density of matrices; None where there is none."""
    if not matrices:
        return None
    weights = [n * k for (n, k), _ in matrices]
    shares = [share for _, share in matrices]
    kept = sum(weight * share for weight, share in zip(weights, shares, strict=True))
    return Density(overall=kept / sum(weights), lowest=min(shares), highest=max(shares))
