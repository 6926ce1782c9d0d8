"""Which values the parameters of the API take; the options of the command line take the same.

Reading a value returns it in its one type, or raises a ``BadSetting`` that names the parameter.
"""

import math
import operator
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.long_texts import LongTextChoice, LongTexts, WindowPooling
from spd_deploy.domain.runtime_choice import DEVICES, RUNTIME_CHOICES
from spd_deploy.hub.address import BareNames
from spd_deploy.hub.fetch import fetch_model


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, name: str, value: object) -> str:
        """The value, if it is one of the words, spelled exactly so."""
        if isinstance(value, str) and value in self.words:
            return value
        raise _wrong(name, f"one of {', '.join(self.words)}", value)


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """A whole number, the ends included."""

    low: int
    high: int | None = None

    def read(self, name: str, value: object) -> int:
        """The number; neither 1.5 nor True is one."""
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError as err:
            raise _wrong(name, self._said, value) from err
        if isinstance(value, bool) or number < self.low or number > (self.high or number):
            raise _wrong(name, self._said, value)
        return number

    @property
    def _said(self) -> str:
        """The range in words."""
        return f"a whole number of {self.low} or more" + (f", up to {self.high}" * bool(self.high))


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number, the ends included."""

    low: float
    high: float

    def read(self, name: str, value: object) -> float:
        """The value as a float; a numpy number is one, True and NaN are not."""
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise _wrong(name, self._said, value)
        number = float(value)
        if not (self.low <= number <= self.high and math.isfinite(number)):
            raise _wrong(name, self._said, value)
        return number

    @property
    def _said(self) -> str:
        """The range in words."""
        return f"a number from {self.low:g} to {self.high:g}"


LONG_TEXTS = OneOf(tuple(one.value for one in LongTexts))
WINDOW_POOLING = OneOf(tuple(one.value for one in WindowPooling))
WINDOW_STRIDE, MAX_WINDOWS = WholeNumber(0, 65536), WholeNumber(1, 65536)
RUNTIME = OneOf(tuple(RUNTIME_CHOICES))
DEVICE = OneOf(DEVICES)
THREADS = WholeNumber(1, 1024)
SCORE = Number(0.0, 1.0)
# Rows of a batch, tokens of a row, or one dimension of a matrix.
SIZE = WholeNumber(1, 65536)
ROUNDS = WholeNumber(2, 1000)
SECONDS = Number(0.001, 86400)
# Requests a second; milliseconds of a latency bound; a price; a ratio of two reports.
RATE = Number(0.001, 1e6)
BOUND_MS = Number(0.1, 600_000)
PRICE = Number(1e-6, 1e9)
FAIL_BELOW = Number(0.01, 100)


def read_windows(
    long_texts: object, stride: object, pooling: object, most: object
) -> LongTextChoice:
    """How long texts are read, by the parameters of those names; None is as the model was trained.

    Raises:
        BadSetting: a value that is not allowed, or one of windows where texts are cut.
    """
    kind = None if long_texts is None else LONG_TEXTS.read("long_texts", long_texts)
    of_text = None if pooling is None else WINDOW_POOLING.read("window_pooling", pooling)
    return LongTextChoice(
        long_texts=None if kind is None else LongTexts(kind),
        stride=None if stride is None else WINDOW_STRIDE.read("window_stride", stride),
        pooling=None if of_text is None else WindowPooling(of_text),
        most=None if most is None else MAX_WINDOWS.read("max_windows", most),
    )


def read_sizes(name: str, value: object) -> tuple[int, ...]:
    """One size, or several."""
    many = [value] if not isinstance(value, Iterable) or isinstance(value, str) else list(value)
    if not many:
        raise _wrong(name, "at least one whole number", value)
    return tuple(SIZE.read(name, one) for one in many)


def read_words(kind: OneOf, name: str, value: object) -> tuple[str, ...]:
    """One word, or several."""
    many = [value] if not isinstance(value, Iterable) or isinstance(value, str) else list(value)
    if not many:
        raise _wrong(name, f"one of {', '.join(kind.words)}, or several", value)
    return tuple(kind.read(name, one) for one in many)


def read_path(name: str, value: object) -> Path:
    """A path; a result of another function stands for the folder that it wrote."""
    if isinstance(value, str | os.PathLike):
        return Path(os.fspath(value))
    raise _wrong(name, "a path", value)


def read_model(
    name: str,
    value: object,
    *,
    revision: object = None,
    names: BareNames = "none",
    note: Callable[[str], None] | None = None,
) -> Path:
    """The folder of a model; a model that is elsewhere is copied first.

    Args:
        name: the parameter.
        value: a path, an address, or the result of another function.
        revision: branch, tag or commit of a model on the hub.
        names: which bare names are looked for on the hub.
        note: gets what the user should know of a copy; by default the log does.
    """
    wanted = None if revision is None else read_text("revision", revision)
    listener = {} if note is None else {"note": note}
    return fetch_model(read_path(name, value), wanted, names=names, **listener).folder


def read_text(name: str, value: object) -> str:
    """The value, if it is a ``str``; a number is not turned into one."""
    if isinstance(value, str):
        return value
    raise _wrong(name, "a string", value)


def read_flag(name: str, value: object) -> bool:
    """The value, if it is a ``bool``; 0 and 1 are refused."""
    if isinstance(value, bool):
        return value
    raise _wrong(name, "True or False", value)


def _wrong(name: str, wanted: str, value: object) -> BadSetting:
    """The error: the parameter, what it takes, and what was given."""
    return BadSetting(f"{name} must be {wanted}", got=repr(value), fix="give such a value")
