"""The server's limits, checked when they are made.

Each field is also an option of ``spd serve``, an environment variable, a key of its configuration
file (``spd_deploy/cli/options/serve_options.py``), and a part of ``/info``. The text of
``Attributes`` is the help of the option.
"""

import inspect
import re
from dataclasses import dataclass, fields
from typing import Literal

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.long_texts import LongTexts, WindowPooling

# Requests of so many inputs as are allowed must fit, whatever the limit on keys says.
_NODES_PER_INPUT = 8
_WORDS = {"long_texts": tuple(LongTexts), "window_pooling": tuple(WindowPooling)}


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyLimits:
    """The limits of a body: bytes, keys with lists and objects, and values."""

    max_bytes: int
    max_nodes: int
    max_values: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """The server's limits.

    Attributes:
        max_body_bytes: longest request body in bytes. A longer one gets 413 before it is read to
            its end. Raise it for long texts.
        max_bodies_bytes: most bytes of bodies that are held at the same time, over all connections.
            The first 64 KiB of a body do not count. More get 429.
        max_json_nodes: most keys, lists and objects of a body. Eight an input are always allowed. A
            body with more gets 422.
        max_json_values: most values of a body, such as token ids. A body with more gets 422.
        max_inputs: most texts or pairs in one request. A request with more gets 422.
        max_batch_tokens: most tokens of a batch with padding, which are rows times its longest row.
            Lower it for latency or to save memory.
        max_batch_rows: most rows of a batch.
        max_queue_items: most texts or pairs that are queued or running. More requests get 429.
            Lower it to bound the time that a request waits.
        max_queue_tokens: most tokens that are queued or running, without padding. More requests get
            429.
        max_batch_s: seconds that a batch may take by the model's pace. A batch of one row may take
            longer. It bounds how long a short text waits for the batch before it.
        max_queue_chars: most characters that wait to be tokenised or are being tokenised. More
            requests get 429.
        long_texts: what becomes of texts that are longer than the model reads, where a request does
            not say it. cut leaves out what is behind the longest input. windows reads them in
            windows of that length and pools their logits. Where nothing is given, as the model was
            trained.
        window_stride: tokens that a window of a text shares with the one before, as the stride of
            Transformers' tokenizers. Where none is given, as the model was trained, or a quarter of
            its longest input.
        window_pooling: how the logits of a text's windows become those of the text. Where nothing
            is given, as the model was trained, or mean.
        max_windows: most windows of a text. What is behind them is cut off, or the text is refused
            if the request sets truncate to false. Where nothing is given, as the model was trained,
            or 16.
        max_chars_per_token: a text with more characters than this times the model's longest input
            is tokenised from its beginning only, or refused if the request sets truncate to false.
            A text in windows may have so many times more.
        tokenizer_threads: how many requests with long texts are tokenised at the same time.
        max_connections: most connections. One that waits for its next request makes room for a new
            one. Never more than the limit of open files allows.
        max_pipelined: most requests of a connection that wait for the answer to an earlier one. The
            connection is closed after their answers.
        header_timeout_s: seconds that the headers of a request may take, from the first byte or
            from the opening of the connection. Beyond it 408.
        body_timeout_s: seconds that the body of a request may take, from its headers. Beyond it
            408.
        keep_alive_timeout_s: seconds that a connection may wait for its next request.
        write_timeout_s: seconds that a client may leave an answer unread before it is disconnected.
        warm_up_timeout_s: seconds that a model on a GPU may run batches of many shapes before it is
            ready. Shapes that are left run when they are first needed, which is slow once.
        stall_timeout_s: seconds after which a running batch counts as hung, unless ten times its
            expected time is longer. Its requests then fail and /livez answers 503. Raise it for
            long texts on a slow machine.
        drain_timeout_s: seconds that running requests have to finish after SIGTERM. Set it below
            the grace period of your container platform.
        model_control: clients of the Open Inference Protocol may unload models and load them again.
            Leave it off where clients are not trusted with that.
    """

    max_body_bytes: int = 2_000_000
    max_bodies_bytes: int = 64_000_000
    max_json_nodes: int = 2_000
    max_json_values: int = 250_000
    max_inputs: int = 32
    max_batch_tokens: int = 16_384
    max_batch_rows: int = 256
    max_queue_items: int = 512
    max_queue_tokens: int = 65_536
    max_batch_s: float = 0.1
    max_queue_chars: int = 4_000_000
    long_texts: Literal["cut", "windows"] | None = None
    window_stride: int | None = None
    window_pooling: Literal["mean", "max"] | None = None
    max_windows: int | None = None
    max_chars_per_token: int = 32
    tokenizer_threads: int = 2
    max_connections: int = 1_000
    max_pipelined: int = 32
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    warm_up_timeout_s: float = 60.0
    stall_timeout_s: float = 60.0
    drain_timeout_s: float = 30.0
    model_control: bool = False

    def __post_init__(self) -> None:
        """Refuse a limit of zero or less, a negative stride, and an unknown word."""
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _WORDS:
                allowed, must = (
                    value is None or value in _WORDS[name],
                    f"be {' or '.join(_WORDS[name])}",
                )
            elif name == "window_stride":
                allowed, must = value is None or value >= 0, "be 0 or more"
            else:
                positive = value is None or isinstance(value, bool) or value > 0
                allowed, must = positive, "be positive"
            if not allowed:
                raise BadSetting(
                    f"{name} must {must}", got=value, fix="leave it out for the default"
                )

    @property
    def body_limits(self) -> BodyLimits:
        """The limits of a request's body."""
        return BodyLimits(
            max_bytes=self.max_body_bytes,
            max_nodes=max(self.max_json_nodes, _NODES_PER_INPUT * self.max_inputs),
            max_values=self.max_json_values,
        )


def described_settings() -> dict[str, str]:
    """The explanation of each limit, by its name: the section ``Attributes`` of the class."""
    _, _, section = (inspect.getdoc(ServeSettings) or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8,}.+)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
