"""Arms: artefacts that are about to be compared, what is known of them, and what they are fed."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from spd_deploy.benchmark.records import ArmFacts, Lowered, Memory, Settings, Shape
from spd_deploy.domain.artefact import Artefact, MatrixRow
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.runtime_choice import Runtime, RuntimeChoice
from spd_deploy.domain.scores import own_arm
from spd_deploy.domain.shapes import random_batch
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.open import model_file, session_from_artefact
from spd_deploy.sessions.protocol import Description, Session
from spd_deploy.sessions.tensorrt.engine_record import read_record
from spd_deploy.sessions.torch_network.plan import PLAN_FILE

_AUTO = RuntimeChoice()
_SIZES = ("layers", "hidden", "heads", "intermediate", "vocabulary")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """An artefact in a runtime, under the name it has in the report."""

    name: str
    artefact: Artefact
    asked: RuntimeChoice = _AUTO

    @property
    def encoder(self) -> Encoder:
        """The sizes of its model."""
        return self.artefact.encoder

    @property
    def runtime(self) -> Runtime:
        """The runtime asked for, else the artefact's own."""
        return self.asked.runtime or self.artefact.manifest.runtime


def arms_of(
    artefacts: Iterable[Artefact], asked: Sequence[RuntimeChoice] = (_AUTO,)
) -> tuple[Arm, ...]:
    """Each artefact in each runtime asked for, named after its folder.

    A folder's name that comes again gets a number; where there are several runtimes, theirs
    follows in brackets. A runtime that is named twice, or is the artefact's own, is taken once.
    """
    arms: list[Arm] = []
    taken: set[str] = set()
    for artefact in artefacts:
        plain = _printable(artefact.folder.resolve().name)
        numbered = (f"{plain}-{i}" for i in range(2, 2 + len(taken)))
        name = next(n for n in (plain, *numbered) if n not in taken)
        taken.add(name)
        ways = dict.fromkeys(_settled(one, artefact) for one in asked)
        arms += [
            Arm(name=name if len(asked) == 1 else f"{name} ({way})", artefact=artefact, asked=way)
            for way in ways
        ]
    return tuple(arms)


def open_arm(arm: Arm, settings: Settings) -> Session:
    """The arm's session on the device and threads that the settings ask for."""
    return session_from_artefact(
        arm.artefact,
        runtime=arm.asked.runtime,
        precision=arm.asked.precision,
        device=settings.device,
        threads=settings.threads,
    )


def batches_for(arms: Sequence[Arm], settings: Settings) -> dict[Shape, Batch]:
    """Random token ids for each shape, the same for all arms; every token is real.

    Raises:
        BadArtefact: a shape is longer than some arm takes.
    """
    refuse_long(arms, settings)
    vocabulary = min(arm.encoder.vocabulary for arm in arms)
    random = np.random.default_rng(settings.seed)
    return {shape: random_batch(shape, vocabulary, random) for shape in settings.shapes}


def refuse_unreadable(arms: Sequence[Arm]) -> None:
    """Refuse artefacts that have no file for their runtime.

    Raises:
        BadArtefact: one has none.
    """
    for arm in arms:
        model_file(arm.artefact, arm.runtime)


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


def facts_of(arm: Arm, runtime: Description, memory: Memory | None, *, parity: float) -> ArmFacts:
    """What the report says of an arm."""
    manifest, folder = arm.artefact.manifest, arm.artefact.folder
    models = _files_read(arm)
    sizes = asdict(arm.encoder)
    pruned = manifest.sparsity is not None
    own = own_arm(pruned=pruned, precision=runtime.precision, runtime=runtime.runtime)
    return ArmFacts(
        name=arm.name,
        format=manifest.format,
        precision=runtime.precision,
        pattern=manifest.pattern if pruned else None,
        sparsity=manifest.sparsity,
        task=manifest.task.name,
        sizes={name: sizes[name] for name in _SIZES},
        models=models,
        model_bytes=sum(bytes_of(folder / name) for name in models),
        folder_bytes=bytes_of(folder),
        runtime=runtime,
        lowered=lowered_of(manifest.matrices),
        score=dict(manifest.scores.get(own, {})),
        split=manifest.split,
        parity=parity,
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


def _settled(asked: RuntimeChoice, artefact: Artefact) -> RuntimeChoice:
    """The same with a runtime named: the artefact's own where none was."""
    return asked if asked.runtime is not None else artefact.manifest.asked


def _files_read(arm: Arm) -> dict[str, str]:
    """What the arm's runtime reads, with its hashes: an engine, or a graph with its weights."""
    files = arm.artefact.manifest.files
    model = model_file(arm.artefact, arm.runtime)
    if arm.runtime == "tensorrt":
        return {model.name: read_record(arm.artefact.folder).engine_sha256}
    if arm.runtime == "torch":
        return {name: files[name] for name in (PLAN_FILE, model.name)}
    import onnx

    tensors = onnx.load(model, load_external_data=False).graph.initializer
    weights = {part.value for t in tensors for part in t.external_data if part.key == "location"}
    return {name: files[name] for name in (model.name, *sorted(weights))}
