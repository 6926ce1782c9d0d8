"""The facts of a running server, and whether it serves the model that is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spd_deploy.benchmark.arms import ArmSource
from spd_deploy.benchmark.http.connection import document_from
from spd_deploy.benchmark.http.wire import address_of
from spd_deploy.domain.errors import BadSetting, Unavailable

_IN_FLIGHT = 8
_MOST_TEXTS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """The model and the limits of a server, from its ``/info``.

    Attributes:
        model: format, sparsity, hash of the checkpoint, runtime and precision: what says which
            artefact it serves, and in what.
        device, threads: of its runtime.
        max_inputs: texts in one request at most.
        max_queue_items, max_queue_tokens: texts, and their tokens, that it takes at a time.
    """

    name: str
    model: tuple[object, ...]
    device: str
    threads: int | None
    max_inputs: int
    max_queue_items: int
    max_queue_tokens: int

    @property
    def texts_per_request(self) -> int:
        """Texts in a request of the offline scenario."""
        return min(_MOST_TEXTS, self.max_inputs)

    def in_flight(self, tokens: int) -> int:
        """Requests of so many tokens that are in flight in the offline scenario.

        They keep the server busy and do not fill its queue.
        """
        room = (self.max_queue_items // self.texts_per_request, self.max_queue_tokens // tokens)
        return max(1, min(_IN_FLIGHT, *room))


def facts_at(url: str, *, api_key: str | None = None) -> ServerFacts:
    """The facts of the server at a URL.

    Raises:
        BadSetting: it is no URL, or the server wants an API key.
        Unavailable: nobody answers there, or not as ``spd serve`` does.
    """
    address = address_of(url)
    info = document_from(address, "/info", api_key=api_key)
    try:
        return _facts_from(info)
    except (KeyError, TypeError) as err:
        raise Unavailable(
            f"{address}/info does not answer as spd serve does",
            got=f"no {err}",
            fix="give the URL of a running spd serve of this version",
        ) from err


def match_servers(
    sources: Sequence[ArmSource], urls: Sequence[str], *, api_key: str | None = None
) -> dict[str, str]:
    """The URL of each arm's server, by what the servers say that they serve; none without URLs.

    Raises:
        BadSetting: a server serves another model than any arm, or an arm has no server.
    """
    facts = {url: facts_at(url, api_key=api_key) for url in urls}
    if not facts:
        return {}
    found: dict[str, str] = {}
    for url, served in facts.items():
        same = [one.name for one in sources if _model_of(one) == served.model]
        if not same:
            raise BadSetting(
                f"{url} serves a model that is not among the arms",
                got=_spelled(served.model),
                fix="name its artefact, which is one of: "
                + "; ".join(f"{one.name} ({_spelled(_model_of(one))})" for one in sources),
            )
        if (name := next((name for name in same if name not in found), None)) is None:
            raise BadSetting(
                f"two servers serve {same[0]}",
                got=f"{found[same[0]]} and {url}",
                fix="give one URL for each artefact and the baseline",
            )
        found[name] = url
    if missing := [one.name for one in sources if one.name not in found]:
        raise BadSetting(
            f"no --url is a server of {missing[0]}",
            got=", ".join(urls),
            fix="give the URL of a server for each artefact and the baseline, "
            "or none, so that spd starts them",
        )
    return found


def refuse_other_effort(facts: ServerFacts, url: str, *, device: str, threads: int | None) -> None:
    """Refuse a server that runs on another device or on more threads than the bare engine.

    Raises:
        BadSetting: it does, so that what HTTP adds would be mixed with what threads gain.
    """
    if facts.device != device:
        raise BadSetting(
            f"{url} runs on {facts.device}", got=f"--device {device}", fix="measure where it runs"
        )
    if threads is not None and facts.threads != threads:
        raise BadSetting(
            f"{url} runs on {facts.threads} threads, and the bare engine would run on {threads}",
            got=f"--threads {threads}",
            fix=f"add --threads {facts.threads}",
        )


def _facts_from(info: Mapping[str, Any]) -> ServerFacts:
    """The facts in the JSON of ``/info``; a KeyError or TypeError where it is another's."""
    runtime, limits = info["runtime"], info["limits"]
    return ServerFacts(
        name=str(info["model"]),
        model=(
            info["format"],
            info["sparsity"],
            info["checkpoint_sha256"],
            runtime["runtime"],
            runtime["precision"],
        ),
        device=runtime["device"],
        threads=runtime["threads"],
        max_inputs=int(limits["max_inputs"]),
        max_queue_items=int(limits["max_queue_items"]),
        max_queue_tokens=int(limits["max_queue_tokens"]),
    )


def _model_of(source: ArmSource) -> tuple[object, ...]:
    """The same of an arm that is to be measured."""
    manifest, choice = source.artefact.manifest, source.runtime_choice
    chosen = choice if choice.runtime is not None else manifest.runtime_choice
    return (
        manifest.format,
        manifest.sparsity,
        manifest.checkpoint_sha256,
        source.runtime,
        chosen.precision or manifest.precision,
    )


def _spelled(model: tuple[object, ...]) -> str:
    """A model's facts in words."""
    format_, sparsity, sha256, runtime, precision = model
    kind = "dense" if sparsity is None else f"sparsity {sparsity}"
    return f"{format_}, {kind}, checkpoint {str(sha256)[:12]}, {runtime} in {precision}"
