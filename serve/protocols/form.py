"""What a request to the served model looks like: the facts that schemas and examples depend on."""

from dataclasses import dataclass
from typing import Any

# A text that is not blank; one that the tokenizer drops altogether is refused too.
TEXT: dict[str, Any] = {"type": "string", "minLength": 1, "pattern": r"\S"}

_ONE = ("a film that is never dull",)
_PAIR = ("He bought a car.", "A car was bought by him.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What the model takes, and how many texts or pairs a request may hold.

    Attributes:
        takes: ``single`` texts, a ``pair``, or ``either`` where the model does not say, or where
            it is not open yet.
    """

    takes: str
    max_inputs: int

    @property
    def example(self) -> tuple[str, ...]:
        """One text or a pair, as the model takes it."""
        return _PAIR if self.takes == "pair" else _ONE
