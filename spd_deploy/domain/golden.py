"""Golden inputs of an artefact, with what a session must give for them to be trusted.

``golden.safetensors`` holds token ids and logits. ``golden.json`` holds texts, with the token ids,
logits, labels and scores that they had at the export: it proves the whole way from text to answer,
so that neither another tokenizer nor labels in another order go unnoticed.

What rounds little must give the checkpoint's own logits. A quantised graph goes its own way, on
random inputs far: it must give what itself gave when it was exported, whatever runtime it is in.
Its logits are those of each row alone, since a dynamic range is of the whole batch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.documents import versioned
from spd_deploy.domain.errors import BadArtefact, SpdError
from spd_deploy.domain.files import json_object, write_json
from spd_deploy.domain.text import IDS, MASK, TYPES, Batch

GOLDEN_FILE = "golden.safetensors"
ANSWERS_FILE = "golden.json"
SCHEMA = 1
_OWN = "logits:"
_AGAIN = "export it again"

_STRICT = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenText:
    """A text, or a pair, with what it became at the export.

    Attributes:
        ids: its token ids, without padding.
        logits: what the checkpoint gave for it alone.
        own: the logits of graphs that are not held to the checkpoint's, by the graph's file.
        scores: the score of each label, made of ``logits``.
    """

    text: str
    pair: str | None
    ids: tuple[int, ...]
    logits: tuple[float, ...]
    own: Mapping[str, tuple[float, ...]]
    scores: Mapping[str, float]

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """Fixed inputs with the logits ``[B, C]`` that the checkpoint gave for them.

    Attributes:
        own_BC: the logits of graphs that are not held to the checkpoint's, by the graph's file.
        texts: golden texts with their answers.
    """

    batch: Batch
    logits_BC: NDArray[np.float32]
    own_BC: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    texts: tuple[GoldenText, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answers:
    """The fields of ``golden.json`` beside its schema."""

    texts: tuple[GoldenText, ...]

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT


def write_golden(file: Path, golden: Golden) -> None:
    """Save the self-test's token ids and logits as safetensors, and its texts as JSON beside."""
    from safetensors.numpy import save_file

    save_file(
        {
            **golden.batch.named(),
            "logits": golden.logits_BC,
            **{f"{_OWN}{name}": logits_BC for name, logits_BC in golden.own_BC.items()},
        },
        file,
    )
    answers = {"schema": SCHEMA, **asdict(_Answers(texts=golden.texts))}
    write_json(file.with_name(ANSWERS_FILE), answers)


def read_golden(file: Path) -> Golden:
    """Read what :func:`write_golden` wrote.

    Raises:
        BadArtefact: a file is missing or damaged.
    """
    beside = file.with_name(ANSWERS_FILE)
    try:
        return golden_of(file.read_bytes(), beside.read_bytes(), file.parent)
    except OSError as err:
        raise BadArtefact(f"cannot read {err.filename}", got=err.strerror, fix=_AGAIN) from err


def golden_of(arrays: bytes, answers: bytes, folder: Path) -> Golden:
    """The golden inputs and answers in the two files of a folder.

    Raises:
        BadArtefact: one is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    stored = json_object(answers, folder / ANSWERS_FILE, error=BadArtefact, fix=_AGAIN)
    texts = versioned(
        _Answers, stored, SCHEMA, what=ANSWERS_FILE, error=BadArtefact, fix=_AGAIN
    ).texts
    try:
        found = load(arrays)
        batch = Batch(ids_BS=found[IDS], mask_BS=found[MASK], types_BS=found[TYPES])
        own_BC = {k.removeprefix(_OWN): v for k, v in found.items() if k.startswith(_OWN)}
        return Golden(batch=batch, logits_BC=found["logits"], own_BC=own_BC, texts=texts)
    except (KeyError, SafetensorError, SpdError) as err:
        raise BadArtefact(f"{folder / GOLDEN_FILE} is damaged", got=repr(err), fix=_AGAIN) from err
