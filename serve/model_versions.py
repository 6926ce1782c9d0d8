"""Which version of a model answers next: pure decisions, and what the log tells of them."""

import asyncio
from collections.abc import Sequence

from serve.hosted_model import HostedModel
from serve.model_source import Fingerprint, ModelVersion
from spd_deploy.domain.errors import BadArtefact, Unavailable


async def versions_of(model: HostedModel) -> Sequence[ModelVersion]:
    """The versions that there are now, highest first.

    Raises:
        Unavailable: the folder cannot be read.
    """
    try:
        return await asyncio.to_thread(model.source.candidates)
    except (OSError, RuntimeError) as err:  # such as a circle of links
        raise Unavailable(
            f"the folder of model {model.name} cannot be read", got=err, fix="check the folder"
        ) from err


def refuse_incomplete(candidate: ModelVersion) -> None:
    """Refuse a version that lacks a file, before anything of it is opened.

    Raises:
        BadArtefact: with the file that is missing.
    """
    if candidate.lack:
        raise BadArtefact(
            f"version {candidate.version} is not complete",
            got=candidate.lack,
            fix="load it again when it is",
        )


def worth_trying(found: Sequence[ModelVersion], serving: str | None) -> Sequence[ModelVersion]:
    """The candidates that may take the place of the version that answers, highest first.

    No version goes back to a lower one while its own folder is still there.
    """
    numbers = [candidate.version for candidate in found]
    return found[: numbers.index(serving) + 1] if serving in numbers else found


def was_refused(model: HostedModel, fingerprint: Fingerprint | None) -> bool:
    """Whether these very files were refused before."""
    return any(one.fingerprint == fingerprint for one in model.refused.values())


def forget_gone(model: HostedModel, found: Sequence[ModelVersion]) -> None:
    """Forget the refused versions that are not on the disk any more."""
    there = {candidate.version for candidate in found}
    for version in [version for version in model.refused if version not in there]:
        del model.refused[version]


def told_of_swap(before: str, now: str) -> str:
    """The line about a version that took the place of another."""
    if now == before:
        return f"the new files of version {now} answer now"
    return f"version {now} answers now, in the place of version {before}"


def told_of_refusal(model: HostedModel, version: str) -> str:
    """The line about a version that was refused: which one answers in its place."""
    if model.opened is None:
        return f"version {version} is refused, and the model does not answer"
    if version == model.version:
        return f"the new files of version {version} are refused, and the old ones answer"
    return f"version {version} is refused, and version {model.version} answers"
