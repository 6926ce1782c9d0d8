"""The input that the served model takes; OpenAPI schemas and examples depend on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

# A text that holds more than white space, in the regular expressions of JSON Schema.
_NOT_BLANK = r"\S"
# The same where the tokenizer drops invisible characters: controls, soft hyphens, zero-width marks.
UNSEEN = r"\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
_SEEN = rf"[^\s{UNSEEN}]"

_ONE = ("a film that is never dull",)
_PAIR = ("A man is eating.", "Someone eats.")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """The input of a model, and how many inputs a request may hold.

    Attributes:
        model: the name under which the model is served; of several, the first.
        others: the names of the other models.
        version: the number of its version.
        takes: ``single`` texts, a ``pair``, or ``either`` where the model does not say, or where
            it is not open yet.
        reranks: whether the model gives a pair one score.
        max_tokens: the longest input in token ids.
        largest_id: the largest token id.
        example_ids: the token ids of the example.
        drops_unseen: whether the tokenizer drops control characters and zero-width marks.
        largest_stride: tokens that two windows of a text may share at most.
        long_texts: what becomes of long texts where a request does not say it.
    """

    takes: str
    max_inputs: int
    model: str = "model"
    others: tuple[str, ...] = ()
    version: str = "1"
    reranks: bool = True
    max_tokens: int = 2
    largest_id: int = 1
    example_ids: tuple[int, ...] = (0, 1)
    drops_unseen: bool = False
    largest_stride: int = 0
    long_texts: Literal["cut", "windows"] = "cut"

    @property
    def text(self) -> dict[str, Any]:
        """The JSON schema of a text that has at least one visible character."""
        pattern = _SEEN if self.drops_unseen else _NOT_BLANK
        return {"type": "string", "minLength": 1, "pattern": pattern}

    @property
    def tokenizable_text(self) -> dict[str, Any]:
        """The JSON schema of a text that may hold nothing but what the tokenizer drops."""
        return {"type": "string", "minLength": 1, "pattern": _NOT_BLANK}

    @property
    def ids(self) -> dict[str, Any]:
        """The JSON schema of a row of token ids."""
        one = {"type": "integer", "minimum": 0, "maximum": self.largest_id}
        return {"type": "array", "items": one, "minItems": 1, "maxItems": self.max_tokens}

    @property
    def models(self) -> tuple[str, ...]:
        """The names of all models."""
        return (self.model, *self.others)

    @property
    def path_values(self) -> dict[str, list[str]]:
        """The values of each parameter that a path may have."""
        return {"name": list(self.models), "version": [self.version]}

    @property
    def example(self) -> tuple[str, ...]:
        """An example input: one text, or the two of a pair."""
        return example_of(self.takes)


def spec_of_all(specs: Sequence[InputSpec]) -> InputSpec:
    """The specification that bodies of all models share; the first one gives the examples.

    Raises:
        IndexError: there is none.
    """
    first, takes = specs[0], {spec.takes for spec in specs}
    return replace(
        first,
        others=tuple(spec.model for spec in specs[1:]),
        takes=first.takes if len(takes) == 1 else "either",
        reranks=any(spec.reranks for spec in specs),
        max_tokens=min(spec.max_tokens for spec in specs),
        largest_id=min(spec.largest_id for spec in specs),
        largest_stride=min(spec.largest_stride for spec in specs),
        drops_unseen=any(spec.drops_unseen for spec in specs),
    )


def example_of(takes: str) -> tuple[str, ...]:
    """An example input of a model that takes such input."""
    return _PAIR if takes == "pair" else _ONE
