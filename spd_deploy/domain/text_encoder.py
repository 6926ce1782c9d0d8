"""Encoders of texts to token ids: a tokenizer, or one that remembers the texts it has seen."""

from typing import Protocol

from spd_deploy.domain.text import Tokenizer, Tokens


class TextEncoder(Protocol):
    """Makes token ids of texts, as a :class:`Tokenizer` does."""

    def encode(self, text: str, pair: str | None = None) -> Tokens:
        """Token ids of one text or pair."""
        ...


class EncodesOnce:
    """Encodes each text once: a file's rows are checked and then run with the same tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._encoded: dict[tuple[str, str | None], Tokens] = {}

    def encode(self, text: str, pair: str | None = None) -> Tokens:
        """As :meth:`Tokenizer.encode`; the tokens of a text that came before are remembered."""
        found = self._encoded.get((text, pair))
        if found is None:
            found = self._encoded[text, pair] = self.tokenizer.encode(text, pair)
        return found
