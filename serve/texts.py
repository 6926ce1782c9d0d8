"""The texts of a request: refusing what the model cannot take, and tokenising the rest.

    with errors_at("inputs.16"):
        refuse_wrong_arity(text, "single")       # EmptyText: inputs.16: a text is empty

Tokenising a megabyte takes about a second. Of a very long text therefore only the end that is kept
is tokenised, as far as that gives the same row as the whole text would.
"""

import operator
from dataclasses import dataclass, replace

from spd_deploy.domain.errors import EmptyText, MalformedRequest, Refusal, TextTooLong
from spd_deploy.domain.text import Side, Tokenizer, Tokens, refuse_surrogates

# A word that the limit cuts in two may get other tokens. BERT's tokenizer makes at most 100 tokens
# of a word, so a row that is more tokens than these away from the limit does not see the cut.
_SPARE_TOKENS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """One text or a pair; ``where`` is its position in the request, such as ``inputs.16``."""

    text: str
    pair: str | None = None
    where: str = "inputs"

    @property
    def parts(self) -> tuple[str, ...]:
        """The text, and the second text of a pair."""
        return (self.text,) if self.pair is None else (self.text, self.pair)

    @property
    def chars(self) -> int:
        """Characters of all parts."""
        return sum(map(len, self.parts))


class errors_at:  # noqa: N801  # named like contextlib's; a generator would take three times as long
    """Put the position ``where`` before the message of a refusal raised in the block."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Nothing is needed to begin."""

    def __exit__(self, _: object, err: BaseException | None, __: object) -> None:
        """Raise the refusal with its position; let everything else pass."""
        if isinstance(err, Refusal):
            raise type(err)(f"{self._where}: {err.what}", got=err.got, fix=err.fix) from err


def refuse_wrong_arity(text: Text, takes: str) -> None:
    """Refuse an empty text, and a pair for a model of single texts or the reverse.

    Raises:
        EmptyText: a text is empty or only white space.
        MalformedRequest: ``takes`` is ``pair`` and there is one text, or ``single`` and there are
            two.
    """
    if takes == "pair" and text.pair is None:
        raise MalformedRequest(
            "this model classifies pairs of texts, and one text came",
            fix='send "text_pair" too; in /predict send a list of two texts',
        )
    if takes == "single" and text.pair is not None:
        raise MalformedRequest(
            "this model takes single texts, not pairs",
            fix='leave out "text_pair"; in /predict a flat list of two is a pair, '
            'so nest each text: [["first text"], ["second text"]]',
        )
    refuse_blank(text)


def refuse_blank(text: Text) -> None:
    """Refuse a text without a visible character.

    Raises:
        EmptyText: a text is empty or only white space.
    """
    if not all(part.strip() for part in text.parts):
        raise EmptyText("a text is empty", fix="send some text")


def refuse_too_many_characters(text: Text, *, max_chars: int) -> None:
    """Refuse a text that is too long to tokenise whole, for a request with truncate=false.

    Raises:
        TextTooLong: the text has more than ``max_chars`` characters.
    """
    longest = max(map(len, text.parts))
    if longest > max_chars:
        raise TextTooLong(
            "the text is too long to be tokenised without truncation",
            got=f"{longest} characters, {max_chars} allowed",
            fix="send a shorter text, or allow truncation",
        )


def refuse_truncated(row: Tokens, max_tokens: int) -> None:
    """Refuse a row that lost tokens, for a request with truncate=false.

    Raises:
        TextTooLong: the row lost tokens.
    """
    if row.dropped and row.overflowing:
        raise TextTooLong(
            "a text has more tokens than the model reads in windows",
            got=f"{row.dropped} behind {len(row.windows)} windows of {max_tokens}",
            fix="send a shorter text, or allow truncation",
        )
    if row.dropped:
        raise TextTooLong(
            "a text has more tokens than the model reads",
            got=f"{len(row) + row.dropped}, {max_tokens} allowed",
            fix="send a shorter text, or allow truncation",
        )


def tokens_of(
    tokenizer: Tokenizer, text: Text, *, max_chars: int, side: Side | None = None
) -> Tokens:
    """The row of one text or pair; it equals the row of the whole text, however long that is.

    It is cut at ``side``, by default where the tokenizer's file cuts. If only a part was tokenised,
    ``dropped`` is a lower bound of the tokens cut off.

    Raises:
        EmptyText: the tokenizer drops all characters of a text.
        MalformedRequest: a text holds half of a surrogate pair.
    """
    for part in text.parts:
        refuse_surrogates(part)
    cut = side or tokenizer.side
    read = tuple(_part_to_read(tokenizer, part, max_chars, cut) for part in text.parts)
    cuts = tuple(map(operator.ne, read, text.parts))
    if len(read) == 2 and (all(cuts) or (any(cuts) and tokenizer.windows is not None)):
        # The longer of two gets the odd token, or the windows: both lengths must be known.
        read = text.parts
    row = tokenizer.encode(*read, side=cut)
    if read != text.parts:
        row = replace(row, dropped=row.dropped - _SPARE_TOKENS)
    if row.empty:
        raise EmptyText(
            "a text is empty",
            got="only characters that the tokenizer drops",
            fix="send some text",
        )
    return row


def _part_to_read(tokenizer: Tokenizer, text: str, chars: int, cut: Side) -> str:
    """The first or last ``chars`` characters, or more where they do not fill the model's row."""
    while chars < len(text):
        part = text[:chars] if cut is Side.RIGHT else text[-chars:]
        if tokenizer.encode(part, side=cut).dropped > _SPARE_TOKENS:
            return part
        chars *= 4
    return text
