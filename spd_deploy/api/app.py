"""``spd.create_app``: the server as an ASGI app, for uvicorn, Starlette or a test client."""

import logging
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Literal

from serve.settings import ServeSettings
from spd_deploy.api.values import (
    DEVICE,
    RUNTIME,
    THREADS,
    Number,
    OneOf,
    WholeNumber,
    read_flag,
    read_path,
)
from spd_deploy.domain.errors import SpdError
from spd_deploy.domain.folders import refuse_no_model
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

if TYPE_CHECKING:
    from fastapi import FastAPI

    from serve.open_model import ServedModel

_DEFAULTS = ServeSettings()
_ANONYMOUS = OneOf(("none", "probes", "metrics"))
_COUNT, _TIMEOUT = WholeNumber(1), Number(0.001, 86400)
_log = logging.getLogger(__name__)


def create_app(
    artefact: str | PathLike[str],
    *,
    runtime: str = "auto",
    device: Literal["cpu", "cuda"] | None = None,
    threads: int | None = None,
    max_body_bytes: int = _DEFAULTS.max_body_bytes,
    max_inputs: int = _DEFAULTS.max_inputs,
    max_batch_tokens: int = _DEFAULTS.max_batch_tokens,
    max_batch_rows: int = _DEFAULTS.max_batch_rows,
    max_queue: int = _DEFAULTS.max_queue_items,
    max_queue_tokens: int = _DEFAULTS.max_queue_tokens,
    max_chars_per_token: int = _DEFAULTS.max_chars_per_token,
    tokenizer_threads: int = _DEFAULTS.tokenizer_threads,
    stall_timeout: float = _DEFAULTS.stall_timeout_s,
    model_control: bool = _DEFAULTS.model_control,
    api_keys: str | PathLike[str] | None = None,
    anonymous_access: Literal["none", "probes", "metrics"] = "probes",
    cors_origins: Sequence[str] = (),
    root_path: str = "",
    forwarded_allow_ips: str = "",
) -> "FastAPI":
    """The app that ``spd serve`` runs, for one artefact.

    The model is opened in a thread when the app starts. Until it is verified, self-tested and warm
    ``/readyz`` answers 503. If it does not open, the error is logged and ``/readyz`` stays at 503;
    ``spd serve`` would end its process instead.

    Args:
        artefact: the folder of an artefact; or of a checkpoint, which runs in PyTorch.
        runtime: as for ``load``.
        device: as for ``load``.
        threads: as for ``load``.
        max_body_bytes: the longest request body.
        max_inputs: texts or pairs in one request.
        max_batch_tokens: tokens that run at once, padding included.
        max_batch_rows: rows that run at once.
        max_queue: texts that may wait or be answered before new ones get status 429.
        max_queue_tokens: the same in tokens, without padding.
        max_chars_per_token: times the model's longest input, the characters of a text that are
            tokenised.
        tokenizer_threads: requests with long texts that are tokenised at the same time.
        stall_timeout: seconds after which a batch counts as hung.
        model_control: clients may unload the model and load it again.
        api_keys: file of API keys, which requests must have then.
        anonymous_access: what needs no key: nothing, probes, or probes and metrics.
        cors_origins: origins whose web pages may call the app from a browser.
        root_path: the path under which a proxy offers the app, such as ``/models/sst2``.
        forwarded_allow_ips: addresses of proxies whose X-Forwarded headers are believed.

    Raises:
        BadCheckpoint: there is no model in the folder.
        BadSetting: a value that is not allowed.
    """
    from serve.access import Access, AnonymousAccess
    from serve.api_keys import KeyFile
    from serve.app import create_app as app_of
    from serve.forwarding import ProxySettings, trusted_from
    from serve.open_model import open_served

    folder = read_path("artefact", artefact)
    choice = RUNTIME_CHOICES[RUNTIME.read("runtime", runtime)]
    if device is not None:
        DEVICE.read("device", device)
    if threads is not None:
        threads = THREADS.read("threads", threads)
    settings = ServeSettings(
        max_body_bytes=_COUNT.read("max_body_bytes", max_body_bytes),
        max_inputs=_COUNT.read("max_inputs", max_inputs),
        max_batch_tokens=_COUNT.read("max_batch_tokens", max_batch_tokens),
        max_batch_rows=_COUNT.read("max_batch_rows", max_batch_rows),
        max_queue_items=_COUNT.read("max_queue", max_queue),
        max_queue_tokens=_COUNT.read("max_queue_tokens", max_queue_tokens),
        max_chars_per_token=_COUNT.read("max_chars_per_token", max_chars_per_token),
        tokenizer_threads=_COUNT.read("tokenizer_threads", tokenizer_threads),
        stall_timeout_s=_TIMEOUT.read("stall_timeout", stall_timeout),
        model_control=read_flag("model_control", model_control),
    )
    forwarding = ProxySettings(
        root_path=root_path.rstrip("/"), trusted=trusted_from(forwarded_allow_ips)
    )
    access = Access(
        keys=None if api_keys is None else KeyFile(read_path("api_keys", api_keys)),
        anonymous=AnonymousAccess(_ANONYMOUS.read("anonymous_access", anonymous_access)),
    )
    refuse_no_model(folder, wanted="either")

    def opened() -> "ServedModel":
        """The model; an error is logged, since no process ends with it here."""
        try:
            return open_served(folder, runtime_choice=choice, device=device, threads=threads)
        except SpdError as err:
            _log.error("the model did not open: %s", err)
            raise

    return app_of(
        opened, settings, forwarding=forwarding, access=access, cors_origins=tuple(cors_origins)
    )
