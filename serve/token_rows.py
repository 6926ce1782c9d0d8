"""Token ids that a client sends instead of texts: checked, and made rows.

A runtime would read beyond its table of embeddings for an id that the model does not have.
"""

from collections.abc import Sequence

from spd_deploy.domain.errors import EmptyText, MalformedRequest, TextTooLong
from spd_deploy.domain.text import Tokenizer, Tokens


def row_of(tokenizer: Tokenizer, ids: Sequence[int], types: Sequence[int] | None = None) -> Tokens:
    """A row of token ids as the model reads it; special tokens must be among the ids.

    Args:
        tokenizer: knows the ids and the length that the model takes.
        ids: the token ids.
        types: the segment of each; 0 for all by default.

    Raises:
        Refusal: no id, too many ids, or an id or a segment that the model does not have.
    """
    if not ids:
        raise EmptyText("there are no token ids", fix="send the ids of a text's tokens")
    if len(ids) > tokenizer.max_tokens:
        raise TextTooLong(
            "there are more token ids than the model reads",
            got=f"{len(ids)}, {tokenizer.max_tokens} allowed",
            fix="cut the text before it is tokenised",
        )
    _refuse_beyond("token id", ids, tokenizer.last_token()[1])
    if types is None:
        types = (0,) * len(ids)
    else:
        _refuse_beyond("token type", types, max(tokenizer.encode("a", "a").types))
    return Tokens(ids=tuple(ids), types=tuple(types))


def _refuse_beyond(what: str, values: Sequence[int], largest: int) -> None:
    """Refuse a value below 0 or above ``largest``."""
    wrong = next((value for value in values if not 0 <= value <= largest), None)
    if wrong is not None:
        raise MalformedRequest(
            f"the model has no such {what}",
            got=wrong,
            fix=f"send numbers from 0 to {largest}, of the model's own tokenizer",
        )
