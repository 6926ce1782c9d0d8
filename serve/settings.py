"""The server's limits, checked when they are made."""

from dataclasses import dataclass, fields

from spd_deploy.domain.errors import BadSetting


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """The server's limits.

    Attributes:
        max_body_bytes: longest request body. A longer one gets 413 before it is read to its end.
        max_inputs: most texts or pairs in one request.
        max_batch_tokens: most tokens of a batch with padding: rows times its longest row.
        max_batch_rows: most rows of a batch.
        max_queue_items: most texts or pairs that are queued or running.
        max_queue_tokens: most tokens that are queued or running, without padding.
        max_chars_per_token: a text with more characters than this times the model's longest input
            is tokenised from its beginning only, or refused if the request sets truncate to false.
        tokenizer_threads: how many requests are tokenised at the same time.
        stall_timeout_s: time after which a running batch counts as hung, unless ten times its
            expected time is longer. Its requests then fail and /livez answers 503.
        drain_timeout_s: time that running requests have to finish after SIGTERM.
        model_control: clients may unload the model and load it again.
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
