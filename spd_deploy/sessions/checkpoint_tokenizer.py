"""The tokenizer of a model folder, with the ids that Transformers' ``AutoTokenizer`` gives.

Transformers does not read ``tokenizer.json`` alone. Settings of ``tokenizer_config.json``, such as
``do_lower_case``, ``truncation_side`` or tokens added later, come before those of the file. Some of
its classes build the tokenizer anew from the vocabulary. So ``AutoTokenizer`` reads the folder
here, and its tokenizer is written out as one ``tokenizer.json``, which needs no Transformers.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Self

from spd_deploy.domain.checkpoint import Checkpoint, read_config
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel, first_line
from spd_deploy.domain.files import sha256_of, write_text
from spd_deploy.domain.text import TOKENIZER_FILE, TOKENIZER_FILES, Tokenizer
from spd_deploy.sessions.awkward_texts import awkward_inputs

# Where the awkward texts are cut, some of which are longer.
_CUT_AT = 64
# Files that a vocabulary is read from. Without one Transformers makes up a tokenizer of 5 tokens.
_VOCABULARIES = (TOKENIZER_FILE, "vocab.txt", "vocab.json", "*.model")
# All files that it reads for a tokenizer, and ``*.model``.
_READ = (*TOKENIZER_FILES, "vocab.json", "merges.txt", "added_tokens.json")


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer of a checkpoint, which cuts texts where the checkpoint does.

    Raises:
        BadModel: there is none, or it has tokens that the model has no embedding for.
    """
    file = checkpoint.folder / TOKENIZER_FILE
    content = tokenizer_json(checkpoint.folder)
    tokenizer = Tokenizer(file, max_tokens=checkpoint.max_tokens, content=content)
    types = read_config(checkpoint.folder).get("type_vocab_size")
    refuse_unembedded(tokenizer, checkpoint.encoder, checkpoint.folder, types=types)
    return tokenizer


def tokenizer_as_trained(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer of a checkpoint, which reads long texts as they were read in training.

    Raises:
        BadModel: as of :func:`tokenizer_of`.
    """
    task = checkpoint.task
    return tokenizer_of(checkpoint).in_windows(task.windows, pairs=task.has_pair)


def opener_of(reference: str | Path, *, max_tokens: int) -> Callable[[], Tokenizer]:
    """A function that opens the tokenizer of a folder or of a model on the hub, once.

    Opening raises:
        BadModel: there is no tokenizer that Transformers reads.
    """

    @cache
    def opened() -> Tokenizer:
        content = tokenizer_json(reference)
        return Tokenizer(Path(reference) / TOKENIZER_FILE, max_tokens=max_tokens, content=content)

    return opened


def refuse_unembedded(
    tokenizer: Tokenizer, encoder: Encoder, folder: object, *, types: int | None = None
) -> None:
    """Refuse a tokenizer that gives ids, or types of tokens, beyond the model's tables.

    Args:
        tokenizer: what makes the ids.
        encoder: how many ids have an embedding.
        folder: the model, for the error.
        types: how many types of tokens the model has; where there is one it is read by none.

    Raises:
        BadModel: it does.
    """
    token, number = tokenizer.last_token()
    if number >= encoder.vocabulary:
        raise BadModel(
            f"the tokenizer of {folder} has tokens that the model has no embedding for",
            got=f"{token!r} has id {number}, the model has {encoder.vocabulary} embeddings",
            fix="use the model's own tokenizer, or call resize_token_embeddings(len(tokenizer)) on "
            "the model and save it again",
        )
    highest = max(tokenizer.encode("a", "b").types, default=0)
    if types is not None and types > 1 and highest >= types:
        raise BadModel(
            f"the tokenizer of {folder} gives token types that the model has no embedding for",
            got=f"type {highest}, the model has {types}",
            fix="use the model's own tokenizer",
        )


def tokenizer_json(reference: str | Path) -> str:
    """The content of a ``tokenizer.json`` that gives the ids and types of ``AutoTokenizer``.

    Raises:
        BadModel: Transformers reads no tokenizer there, one without a fast form, or one whose ids
            or types on the awkward texts no ``tokenizer.json`` gives.
    """
    return _compared(_Source.of(reference), _CUT_AT)


def write_tokenizer(reference: str | Path, file: Path, *, max_tokens: int) -> None:
    """Write ``tokenizer.json`` for a model, compared with ``AutoTokenizer`` as it will be used.

    Raises:
        BadModel: as :func:`tokenizer_json` does.
        NotWritten: no space, or no permission.
    """
    write_text(file, _compared(_Source.of(reference), max_tokens))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """The files of a tokenizer; two with the same content are equal.

    Attributes:
        content: the files' hashes and what ``config.json`` says of the tokenizer's class.
    """

    content: tuple[str, ...]
    reference: str = field(compare=False)

    @classmethod
    def of(cls, reference: str | Path) -> Self:
        """A folder with what it holds, or a name on the hub."""
        folder = Path(reference)
        if not folder.is_dir():
            return cls(content=(str(reference),), reference=str(reference))
        config = read_config(folder)
        kinds = (f"{name} {config.get(name)}" for name in ("model_type", "tokenizer_class"))
        names = [name for name in _READ if (folder / name).is_file()]
        names += sorted(file.name for file in folder.glob("*.model"))
        hashes = (f"{name} {sha256_of(folder / name)}" for name in names)
        return cls(content=(*kinds, *hashes), reference=str(reference))


# Transformers makes every combination of what it cuts off two texts, so a shorter cut is slow.
_MIN_COMPARED = 64


# To read a tokenizer and compare it takes half a second, and many folders hold the same one.
@lru_cache(maxsize=32)
def _compared(source: _Source, max_tokens: int) -> str:
    """The ``tokenizer.json`` of a source, whose ids are those of ``AutoTokenizer``.

    Raises:
        BadModel: as :func:`tokenizer_json`.
    """
    auto = _auto_tokenizer(source.reference)
    content = _content_of(auto)
    cut_at = max(max_tokens, _MIN_COMPARED)
    written = Tokenizer(Path(TOKENIZER_FILE), max_tokens=cut_at, content=content)
    _refuse_other_ids(written, auto, source.reference)
    return content


def _content_of(auto: Any) -> str:
    """A tokenizer of Transformers as a ``tokenizer.json``, in which the side to cut on is kept."""
    from tokenizers import Tokenizer as Fast

    backend = Fast.from_str(auto.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    if auto.truncation_side == "left":
        backend.enable_truncation(min(auto.model_max_length, 512), direction="left")
    content = json.loads(backend.to_str())
    if "token_type_ids" not in auto.model_input_names:
        content["post_processor"] = _of_one_type(content.get("post_processor"))
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _refuse_other_ids(ours: Tokenizer, theirs: Any, reference: object) -> None:
    """Compare two tokenizers on the awkward texts, alone, in pairs and cut."""
    for text, pair in awkward_inputs(ours.max_tokens):
        expected = theirs(  # in a batch, since alone it takes an empty second text for none
            [text],
            None if pair is None else [pair],
            truncation="longest_first",
            max_length=ours.max_tokens,
        )
        found = ours.encode(text, pair)
        types = expected.get("token_type_ids", [[0] * len(found)])
        if ([list(found.ids)], [list(found.types)]) != (expected["input_ids"], types):
            raise BadModel(
                f"no {TOKENIZER_FILE} gives the ids of AutoTokenizer on {reference}",
                got=f"another reading of {text[:60]!r}"
                + ("" if pair is None else f" with {pair[:60]!r}"),
                fix="leave out of tokenizer_config.json what a server without Transformers cannot "
                "do, such as split_special_tokens",
            )


def _auto_tokenizer(reference: str | Path) -> Any:
    """Transformers' own tokenizer of a folder or a name on the hub."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    folder = Path(reference)
    local = folder.is_dir()
    if local and not any(any(folder.glob(name)) for name in _VOCABULARIES):
        raise BadModel(
            f"{folder} has no tokenizer",
            got=f"no {TOKENIZER_FILE} and no vocabulary",
            fix="save the model's tokenizer beside it with save_pretrained()",
        )
    if local:
        _refuse_damaged(folder / TOKENIZER_FILE)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        found = AutoTokenizer.from_pretrained(
            reference, trust_remote_code=False, local_files_only=local
        )
    except Exception as err:
        _refuse_unconverted(folder, err)
        raise BadModel(
            f"{reference} has no tokenizer that Transformers reads",
            got=first_line(err),
            fix="save the model's tokenizer beside it with save_pretrained()",
        ) from err
    if not found.is_fast:
        raise BadModel(
            f"the tokenizer of {reference} has no fast form",
            fix="use a model with tokenizer.json or vocab.txt",
        )
    return found


def _refuse_unconverted(folder: Path, err: Exception) -> None:
    """A SentencePiece model alone is named, since Transformers asks for other packages' files."""
    if (folder / TOKENIZER_FILE).is_file() or not (models := sorted(folder.glob("*.model"))):
        return
    raise BadModel(
        f"the tokenizer of {folder} is a SentencePiece model alone, {models[0].name}, which could "
        f"not be converted to {TOKENIZER_FILE}",
        got=first_line(err),
        fix="pip install sentencepiece protobuf, or put the model's tokenizer.json beside it: "
        "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER) writes one where "
        "these packages are",
    ) from err


def _refuse_damaged(file: Path) -> None:
    """A damaged ``tokenizer.json`` is named before Transformers fails on it in other words."""
    if file.is_file():
        Tokenizer(file, max_tokens=8)


def _of_one_type(processor: Any) -> Any:
    """A post-processor that numbers all tokens 0, for a model that is given no types.

    Transformers then hands no ``token_type_ids`` to the model, which takes zeros for them.
    """
    match processor:
        case {"type": "TemplateProcessing"}:
            parts = {name: _without_types(processor[name]) for name in ("single", "pair")}
            return {**processor, **parts}
        case {"type": "Sequence", "processors": list(inner)}:
            return {**processor, "processors": [_of_one_type(one) for one in inner]}
        case {"type": "BertProcessing", "sep": sep, "cls": cls}:
            return _template(cls, sep)
        case _:
            return processor


def _without_types(template: list[dict[str, dict[str, Any]]]) -> list[dict[str, dict[str, Any]]]:
    """The pieces of a template with type 0."""
    return [{kind: {**piece, "type_id": 0} for kind, piece in one.items()} for one in template]


def _template(cls: tuple[str, int], sep: tuple[str, int]) -> dict[str, Any]:
    """BERT's template without types."""
    special = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (cls, sep)}
    first, second = ({"Sequence": {"id": which, "type_id": 0}} for which in "AB")
    begin, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name, _ in (cls, sep))
    return {
        "type": "TemplateProcessing",
        "single": [begin, first, end],
        "pair": [begin, first, end, second, end],
        "special_tokens": special,
    }
