"""The texts of a request: which are refused, and how a very long one becomes token ids.

    with named("inputs.16"):
        refuse_form(text, "single")       # EmptyText: inputs.16: a text is empty

Tokenising costs about a second for a megabyte, so of a text with more characters than a limit only
the beginning is tokenised, where that gives the same row as the whole text would.
"""

import contextlib
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

from spd_deploy.domain.errors import EmptyText, MalformedRequest, Refusal, TextTooLong
from spd_deploy.domain.text import Tokenizer, Tokens, refuse_surrogates

# A word that the limit cuts in two may get other tokens. BERT's tokenizer makes at most 100 tokens
# of a word, so a row that ends more tokens than these before the limit does not see the cut.
_SPARE_TOKENS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """One text, or a pair; ``where`` names its place in the request, as ``inputs.16``."""

    text: str
    pair: str | None = None
    where: str = "inputs"

    @property
    def parts(self) -> tuple[str, ...]:
        """The text, and the second of a pair."""
        return (self.text,) if self.pair is None else (self.text, self.pair)


@contextlib.contextmanager
def named(where: str) -> Iterator[None]:
    """Put ``where`` before the message of a refusal raised in the block."""
    try:
        yield
    except Refusal as err:
        raise type(err)(f"{where}: {err.what}", got=err.got, fix=err.fix) from err


def refuse_form(text: Text, takes: str) -> None:
    """Refuse an empty text, and a pair or its absence where the model takes the other.

    Raises:
        EmptyText: nothing, or only white space.
        MalformedRequest: ``takes`` is ``pair`` and there is none, or ``single`` and there is one.
    """
    if takes == "pair" and text.pair is None:
        raise MalformedRequest(
            "this model compares two texts", fix='send "text_pair" too; in /predict, two texts'
        )
    if takes == "single" and text.pair is not None:
        raise MalformedRequest(
            "this model takes single texts, not pairs",
            fix='leave out "text_pair"; in /predict a flat list of two is a pair, '
            'so nest each text: [["first text"], ["second text"]]',
        )
    if not all(part.strip() for part in text.parts):
        raise EmptyText("a text is empty", fix="send some text")


def refuse_long(text: Text, *, max_chars: int) -> None:
    """Refuse a text that is too long to be tokenised whole, for a client that declined truncation.

    Raises:
        TextTooLong: it has more than ``max_chars`` characters.
    """
    longest = max(map(len, text.parts))
    if longest > max_chars:
        raise TextTooLong(
            "the text is too long to be tokenised uncut",
            got=f"{longest} characters, {max_chars} allowed",
            fix="send a shorter text, or allow truncation",
        )


def refuse_cut(row: Tokens, max_tokens: int) -> None:
    """Refuse a row that lost tokens, for a client that declined truncation.

    Raises:
        TextTooLong: it did.
    """
    if row.dropped:
        raise TextTooLong(
            "a text has more tokens than the model reads",
            got=f"{len(row) + row.dropped}, {max_tokens} allowed",
            fix="send a shorter text, or allow truncation",
        )


def tokens_of(tokenizer: Tokenizer, text: Text, *, max_chars: int) -> Tokens:
    """The row of one text or pair, equal to that of the whole text however long it is.

    Where only the beginning was tokenised, at least ``dropped`` tokens were cut off.

    Raises:
        EmptyText: the tokenizer drops all characters of a text.
        MalformedRequest: a text holds half of a surrogate pair.
    """
    for part in text.parts:
        refuse_surrogates(part)
    starts = tuple(_beginning(tokenizer, part, max_chars) for part in text.parts)
    if len(starts) == 2 and all(map(operator.ne, starts, text.parts)):
        starts = text.parts  # the longer of two gets the odd token: both lengths must be known
    row = tokenizer.encode(*starts)
    if starts != text.parts:
        row = replace(row, dropped=row.dropped - _SPARE_TOKENS)
    if row.empty:
        raise EmptyText(
            "a text is empty", got="only characters that the tokenizer drops", fix="send some text"
        )
    return row


def _beginning(tokenizer: Tokenizer, text: str, chars: int) -> str:
    """The first ``chars`` characters, or as many more as fill the model's row."""
    while chars < len(text):
        if tokenizer.encode(text[:chars]).dropped > _SPARE_TOKENS:
            return text[:chars]
        chars *= 2
    return text
