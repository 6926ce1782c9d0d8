"""The server's limits, checked when they are made.

Each field is also an option of ``spd serve``, an environment variable, a key of its configuration
file (``spd_deploy/cli/serve_options.py``), and a part of ``/info``. The text of ``Attributes`` is
the help of the option.
"""

import inspect
import re
from dataclasses import dataclass, fields

from spd_deploy.domain.errors import BadSetting


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """The server's limits.

    Attributes:
        max_body_bytes: longest request body in bytes. A longer one gets 413 before it is read to
            its end. Raise it for long texts.
        max_inputs: most texts or pairs in one request. A request with more gets 422.
        max_batch_tokens: most tokens of a batch with padding, which are rows times its longest row.
            Lower it for latency or to save memory.
        max_batch_rows: most rows of a batch.
        max_queue_items: most texts or pairs that are queued or running. More requests get 429.
            Lower it to bound the time that a request waits.
        max_queue_tokens: most tokens that are queued or running, without padding. More requests get
            429.
        max_chars_per_token: a text with more characters than this times the model's longest input
            is tokenised from its beginning only, or refused if the request sets truncate to false.
        tokenizer_threads: how many requests with long texts are tokenised at the same time.
        stall_timeout_s: seconds after which a running batch counts as hung, unless ten times its
            expected time is longer. Its requests then fail and /livez answers 503. Raise it for
            long texts on a slow machine.
        drain_timeout_s: seconds that running requests have to finish after SIGTERM. Set it below
            the grace period of your container platform.
        model_control: clients of the Open Inference Protocol may unload the model and load it
            again. Leave it off where clients are not trusted with that.
    """

    max_body_bytes: int = 2_000_000
    max_inputs: int = 32
    max_batch_tokens: int = 16_384
    max_batch_rows: int = 256
    max_queue_items: int = 512
    max_queue_tokens: int = 65_536
    max_chars_per_token: int = 250
    tokenizer_threads: int = 2
    stall_timeout_s: float = 60.0
    drain_timeout_s: float = 30.0
    model_control: bool = False

    def __post_init__(self) -> None:
        """Refuse a limit of zero or less."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, bool) or value > 0):
                raise BadSetting(
                    f"{field.name} must be positive", got=value, fix="leave it out for the default"
                )


def described_settings() -> dict[str, str]:
    """What each limit is, by its name: the section ``Attributes`` of the class."""
    _, _, section = (inspect.getdoc(ServeSettings) or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8,}.+)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
