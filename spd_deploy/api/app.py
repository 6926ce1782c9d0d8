"""``spd.create_app``: the server as an ASGI app, for uvicorn, Starlette or a test client."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from serve.settings import ServeSettings
from spd_deploy.api.values import (
    DEVICE,
    LONG_TEXTS,
    MAX_WINDOWS,
    RUNTIME,
    THREADS,
    WINDOW_POOLING,
    WINDOW_STRIDE,
    Number,
    OneOf,
    WholeNumber,
    read_flag,
    read_model,
    read_path,
    read_text,
)
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

if TYPE_CHECKING:
    from fastapi import FastAPI

_DEFAULTS = ServeSettings()
_ANONYMOUS = OneOf(("none", "probes", "metrics"))
_COUNT, _TIMEOUT = WholeNumber(1), Number(0.001, 86400)


def create_app(
    artefact: str
    | PathLike[str]
    | Sequence[str | PathLike[str]]
    | Mapping[str, str | PathLike[str]] = (),
    *,
    model_repository: str | PathLike[str] | None = None,
    watch: bool = False,
    shadow: str | Sequence[str] = (),
    runtime: str = "auto",
    device: Literal["cpu", "cuda"] | None = None,
    threads: int | None = None,
    max_body_bytes: int = _DEFAULTS.max_body_bytes,
    max_json_nodes: int = _DEFAULTS.max_json_nodes,
    max_json_values: int = _DEFAULTS.max_json_values,
    max_inputs: int = _DEFAULTS.max_inputs,
    max_batch_tokens: int = _DEFAULTS.max_batch_tokens,
    max_batch_rows: int = _DEFAULTS.max_batch_rows,
    max_queue: int = _DEFAULTS.max_queue_items,
    max_queue_tokens: int = _DEFAULTS.max_queue_tokens,
    max_batch_time: float = _DEFAULTS.max_batch_s,
    max_queue_chars: int = _DEFAULTS.max_queue_chars,
    long_texts: Literal["cut", "windows"] | None = _DEFAULTS.long_texts,
    window_stride: int | None = _DEFAULTS.window_stride,
    window_pooling: Literal["mean", "max"] | None = _DEFAULTS.window_pooling,
    max_windows: int | None = _DEFAULTS.max_windows,
    max_chars_per_token: int = _DEFAULTS.max_chars_per_token,
    tokenizer_threads: int = _DEFAULTS.tokenizer_threads,
    warm_up_timeout: float = _DEFAULTS.warm_up_timeout_s,
    stall_timeout: float = _DEFAULTS.stall_timeout_s,
    model_control: bool = _DEFAULTS.model_control,
    api_keys: str | PathLike[str] | None = None,
    anonymous_access: Literal["none", "probes", "metrics"] = "probes",
    cors_origins: Sequence[str] = (),
    root_path: str = "",
    forwarded_allow_ips: str = "",
    allowed_hosts: Sequence[str] = (),
) -> "FastAPI":
    """The app that ``spd serve`` runs, for one artefact or several.

    The models are opened in a thread when the app starts. Until all are verified, self-tested and
    warm ``/readyz`` answers 503. If one does not open, the error is logged and ``/readyz`` stays at
    503; ``spd serve`` would end its process instead.

    Args:
        artefact: the folder of an artefact; or of a checkpoint, which runs in PyTorch. Several as
            a list of folders or of ``NAME=FOLDER``, or as a mapping of names to folders.
        model_repository: a folder of models as ``NAME/VERSION/artefact``, in the place of
            ``artefact``.
        watch: replace a model when its files have changed, and serve models that are added to the
            repository.
        shadow: ``NAME=OTHER@SHARE``, or several: model OTHER runs a share of NAME's requests too.
        runtime: as for ``load``.
        device: as for ``load``.
        threads: as for ``load``.
        max_body_bytes: the longest request body.
        max_json_nodes: keys, lists and objects of a body.
        max_json_values: values of a body.
        max_inputs: texts or pairs in one request.
        max_batch_tokens: tokens that run at once, padding included.
        max_batch_rows: rows that run at once.
        max_queue: texts that may wait or be answered before new ones get status 429.
        max_queue_tokens: the same in tokens, without padding.
        max_batch_time: seconds that a batch may take by the model's pace.
        max_queue_chars: characters that may wait to be tokenised.
        long_texts: ``windows`` reads texts that are longer than the model reads in windows, whose
            logits are pooled, where a request does not say otherwise; ``cut`` leaves out the rest.
            By default as the model was trained, and so are the three below.
        window_stride: tokens that a window shares with the one before; else a quarter of the
            model's longest input.
        window_pooling: ``mean`` or ``max`` of the logits; else ``mean``.
        max_windows: windows of a text, else 16; what is behind them is cut off.
        max_chars_per_token: times the model's longest input, the characters of a text that are
            tokenised.
        tokenizer_threads: requests with long texts that are tokenised at the same time.
        warm_up_timeout: seconds that a model on a GPU may be warmed up before it is ready.
        stall_timeout: seconds after which a batch counts as hung.
        model_control: clients may unload models and load them again.
        api_keys: file of API keys, which requests must have then.
        anonymous_access: what needs no key: nothing, probes, or probes and metrics.
        cors_origins: origins whose web pages may call the app from a browser.
        root_path: the path under which a proxy offers the app, such as ``/models/sst2``.
        forwarded_allow_ips: addresses of proxies whose X-Forwarded headers are believed.
        allowed_hosts: host names under which the app answers; by default all.

    Raises:
        BadCheckpoint: there is no model in the folder.
        BadSetting: a value that is not allowed.
    """
    from serve.access import Access, AnonymousAccess
    from serve.allowed_hosts import allowed_hosts_from
    from serve.api_keys import KeyFile
    from serve.app import create_app as app_of
    from serve.forwarding import ProxySettings, trusted_from
    from serve.model_plan import RuntimeSettings, models_from
    from serve.shadow import shadow_from

    choice = RUNTIME_CHOICES[RUNTIME.read("runtime", runtime)]
    if device is not None:
        DEVICE.read("device", device)
    if threads is not None:
        threads = THREADS.read("threads", threads)
    settings = ServeSettings(
        max_body_bytes=_COUNT.read("max_body_bytes", max_body_bytes),
        max_json_nodes=_COUNT.read("max_json_nodes", max_json_nodes),
        max_json_values=_COUNT.read("max_json_values", max_json_values),
        max_inputs=_COUNT.read("max_inputs", max_inputs),
        max_batch_tokens=_COUNT.read("max_batch_tokens", max_batch_tokens),
        max_batch_rows=_COUNT.read("max_batch_rows", max_batch_rows),
        max_queue_items=_COUNT.read("max_queue", max_queue),
        max_queue_tokens=_COUNT.read("max_queue_tokens", max_queue_tokens),
        max_batch_s=_TIMEOUT.read("max_batch_time", max_batch_time),
        max_queue_chars=_COUNT.read("max_queue_chars", max_queue_chars),
        long_texts=long_texts and LONG_TEXTS.read("long_texts", long_texts),  # type: ignore[arg-type]
        window_stride=None
        if window_stride is None
        else WINDOW_STRIDE.read("window_stride", window_stride),
        window_pooling=window_pooling  # type: ignore[arg-type]
        and WINDOW_POOLING.read("window_pooling", window_pooling),
        max_windows=None if max_windows is None else MAX_WINDOWS.read("max_windows", max_windows),
        max_chars_per_token=_COUNT.read("max_chars_per_token", max_chars_per_token),
        tokenizer_threads=_COUNT.read("tokenizer_threads", tokenizer_threads),
        warm_up_timeout_s=_TIMEOUT.read("warm_up_timeout", warm_up_timeout),
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
    shadows = [shadow_from(one) for one in _texts("shadow", shadow)]
    plan = models_from(
        _named("artefact", artefact),
        None if model_repository is None else read_path("model_repository", model_repository),
        shadows,
        RuntimeSettings(choice=choice, device=device, threads=threads),
        settings,
    )
    return app_of(
        plan.sources,
        settings,
        repository=plan.repository,
        shadows=shadows,
        watch=read_flag("watch", watch),
        forwarding=forwarding,
        hosts=allowed_hosts_from(allowed_hosts, host="localhost", is_loopback=False),
        access=access,
        cors_origins=tuple(cors_origins),
    )


def _named(parameter: str, value: object) -> list[tuple[str, Path]]:
    """Each model's name and folder."""
    from serve.repository import refuse_bad_name

    if isinstance(value, Mapping):
        for name in value:
            refuse_bad_name(read_text(parameter, name))
        return [(name, read_model(parameter, folder)) for name, folder in value.items()]
    from spd_deploy.cli.options.model_options import named_paths

    spelled = [str(read_path(parameter, one)) for one in _several(value)]
    return named_paths(spelled)


def _texts(parameter: str, value: object) -> list[str]:
    """One text, or several."""
    return [read_text(parameter, one) for one in _several(value)]


def _several(value: object) -> list[object]:
    """The items of a list; a single value is a list of one."""
    if isinstance(value, str | PathLike) or not isinstance(value, Iterable):
        return [value]
    return list(value)
