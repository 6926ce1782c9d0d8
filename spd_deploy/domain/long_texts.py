"""Texts that are longer than the model reads: cut, or read in windows whose logits are pooled.

Windows of a text are as Transformers' tokenizers make them with ``return_overflowing_tokens``: each
is as long as the model reads, and shares ``stride`` tokens with the one before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from spd_deploy.domain.errors import BadSetting, OptionConflict

# Of 512 tokens with the default stride they are 6,272 tokens, or ten pages.
MAX_WINDOWS = 16


class LongTexts(StrEnum):
    """The two ways to read a text that is longer than the model reads."""

    CUT = "cut"
    WINDOWS = "windows"


class WindowPooling(StrEnum):
    """How the logits of a text's windows become those of the text."""

    MEAN = "mean"
    MAX = "max"


@dataclass(frozen=True, kw_only=True, slots=True)
class TextWindows:
    """How long texts are read in windows.

    Attributes:
        stride: tokens that a window shares with the one before; None for a quarter of the model's
            longest input.
        pooling: of the logits of the windows, for each label.
        most: windows of a text; what is behind them is cut off.
    """

    stride: int | None = None
    pooling: WindowPooling = WindowPooling.MEAN
    most: int = MAX_WINDOWS

    def __post_init__(self) -> None:
        """Refuse what no text can have.

        Raises:
            BadSetting: a stride below 0, or no window.
        """
        if self.stride is not None and self.stride < 0:
            raise BadSetting("the window stride is negative", got=self.stride, fix="give 0 or more")
        if self.most < 1:
            raise BadSetting("a text has no window", got=self.most, fix="allow at least 1")

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Self | None:
        """The windows that a model records; None where it was trained on texts that were cut.

        Raises:
            BadSetting: what no text can have.
            KeyError: a field is missing.
            ValueError: an unknown pooling.
        """
        if value is None:
            return None
        stride = None if value["stride"] is None else int(value["stride"])
        pooling = WindowPooling(value["pooling"])
        return cls(stride=stride, pooling=pooling, most=int(value["most"]))

    def __str__(self) -> str:
        """The windows in words, as options would say it."""
        stride = "a quarter of a window" if self.stride is None else f"{self.stride} tokens"
        return f"windows with a stride of {stride}, {self.pooling} of their logits"


@dataclass(frozen=True, kw_only=True, slots=True)
class LongTextChoice:
    """How a user has long texts read. What is None is as the model was trained.

    Attributes:
        long_texts: cut, or in windows.
        stride, pooling, most: those of :class:`TextWindows`.
    """

    long_texts: LongTexts | None = None
    stride: int | None = None
    pooling: WindowPooling | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        """Refuse options of windows where texts are cut.

        Raises:
            OptionConflict: with the options.
        """
        if self.long_texts is LongTexts.CUT:
            self._refuse_windows()

    def windows(self, trained: TextWindows | None) -> TextWindows | None:
        """The windows that a model reads; None where it cuts long texts.

        Args:
            trained: those that it was trained with; None where it was trained on texts that were
                cut.

        Raises:
            OptionConflict: an option of windows where texts are cut.
            BadSetting: a value that is not allowed.
        """
        if self.long_texts is None and trained is None:
            self._refuse_windows()
            return None
        if self.long_texts is LongTexts.CUT:
            return None
        usual = trained or TextWindows()
        return TextWindows(
            stride=usual.stride if self.stride is None else self.stride,
            pooling=self.pooling or usual.pooling,
            most=usual.most if self.most is None else self.most,
        )

    def _refuse_windows(self) -> None:
        """Refuse options of windows."""
        given = {
            "window-stride": self.stride,
            "window-pooling": self.pooling,
            "max-windows": self.most,
        }
        if ignored := [f"--{name} {value}" for name, value in given.items() if value is not None]:
            raise OptionConflict(
                "long texts are cut, and not read in windows",
                got=", ".join(ignored),
                fix="add --long-texts windows",
            )


# Long texts are read as the model was trained.
AS_TRAINED = LongTextChoice()


def with_stride(windows: TextWindows, *, max_tokens: int, room: int) -> TextWindows:
    """The windows with a stride that fits the model; by default a quarter of ``max_tokens``.

    Args:
        windows: as they are asked for.
        max_tokens: that the model reads, special tokens included.
        room: tokens of a text that a window has at least.

    Raises:
        BadSetting: a window would begin where the one before did.
    """
    if room < 1:
        raise BadSetting(
            "the model reads too few tokens for windows",
            got=f"{max_tokens}, special tokens included",
            fix="let long texts be cut",
        )
    stride = min(max_tokens // 4, room - 1) if windows.stride is None else windows.stride
    if stride >= room:
        raise BadSetting(
            "the window stride is not smaller than a window",
            got=f"{stride} tokens, and a window may have as few as {room} of a text",
            fix=f"give a stride of {room - 1} or less",
        )
    return TextWindows(stride=stride, pooling=windows.pooling, most=windows.most)


def spans_of(tokens: int, room: int, stride: int, *, from_left: bool = True) -> list[range]:
    """The places in a text that each window reads; the last window may be shorter.

    Args:
        tokens: of the text.
        room: of a window; it is larger than ``stride``.
        stride: tokens that two neighbours share.
        from_left: whether the first window is at the beginning of the text, or at its end.
    """
    more = max(0, -(-(tokens - room) // (room - stride)))
    starts = [i * (room - stride) for i in range(more + 1)]
    ends = [min(start + room, tokens) for start in starts]
    if from_left:
        return [range(*both) for both in zip(starts, ends, strict=True)]
    return [range(tokens - end, tokens - start) for start, end in zip(starts, ends, strict=True)]


def kept_places(
    texts: Sequence[int | None], max_tokens: int, windows: TextWindows | None, *, from_left: bool
) -> list[Sequence[int]]:
    """The places of the tokens that each window has; where long texts are cut, of one window.

    Args:
        texts: for each token the text of a pair that it is of; None at special tokens.
        max_tokens: of a window.
        windows: with a stride that fits; None where long texts are cut.
        from_left: whether the first window has the beginning of a text, or its end.
    """
    places: tuple[list[int], list[int]] = ([], [])
    special: list[int] = []
    for place, number in enumerate(texts):
        (special if number is None else places[number]).append(place)
    counts = longest_first(len(places[0]), len(places[1]), max_tokens - len(special))

    def kept(number: int) -> list[int]:
        part = places[number]
        return part[: counts[number]] if from_left else part[len(part) - counts[number] :]

    if windows is None:
        return [sorted([*special, *kept(0), *kept(1)])]
    longer = 0 if len(places[0]) > len(places[1]) else 1
    part, beside = places[longer], [*special, *kept(1 - longer)]
    spans = spans_of(len(part), counts[longer], windows.stride or 0, from_left=from_left)
    return [sorted([*beside, *part[span.start : span.stop]]) for span in spans[: windows.most]]


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are kept where they have ``room`` together.

    The longer text loses tokens first, as in the tokenizers library.
    """
    room = max(room, 0)
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    half = room // 2
    if shorter > half:
        return (half, room - half) if first <= second else (room - half, half)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)
