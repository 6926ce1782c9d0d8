"""Windows of long texts in requests: what is asked for, and the results of windows as one.

The server's settings say what becomes of long texts, where a request does not say it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from pydantic import BeforeValidator, Field

from serve.batching import BatchResult, slowest_of
from serve.protocols.input_spec import InputSpec
from serve.request_body import Strict, validated, whole
from serve.settings import ServeSettings
from spd_deploy.domain.errors import BadSetting, MalformedRequest, TextTooLong
from spd_deploy.domain.long_texts import MAX_WINDOWS, LongTexts, TextWindows, WindowPooling
from spd_deploy.domain.text import Tokenizer, Tokens
from spd_deploy.domain.window_pooling import pooled

LongTextsField = Annotated[
    Literal["cut", "windows"] | None,
    Field(
        description="`windows` reads texts that are longer than max_tokens in windows of that "
        "length and pools their logits; `cut` leaves out their end. Default: as the server was "
        "started, see /info."
    ),
]
StrideField = Annotated[
    Annotated[int, Field(ge=0), BeforeValidator(whole)] | None,
    Field(description="Tokens that a window shares with the one before. Default: the server's."),
]
PoolingField = Annotated[
    Literal["mean", "max"] | None,
    Field(description="How the logits of a text's windows are pooled. Default: the server's."),
]


class _Fields(Protocol):
    """A body that says how long texts are read."""

    long_texts: Any
    window_stride: Any
    window_pooling: Any


def describe_windows(schema: dict[str, Any], spec: InputSpec) -> None:
    """Narrow the schema of an object with the three fields to what the server takes."""
    fields = schema["properties"]
    stride = fields["window_stride"]["anyOf"][0]
    stride["maximum"] = spec.largest_stride
    windows = {"const": "windows"} if spec.long_texts == "cut" else {"enum": ["windows", None]}
    in_windows: dict[str, Any] = {"properties": {"long_texts": windows}}
    if spec.long_texts == "cut":
        in_windows["required"] = ["long_texts"]
    none = {"type": "null"}
    schema["anyOf"] = [in_windows, {"properties": {"window_stride": none, "window_pooling": none}}]


class LongTextParameters(Strict):
    """The parameters of a request that say how long texts are read."""

    long_texts: LongTextsField = None
    window_stride: StrideField = None
    window_pooling: PoolingField = None


class _Request(Strict):
    """A request with such parameters, so that a refusal names their place."""

    parameters: LongTextParameters


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedWindows:
    """How a request has long texts read; None where the server decides."""

    long_texts: str | None = None
    stride: int | None = None
    pooling: str | None = None

    @classmethod
    def of(cls, body: "_Fields") -> Self:
        """The windows that a body asks for."""
        return cls(
            long_texts=body.long_texts, stride=body.window_stride, pooling=body.window_pooling
        )

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """The windows that the parameters of a request ask for; other parameters are ignored.

        Raises:
            MalformedRequest: a value that is not allowed.
        """
        names = LongTextParameters.model_fields
        given = {name: value for name, value in parameters.items() if name in names}
        return cls.of(validated(_Request, {"parameters": given}).parameters)


AS_SERVED = AskedWindows()


def settings_of_model(settings: ServeSettings, trained: TextWindows | None) -> ServeSettings:
    """The settings, of which those of windows are completed by the ones of a model's training.

    Args:
        settings: the server's.
        trained: how the model read long texts in training; None where they were cut.
    """
    usual = trained or TextWindows()
    return replace(
        settings,
        long_texts=settings.long_texts or ("cut" if trained is None else "windows"),
        window_stride=usual.stride if settings.window_stride is None else settings.window_stride,
        window_pooling=settings.window_pooling or usual.pooling.value,
        max_windows=settings.max_windows or usual.most,
    )


def windows_of(settings: ServeSettings, asked: AskedWindows) -> TextWindows | None:
    """How long texts of a request are read; None where they are cut.

    Args:
        settings: those of the model.
        asked: what the request says.

    Raises:
        MalformedRequest: a stride or a pooling where texts are cut.
    """
    if (asked.long_texts or settings.long_texts) != LongTexts.WINDOWS:
        if asked.stride is not None or asked.pooling is not None:
            raise MalformedRequest(
                "window_stride and window_pooling go with windows, and long texts are cut",
                fix='send "long_texts": "windows"',
            )
        return None
    stride = settings.window_stride if asked.stride is None else asked.stride
    pooling = WindowPooling(asked.pooling or settings.window_pooling or WindowPooling.MEAN)
    return TextWindows(stride=stride, pooling=pooling, most=settings.max_windows or MAX_WINDOWS)


def reader_of(
    tokenizer: Tokenizer, settings: ServeSettings, asked: AskedWindows, *, pairs: bool
) -> Tokenizer:
    """The tokenizer that reads long texts as a request asks.

    Raises:
        MalformedRequest: a stride that is not smaller than the model's windows, or one where texts
            are cut.
    """
    try:
        return tokenizer.in_windows(windows_of(settings, asked), pairs=pairs)
    except BadSetting as err:
        raise MalformedRequest(err.what, got=err.got, fix=err.fix) from err


def refuse_too_many_windows(rows: Sequence[Tokens], settings: ServeSettings) -> None:
    """Refuse texts whose windows are more than the server queues, even where it is idle.

    Raises:
        TextTooLong: with their rows and tokens.
    """
    if not any(row.overflowing for row in rows):
        return
    windows, tokens = sum(len(row.windows) for row in rows), sum(row.n_read for row in rows)
    if windows > settings.max_queue_items or tokens > settings.max_queue_tokens:
        raise TextTooLong(
            "the texts have more windows than this server queues",
            got=f"{windows} windows of {tokens} tokens, {settings.max_queue_items} of "
            f"{settings.max_queue_tokens} allowed",
            fix="send fewer texts in a request, or let long texts be cut",
        )


def results_of_texts(rows: Sequence[Tokens], ran: Sequence[BatchResult]) -> list[BatchResult]:
    """The result of each text, of those of its windows, which follow each other.

    It waited and ran as long as the slowest of them.
    """
    if len(ran) == len(rows):
        return list(ran)
    found, results = [], iter(ran)
    for row in rows:
        own = [next(results) for _ in row.windows]
        slowest = slowest_of(own)
        logits_C = pooled(np.stack([one.logits_C for one in own]), row.pooling)
        found.append(BatchResult(logits_C=logits_C, queue_s=slowest.queue_s, run_s=slowest.run_s))
    return found
