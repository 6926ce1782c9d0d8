"""What the server allows: every limit, in one value that refuses nonsense at birth."""

from dataclasses import dataclass, fields

from spd_deploy.domain.errors import BadSetting


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """The server's limits.

    Attributes:
        max_body_bytes: a longer request body is refused before it is read to its end.
        max_inputs: texts or pairs in one request.
        max_batch_tokens: rows times the longest row, padding included, of what runs at once.
        max_batch_rows: rows of what runs at once.
        max_queue_items: texts or pairs that are being answered or wait for it.
        max_queue_tokens: the same in tokens, without padding.
        max_chars_per_token: of a text with more characters than this times the model's limit,
            only the beginning is tokenised; it is refused where cutting was declined.
        tokenizer_threads: how many requests are tokenised at once.
        stall_timeout_s: a batch that runs longer, and ten times longer than its size promises, is
            given up, and the server says that it is not alive.
        drain_timeout_s: how long requests may take to finish after SIGTERM.
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

    def __post_init__(self) -> None:
        """Refuse a limit that would let nothing through."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise BadSetting(
                    f"{field.name} must be positive", got=value, fix="leave it out for the default"
                )
