"""A model on the machines of a Ray cluster: actors hold it, and chunks of a file go to them.

Plain actors and not Ray Data: the file is read and written here, by the code of a run on one
machine. The output is one file in the order of the input, byte for byte that of one machine, and a
run that was killed goes on behind its last chunk. Ray Data writes a folder of parts, and reads a
CSV file's ``007`` as 7.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import SpdError, Unavailable, first_line
from spd_deploy.domain.ray_cluster import ray_cluster, whole_cluster, whole_machine
from spd_deploy.domain.runtime_choice import Device, RuntimeChoice
from spd_deploy.domain.text import Batch, Tokenizer, Tokens
from spd_deploy.domain.versions import PACKAGE, version_of
from spd_deploy.scale.chunks import Chunk
from spd_deploy.scale.file_request import model_hash
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of
from spd_deploy.sessions.checkpoints import verified_checkpoint
from spd_deploy.sessions.offline import logits_of
from spd_deploy.sessions.open import Logits, OpenedModel, open_path
from spd_deploy.sessions.protocol import Closing, Description

WHAT = "spd predict --ray"
# One that an actor runs, one that waits for it, and one for the time in which an earlier one lasts.
_CHUNKS_EACH = 3
# Ray starts an actor again, on another machine if need be, and gives it the chunk again.
_RESTARTS = 3
_POLL_S = 0.5
_TELL_AFTER_POLLS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorModel:
    """The model that an actor has opened, which must be the same on all machines."""

    description: Description
    model: str
    version: str


class ModelActor:
    """Holds the model in a process of a cluster; an error of opening it is kept, and told."""

    def __init__(
        self, path: Path, choice: RuntimeChoice, device: Device | None, threads: int | None
    ) -> None:
        self._refused = ""
        try:
            self._opened = open_path(path, runtime_choice=choice, device=device, threads=threads)
        except SpdError as err:
            self._refused = str(err)

    def about(self) -> ActorModel | str:
        """The model that was opened, or why none was."""
        if self._refused:
            return self._refused
        return ActorModel(
            description=self._opened.session.description,
            model=model_hash(self._opened),
            version=str(version_of(PACKAGE)),
        )

    def logits(self, rows: Sequence[Tokens]) -> Logits:
        """Logits ``[rows, C]`` in the order of ``rows``; those of a text's windows are pooled."""
        return logits_of(self._opened.session, self._opened.tokenizer, rows)

    def run(self, batch: Batch) -> Logits:
        """Logits ``[B, C]`` of one batch."""
        return self._opened.session.run(batch)


@dataclass(slots=True)
class _Running:
    """A chunk that an actor has, and Ray's reference to its logits.

    The actor is a number and no handle: Ray ends an actor when its last handle is gone, and the
    traceback of an error keeps what is here.
    """

    chunk: Chunk
    actor: int
    logits: Any


class RaySession(Closing):
    """The actors as one session.

    Attributes:
        description: how each of them runs the model.
    """

    def __init__(self, ray: ModuleType, actors: Sequence[Any]) -> None:
        self._ray = ray
        self._opening = {actor.about.remote(): actor for actor in actors}
        self._ready: list[Any] = []
        self._first: ActorModel | None = None

    @property
    def description(self) -> Description:
        """Of the first actor; the others are refused if theirs differs."""
        if self._first is None:
            raise AssertionError("no actor is ready yet")
        return self._first.description

    def wait_for_one(self, note: Callable[[str], None]) -> None:
        """Wait until an actor has opened the model.

        Raises:
            Unavailable: it did not open there.
        """
        polls = 0
        while not self._ready:
            self._take_opened(_POLL_S)
            polls += 1
            if polls == _TELL_AFTER_POLLS and not self._ready:
                note("waiting for Ray to start an actor; `ray status` shows what is free")

    def run(self, batch: Batch) -> Logits:
        """Logits ``[B, C]`` of one batch, by the first actor."""
        return np.asarray(self._ray.get(self._ready[0].run.remote(batch)))

    def answered(
        self,
        chunks: Iterator[Chunk],
        begin: Callable[[Chunk], None],
        tell: Callable[[int], None],
    ) -> Iterator[tuple[Chunk, Logits]]:
        """Each chunk with its logits, in order, while the actors run later ones.

        Args:
            chunks: to answer.
            begin: is told of each chunk before an actor gets it.
            tell: gets the number of rows that are answered; 0 twice a second meanwhile.

        Raises:
            Unavailable: an actor failed on a chunk; it names the rows.
        """
        running: deque[_Running] = deque()
        for chunk in chunks:
            begin(chunk)
            self._take_opened(0)
            actor = self._least_busy(running)
            logits = self._ready[actor].logits.remote(list(chunk.tokens))
            running.append(_Running(chunk, actor, logits))
            while len(running) >= _CHUNKS_EACH * len(self._ready):
                yield self._first_of(running, tell)
        while running:
            yield self._first_of(running, tell)

    def close(self) -> None:
        """Let go of the actors, which Ray ends then; a cluster that was there before goes on."""
        self._opening, self._ready = {}, []

    def _take_opened(self, timeout_s: float) -> None:
        """Use the actors that have opened the model meanwhile."""
        if not self._opening:
            return
        opened, _ = self._ray.wait(list(self._opening), timeout=timeout_s)
        for reference in opened:
            self._refuse_other(self._got(reference, "the model did not open on Ray"))
            self._ready.append(self._opening.pop(reference))

    def _refuse_other(self, found: ActorModel | str) -> None:
        """Refuse an actor without the model, or with another one than the first has.

        Raises:
            Unavailable: with what it has.
        """
        if isinstance(found, str):
            raise Unavailable(
                "the model did not open on a machine of the Ray cluster",
                got=found,
                fix="each machine needs the same folder under the same path, as in a network "
                "folder, and the same packages",
            )
        self._first = self._first or found
        if found != self._first:
            raise Unavailable(
                "machines of the Ray cluster differ in model, runtime or version of spd",
                got=f"{found}, and {self._first}",
                fix="install the same on each; copy the model's folder to each",
            )

    def _least_busy(self, running: Sequence[_Running]) -> int:
        """The number of the actor with the fewest chunks that it has not answered."""
        busy = [one.logits for one in running]
        _, waiting = self._ray.wait(busy, num_returns=len(busy), timeout=0) if busy else ((), ())
        unanswered = set(waiting)
        load = [
            sum(one.actor == actor and one.logits in unanswered for one in running)
            for actor in range(len(self._ready))
        ]
        return load.index(min(load))

    def _first_of(
        self, running: "deque[_Running]", tell: Callable[[int], None]
    ) -> tuple[Chunk, Logits]:
        """The first chunk and its logits, as soon as they are there."""
        first = running[0]
        while not self._ray.wait([first.logits], timeout=_POLL_S)[0]:
            tell(0)
        running.popleft()
        rows = first.chunk.rows
        logits_BC = self._got(
            first.logits, f"{rows[0].place} to {rows[-1].line}: these rows failed"
        )
        tell(len(rows))
        return first.chunk, np.asarray(logits_BC)

    def _got(self, reference: Any, what: str) -> Any:
        """The value that a reference of Ray stands for.

        Raises:
            Unavailable: the actor raised an error, or died more often than it is started again.
        """
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as err:
            cause = getattr(err, "cause", None) or err
            raise Unavailable(
                what,
                got=f"{type(cause).__name__}: {first_line(cause)}",
                fix="look into the logs of Ray; out of memory, lower the number of actors with "
                "more --threads",
            ) from err


@contextlib.contextmanager
def model_on_ray(
    path: Path,
    address: str,
    *,
    choice: RuntimeChoice,
    device: Device | None,
    threads: int | None,
    note: Callable[[str], None],
) -> Iterator[OpenedModel]:
    """Open the model in as many actors as the cluster has room for.

    Here only the tokenizer is opened, so that this machine needs no GPU.

    Args:
        path: the model's folder, which each machine of the cluster has.
        address: of the cluster; :func:`spd_deploy.domain.ray_cluster.ray_cluster` says which.
        choice: the runtime.
        device: of each actor, which gets a whole GPU.
        threads: CPU threads, and cores, of each actor; 1 by default.
        note: is told what the user waits for.

    Raises:
        SpdError: no cluster, no room in it, or no model.
    """
    folder = path.resolve()
    source, tokenizer = _read_here(folder)
    with ray_cluster(address, WHAT) as ray:
        cores = threads or 1
        gpus = int(device == "cuda" or _runs_on_gpu(source, choice))
        count = _room(ray, cores=cores, gpus=gpus)
        remote = ray.remote(
            num_cpus=cores, num_gpus=gpus, max_restarts=_RESTARTS, max_task_retries=_RESTARTS
        )(ModelActor)
        own = None if gpus else cores
        session = RaySession(
            ray, [remote.remote(folder, choice, device, own) for _ in range(count)]
        )
        with session:
            session.wait_for_one(note)
            note(f"actors on Ray: {count}, each with {'a GPU' if gpus else f'CPUs: {cores}'}")
            yield OpenedModel(session=session, tokenizer=tokenizer, task=source.task, source=source)


def _read_here(folder: Path) -> tuple[Artefact | Checkpoint, Tokenizer]:
    """The model's description and tokenizer, without its weights."""
    if is_artefact(folder):
        artefact = open_artefact(folder, weights=False)
        return artefact, artefact.tokenizer()
    with verified_checkpoint(folder) as checkpoint:
        return checkpoint, tokenizer_of(checkpoint)


def _runs_on_gpu(source: Artefact | Checkpoint, choice: RuntimeChoice) -> bool:
    """Whether the model runs on a GPU where no device is named: a TensorRT engine does."""
    exported = source.manifest.runtime if isinstance(source, Artefact) else None
    return (choice.runtime or exported) == "tensorrt"


def _room(ray: ModuleType, *, cores: int, gpus: int) -> int:
    """How many actors fit into the cluster, one a GPU or one for so many cores.

    Raises:
        Unavailable: not a single one.
    """
    kind, each = ("GPU", 1) if gpus else ("CPU", cores)
    if whole_machine(ray, kind) < each:
        raise Unavailable(
            f"no machine of the Ray cluster has {'a GPU' if gpus else f'{cores} cores'}",
            got=f"{whole_machine(ray, kind)} on the largest",
            fix="use --device cpu" if gpus else "lower --threads",
        )
    return whole_cluster(ray, kind, each=each)
