"""Text, or a pair of texts, to token ids: the same for training, serving and the benchmark.

Only the ``tokenizers`` library is used, on the ``tokenizer.json`` that travels with every
checkpoint and artefact, so a server needs neither torch nor transformers and cannot cut or number
a text otherwise than the trainer did.
"""

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import BadModel, MalformedRequest
from spd_deploy.domain.long_texts import TextWindows, WindowPooling, kept_places, with_stride

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Fast

# What the inputs of a classifier are called in every graph.
IDS, MASK, TYPES = INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TOKENIZER_FILE = "tokenizer.json"
# What of a tokenizer travels along; only the first is read here, the rest is for other tools.
TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_LONG_CHARS = 2_000
# How SentencePiece and byte-level BPE write a space.
_SPACE_MARKS = "\u2581\u0120"
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")  # as str.isalnum has it


class Side(StrEnum):
    """The side on which a text that is too long loses its tokens."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """One text or pair as the model reads it.

    Attributes:
        ids: token ids, special tokens included.
        types: segment of each token: 0 for the first text, 1 for the second.
        dropped: how many tokens were cut off because the model takes no more.
        overflowing: the further windows of a text that is read in windows.
        pooling: how the logits of its windows become its own.
        repeated: how many tokens windows have that are in the one before too.
        empty: whether the text, or one of a pair, has no token of its own: it holds nothing, or
            only characters that the tokenizer drops, such as a zero-width space or NUL.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]
    dropped: int = 0
    overflowing: tuple["Tokens", ...] = ()
    pooling: WindowPooling = WindowPooling.MEAN
    repeated: int = 0
    empty: bool = False

    def __len__(self) -> int:
        """Number of tokens, special ones included; of the first of several windows."""
        return len(self.ids)

    @property
    def windows(self) -> tuple["Tokens", ...]:
        """The rows that the model reads: one, or one for each window."""
        return (self, *self.overflowing)

    @property
    def n_read(self) -> int:
        """Number of tokens that the model is given, in all windows together."""
        return sum(map(len, self.windows))

    @property
    def n_whole(self) -> int:
        """Number of tokens of the whole text, special ones included."""
        return self.n_read - self.repeated + self.dropped


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """B rows padded to S tokens; what a session runs. All arrays are int64 ``[B, S]``."""

    ids_BS: NDArray[np.int64]
    mask_BS: NDArray[np.int64]
    types_BS: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Rows and columns that all three have, and of columns one at least.

        Raises:
            MalformedRequest: runtimes would read beyond an array's end, or fail in words of theirs.
        """
        shapes = [values.shape for values in (self.ids_BS, self.mask_BS, self.types_BS)]
        if len(set(shapes)) > 1 or len(shapes[0]) != 2 or shapes[0][1] == 0:
            raise MalformedRequest(
                "a batch is three arrays of one shape, at least a token wide",
                got=", ".join(map(str, shapes)),
                fix="tokenise texts that have tokens, with the model's own tokenizer",
            )

    def __len__(self) -> int:
        return len(self.ids_BS)

    def named(self) -> dict[str, NDArray[np.int64]]:
        """The arrays under the names of :data:`INPUTS`, in that order."""
        return dict(zip(INPUTS, (self.ids_BS, self.mask_BS, self.types_BS), strict=True))

    @property
    def real_share(self) -> float:
        """Share of the padded tokens that is real."""
        return float(self.mask_BS.mean())


class Tokenizer:
    """Turns texts into :class:`Tokens` and pads them into a :class:`Batch`.

    Safe to share between threads: its settings never change after it is made.
    """

    def __init__(self, file: Path, *, max_tokens: int, content: str | None = None) -> None:
        """Read ``tokenizer.json``; texts longer than ``max_tokens`` lose tokens, longest first.

        They lose them at the end, or at the beginning where the file itself cuts on the left.

        Args:
            file: where the tokenizer is.
            max_tokens: how many tokens a text, or the two texts of a pair, may have.
            content: what stands in for the content of ``file``.

        Raises:
            BadModel: the file is missing or is not a tokenizer.
        """
        from tokenizers import Tokenizer as Fast

        try:
            if content is None:
                content = file.read_text(encoding="utf-8")
            self._whole = Fast.from_str(content)
            self._cutting = Fast.from_str(content)
        except OSError as err:
            raise BadModel(
                f"cannot read {file}", got=err.strerror, fix="use a model folder with a tokenizer"
            ) from err
        except Exception as err:
            raise BadModel(
                f"{file} is not a tokenizer", got=err, fix="copy it from the model again"
            ) from err
        self.side = Side((self._whole.truncation or {}).get("direction", "right"))
        self._whole.no_padding()
        self._whole.no_truncation()
        self._cutting.no_padding()
        self._cutting.enable_truncation(max_tokens, direction=self.side.value)
        self.max_tokens = max_tokens
        self.windows: TextWindows | None = None
        self.pad_id = self._pad_id()
        # What stands around two texts of nothing.
        self.special_ids = frozenset(self._whole.encode("", "").ids)

    def in_windows(self, windows: TextWindows | None, *, pairs: bool) -> Self:
        """The same tokenizer, which reads long texts in windows; None to cut them.

        Of a pair the longer text is read in windows, each beside the whole of the shorter one, as
        in question answering. A shorter text that takes more than half is cut to half.

        Args:
            windows: what a window shares with the one before, and how many a text has.
            pairs: whether it may be given pairs, in whose windows a text has less room.

        Raises:
            BadSetting: the stride is not smaller than a window.
        """
        found = copy(self)
        found.windows = None
        if windows is not None:
            room = self.window_room(pairs=pairs)
            found.windows = with_stride(windows, max_tokens=self.max_tokens, room=room)
        return found

    def window_room(self, *, pairs: bool) -> int:
        """How many tokens of a text a window has at least; of a pair half of the room."""
        room = self.max_tokens - len(self._whole.encode("", "" if pairs else None).ids)
        return room // 2 if pairs else room

    def encode(self, text: str, pair: str | None = None, *, side: Side | None = None) -> Tokens:
        """Token ids of one text or pair, cut to ``max_tokens``, or in windows of so many.

        Args:
            text: the text, or the first of a pair.
            pair: the second of a pair.
            side: where it is cut; by default where the tokenizer's file cuts, as training did.

        Raises:
            MalformedRequest: the text holds half a surrogate pair, which is not Unicode text.
        """
        refuse_surrogates(text)
        if pair is not None:
            refuse_surrogates(pair)
        own = side is None or side is self.side
        if pair is not None or not own or self.windows is not None:
            return self._encode_and_cut(text, pair, side or self.side)
        found = _encoded(self._cutting, text)
        whole = found if len(found) < self.max_tokens else _encoded(self._whole, text)
        return Tokens(
            ids=tuple(found.ids),
            types=tuple(found.type_ids),
            dropped=len(whole) - len(found),
            # The cut alone may have taken all tokens of a text that has some.
            empty=lacks_tokens(found, texts=1) and lacks_tokens(whole, texts=1),
        )

    def encode_all(self, texts: Sequence[tuple[str, str | None]]) -> list[Tokens]:
        """As :meth:`encode` of each text or pair, all in one call of the library, which is faster.

        The library runs it on several cores, and without Python's lock. It is not asked for the
        tokens themselves: a text with a letter or a digit is not empty.

        Args:
            texts: all alone, or all with a pair.

        Raises:
            MalformedRequest: as of :meth:`encode`.
        """
        for text, pair in texts:
            refuse_surrogates(text)
            refuse_surrogates(pair or "")
        firsts = [text for text, _ in texts]
        paired = any(pair is not None for _, pair in texts)
        if paired or self.windows is not None:
            wholes = self._whole.encode_batch(
                [(text, pair or "") for text, pair in texts] if paired else firsts
            )
            return [
                self._cut(
                    whole,
                    self.side,
                    _may_be_empty(text, *((pair or "",) if paired else ())),
                    texts=1 + paired,
                )
                for (text, pair), whole in zip(texts, wholes, strict=True)
            ]
        found = self._cutting.encode_batch(firsts)
        long = [i for i, one in enumerate(found) if len(one) >= self.max_tokens]
        whole = dict(zip(long, self._whole.encode_batch([firsts[i] for i in long]), strict=True))
        return [
            Tokens(
                ids=tuple(one.ids),
                types=tuple(one.type_ids),
                dropped=len(whole.get(i, one)) - len(one),
                empty=_may_be_empty(firsts[i]) and lacks_tokens(whole.get(i, one), texts=1),
            )
            for i, one in enumerate(found)
        ]

    def _encode_and_cut(self, text: str, pair: str | None, side: Side) -> Tokens:
        """Token ids of a text, or of a pair, which loses tokens of the longer text first.

        For a pair the library would also make every combination of what it cuts off the one text
        and the other: for two long texts, gigabytes.
        """
        whole = _encoded(self._whole, text, pair)
        return self._cut(whole, side, may_be_empty=True, texts=1 if pair is None else 2)

    def _cut(self, whole: "Encoding", side: Side, may_be_empty: bool, *, texts: int = 2) -> Tokens:
        """The tokens that are kept of an encoding of one text or two."""
        kept: list[Sequence[int]] = [range(len(whole))]
        if len(whole) > self.max_tokens:
            kept = kept_places(
                whole.sequence_ids,
                self.max_tokens,
                self.windows,
                from_left=side is Side.RIGHT,
            )
        first, *more = [_at(whole.ids, whole.type_ids, places) for places in kept]
        read = len(first) if not more else len(set().union(*kept))
        return replace(
            first,
            dropped=len(whole) - read,
            overflowing=tuple(more),
            pooling=WindowPooling.MEAN if self.windows is None else self.windows.pooling,
            repeated=sum(map(len, kept)) - read,
            empty=may_be_empty and lacks_tokens(whole, texts=texts),
        )

    def encoding(self, text: str, *, special_tokens: bool = True) -> "Encoding":
        """The library's own encoding of a whole text, with the place of each token in it.

        Raises:
            MalformedRequest: the text holds half a surrogate pair, which is not Unicode text.
        """
        refuse_surrogates(text)
        return _encoded(self._whole, text, special_tokens=special_tokens)

    def last_token(self) -> tuple[str, int]:
        """The token with the highest id, and that id."""
        vocabulary = self._whole.get_vocab(with_added_tokens=True)
        return max(vocabulary.items(), key=lambda item: item[1])

    def pad(self, rows: Sequence[Tokens]) -> Batch:
        """The rows as one batch, padded on the right to the longest."""
        return pad(rows, pad_id=self.pad_id)

    def _pad_id(self) -> int:
        """The id of the padding token; 0, BERT's own, where the vocabulary names none.

        A vocabulary may have both names: MPNet's has BERT's as a plain word. A special token is it.
        """
        added = self._whole.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special}
        for name in sorted(("[PAD]", "<pad>"), key=lambda name: name not in special):
            if (number := self._whole.token_to_id(name)) is not None:
                return int(number)
        return 0


def _encoded(
    tokenizer: "Fast", text: str, pair: str | None = None, *, special_tokens: bool = True
) -> "Encoding":
    """The library's encoding of a text or pair.

    Only its ``encode_batch`` lets other threads run meanwhile, which matters where texts are long.
    """
    if len(text) + len(pair or "") < _LONG_CHARS:
        return tokenizer.encode(text, pair, add_special_tokens=special_tokens)
    one = text if pair is None else (text, pair)
    (found,) = tokenizer.encode_batch([one], add_special_tokens=special_tokens)
    return found


def _at(ids: Sequence[int], types: Sequence[int], places: Sequence[int]) -> Tokens:
    """The tokens at some places."""
    return Tokens(ids=tuple(ids[i] for i in places), types=tuple(types[i] for i in places))


def _may_be_empty(*texts: str) -> bool:
    """Whether one of the texts has neither letter nor digit, which always have a token."""
    return not all(map(_LETTER_OR_DIGIT.search, texts))


def lacks_tokens(encoding: "Encoding", *, texts: int) -> bool:
    """Whether one of the ``texts`` has no token of its own; a mark of a space alone is none."""
    lacking = set(range(texts))
    for part, token in zip(encoding.sequence_ids, encoding.tokens, strict=True):
        if part in lacking and token.strip(_SPACE_MARKS):
            lacking.remove(part)
            if not lacking:
                return False
    return True


def pad(rows: Sequence[Tokens], *, pad_id: int) -> Batch:
    """Rows as one batch, padded on the right to the longest with ``pad_id`` and mask 0."""
    shape = (len(rows), max(map(len, rows)))
    ids_BS = np.full(shape, pad_id, np.int64)
    mask_BS, types_BS = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for i, row in enumerate(rows):
        ids_BS[i, : len(row)] = row.ids
        types_BS[i, : len(row)] = row.types
        mask_BS[i, : len(row)] = 1
    return Batch(ids_BS=ids_BS, mask_BS=mask_BS, types_BS=types_BS)


def refuse_surrogates(text: str) -> None:
    """Refuse text that UTF-8 cannot carry (a lone surrogate, legal in JSON escapes)."""
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise MalformedRequest(
            "the text holds half of a surrogate pair, which is not Unicode",
            fix="send both halves, or the character itself",
        ) from err
