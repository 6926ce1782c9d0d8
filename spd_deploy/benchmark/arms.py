"""Arms: artefacts that are about to be compared, what is known of them, and what they are fed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from exporters.twin import encoder_of
from spd_deploy.benchmark.values import ArmFacts, Lowered, Memory, Settings, Shape
from spd_deploy.domain.artefact import GOLDEN_FILE, Artefact, MatrixRow
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.opening import self_test, session_from_artefact
from spd_deploy.sessions.protocol import Description, Session

_SIZES = ("layers", "hidden", "heads", "intermediate", "vocabulary")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """An artefact under the name it has in the report."""

    name: str
    artefact: Artefact

    @property
    def encoder(self) -> Encoder:
        """The sizes of its model."""
        return encoder_of(self.artefact)


def arms_of(artefacts: Iterable[Artefact]) -> tuple[Arm, ...]:
    """Arms named after their folders; a name that comes again gets a number."""
    arms: list[Arm] = []
    taken: set[str] = set()
    for artefact in artefacts:
        plain = _printable(artefact.folder.resolve().name)
        numbered = (f"{plain}-{i}" for i in range(2, 2 + len(taken)))
        name = next(n for n in (plain, *numbered) if n not in taken)
        taken.add(name)
        arms.append(Arm(name=name, artefact=artefact))
    return tuple(arms)


def open_arm(arm: Arm, settings: Settings) -> Session:
    """The arm's session on the device and threads that the settings ask for."""
    return session_from_artefact(arm.artefact, device=settings.device, threads=settings.threads)


def describe(arm: Arm, session: Session) -> Description:
    """How the arm's session runs, once it has given its checkpoint's logits.

    Raises:
        BadArtefact: it does not give them.
    """
    manifest = arm.artefact.manifest
    self_test(session, arm.artefact.golden(), tolerance=manifest.parity.tolerance)
    return session.description


def batches_for(arms: Sequence[Arm], settings: Settings) -> dict[Shape, Batch]:
    """Random token ids for each shape, the same for all arms; every token is real.

    Raises:
        BadArtefact: a shape is longer than some arm takes.
    """
    refuse_long(arms, settings)
    vocabulary = min(arm.encoder.vocabulary for arm in arms)
    random = np.random.default_rng(settings.seed)
    return {shape: random_batch(shape, vocabulary, random) for shape in settings.shapes}


def refuse_long(arms: Sequence[Arm], settings: Settings) -> None:
    """Refuse shapes that no served text would ever have.

    Raises:
        BadArtefact: a shape is longer than some arm takes.
    """
    longest = max(shape.seq for shape in settings.shapes)
    for arm in arms:
        most = min(arm.artefact.manifest.max_tokens, arm.encoder.positions)
        if longest > most:
            raise BadArtefact(
                f"{arm.name} cuts its texts at {most} tokens",
                got=f"sequences of {longest}",
                fix=f"measure --seq {most} or less",
            )


def random_batch(shape: Shape, vocabulary: int, random: np.random.Generator) -> Batch:
    """Token ids drawn evenly from the vocabulary, of one segment, with nothing masked."""
    size = (shape.batch, shape.seq)
    return Batch(
        ids_BS=random.integers(vocabulary, size=size, dtype=np.int64),
        mask_BS=np.ones(size, np.int64),
        types_BS=np.zeros(size, np.int64),
    )


def facts_of(arm: Arm, runtime: Description, memory: Memory | None) -> ArmFacts:
    """What the report says of an arm."""
    manifest, folder = arm.artefact.manifest, arm.artefact.folder
    models = _model_files(manifest.files)
    sizes = asdict(arm.encoder)
    pruned = manifest.sparsity is not None
    return ArmFacts(
        name=arm.name,
        format=manifest.format,
        precision=manifest.precision,
        pattern=manifest.pattern if pruned else None,
        sparsity=manifest.sparsity,
        task=manifest.task.name,
        sizes={name: sizes[name] for name in _SIZES},
        models=models,
        model_bytes=sum(bytes_of(folder / name) for name in models),
        folder_bytes=bytes_of(folder),
        runtime=runtime,
        lowered=lowered_of(manifest.matrices),
        score=dict(manifest.scores.get("sparse" if pruned else "dense", {})),
        split=manifest.split,
        parity=manifest.parity.max_difference,
        memory=memory,
    )


def lowered_of(matrices: Iterable[MatrixRow]) -> tuple[Lowered, ...]:
    """The matrices grouped by how and why they are run so, the largest group first."""
    groups: dict[tuple[str, str], list[MatrixRow]] = defaultdict(list)
    for row in matrices:
        groups[row.lowering, row.reason].append(row)
    found = [_lowered(lowering, why, rows) for (lowering, why), rows in groups.items()]
    return tuple(sorted(found, key=lambda group: -group.matrices))


def _lowered(lowering: str, reason: str, rows: Sequence[MatrixRow]) -> Lowered:
    """One group; its shares are means weighted by the matrices' sizes."""
    sizes = [row.shape[0] * row.shape[1] for row in rows]
    return Lowered(
        lowering=lowering,
        reason=reason,
        matrices=len(rows),
        weights=sum(sizes),
        density=float(np.average([row.density for row in rows], weights=sizes)),
        flops_share=float(np.average([row.flops_share for row in rows], weights=sizes)),
    )


def _printable(name: str) -> str:
    """A folder's name without what a report or a terminal cannot hold."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _model_files(files: Mapping[str, str]) -> dict[str, str]:
    """The files of a manifest that hold the model itself, with their SHA-256."""
    return {
        name: sha256
        for name, sha256 in files.items()
        if name != GOLDEN_FILE and not name.endswith((".json", ".txt"))
    }
