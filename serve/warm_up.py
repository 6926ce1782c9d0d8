"""Runs batches before a model is ready, so that no request pays for what happens at the first one.

On a GPU the first batch of a shape is slow: kernels are loaded and tuned, and a CUDA graph is
captured for each bucket (``sessions.torch_network.buckets``). So every bucket of few rows runs
once. On the CPU shapes matter little, and the shortest and the longest row are enough.

The largest shape comes first, since it needs most memory. Then come the fewest rows: a single text
on an idle server meets the cost of a first run most often, and in full.
"""

import logging
import time
from collections.abc import Callable

import numpy as np

from spd_deploy.domain.errors import BadArtefact, EngineFailed
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Tokenizer, Tokens
from spd_deploy.sessions.protocol import Device, Session
from spd_deploy.sessions.torch_network.buckets import buckets_within
from spd_deploy.sessions.torch_network.graphs import MAX_GRAPHS

_log = logging.getLogger(__name__)
_SHORTEST = 2  # tokens
_TELL_EVERY_S = 5.0


def shapes_to_warm(
    device: Device, *, max_seq: int, max_rows: int, max_batch_tokens: int
) -> tuple[Shape, ...]:
    """The shapes to run before a model is ready, in their order; the longest row is among them.

    On a GPU they are at most as many as the session keeps CUDA graphs.

    Args:
        device: where the model runs.
        max_seq: tokens of the longest row.
        max_rows: most rows of a batch.
        max_batch_tokens: most tokens of a batch, padding included; a single row may have more.
    """
    longest = Shape(batch=1, seq=max_seq)
    if device == "cpu":
        return (Shape(batch=1, seq=min(_SHORTEST, max_seq)), longest)
    buckets = buckets_within(max_rows=max_rows, max_seq=max_seq)
    runs = {one for one in buckets if one.tokens <= max_batch_tokens} | {longest}
    largest = max(runs, key=lambda one: (one.tokens, one.seq))
    rest = sorted(runs - {largest, longest})
    return tuple(dict.fromkeys((largest, longest, *rest[: MAX_GRAPHS - 2])))


def warm_up(
    name: str,
    session: Session,
    tokenizer: Tokenizer,
    task: Task,
    *,
    max_rows: int,
    max_batch_tokens: int,
    timeout_s: float,
    say: Callable[[str], None] = _log.info,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Run each of :func:`shapes_to_warm`, until they have taken ``timeout_s``.

    ``say`` gets a line from time to time, and one about shapes that were not run. The first two
    shapes run in any case.

    Raises:
        BadArtefact: the number of logits differs from the number of labels, or logits are NaN or
            infinite.
        EngineFailed: the model does not run a single row.
    """
    tokenizer.encode("The first text is slow to tokenise.")
    shapes = shapes_to_warm(
        session.description.device,
        max_seq=tokenizer.max_tokens,
        max_rows=max_rows,
        max_batch_tokens=max_batch_tokens,
    )
    begun = told = clock()
    too_large: Shape | None = None
    for done, shape in enumerate(shapes):
        now = clock()
        if done > 1 and now - begun > timeout_s:
            say(f"model {name}: {_of(done, shapes)} ran within {timeout_s:g} s; the others run "
                "when they are first needed. A longer --warm-up-timeout runs more")  # fmt: skip
            break
        if now - told > _TELL_EVERY_S:
            say(f"model {name} warms up: {_of(done, shapes)} ran in {now - begun:.0f} s")
            told = now
        if too_large is not None and shape.tokens >= too_large.tokens and shape.batch > 1:
            continue
        try:
            _run(shape, session, tokenizer, task)
        except EngineFailed as err:
            if shape.batch == 1:
                raise
            say(f"model {name} does not run {shape} (rows x tokens): {err}")
            too_large = shape


def _of(done: int, shapes: tuple[Shape, ...]) -> str:
    return f"{done} of {len(shapes)} shapes"


def _run(shape: Shape, session: Session, tokenizer: Tokenizer, task: Task) -> None:
    """Run a batch of this shape, and check its logits.

    Raises:
        BadArtefact: as :func:`warm_up`.
    """
    row = Tokens(ids=(tokenizer.pad_id,) * shape.seq, types=(0,) * shape.seq)
    logits_BC = session.run(tokenizer.pad([row] * shape.batch))
    if logits_BC.shape != (shape.batch, task.outputs):
        raise BadArtefact(
            "the number of the model's logits differs from the number of its labels",
            got=f"{logits_BC.shape[-1]} logits, {task.outputs} expected",
            fix="export it again",
        )
    if not np.isfinite(logits_BC).all():
        raise BadArtefact(
            "the model's logits are NaN or infinite",
            got=logits_BC[:1].tolist(),
            fix="train it again, and check its weights",
        )
