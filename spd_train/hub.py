"""Check once whether the Hugging Face hub answers, before anything is fetched from it.

Its own client retries for half a minute for each file, and prints each retry.
"""

from functools import cache
from pathlib import Path

from spd_deploy.domain.errors import Unavailable, first_line
from spd_deploy.domain.folders import did_you_mean

_PATIENCE_S = 5.0


def require_hub_for(reference: str) -> None:
    """Check that a model named on the hub can be fetched, or is in this machine's cache.

    A folder needs no check. If the hub does not answer, this process uses the cache alone.

    Raises:
        Unavailable: the hub does not answer, and the model is not in the cache.
    """
    if not (Path(reference).is_dir() or is_path(reference)):
        _require_answer(reference)


@cache  # an error is not kept
def _require_answer(reference: str) -> None:
    """Ask the hub once for each name: the model is read several times in a run."""
    if (reason := silence_of_hub()) is None:
        return
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = isinstance(try_to_load_from_cache(reference, "config.json"), str)
    except ValueError:  # not a valid hub name
        cached = False
    if not cached:
        raise Unavailable(
            f"{reference} is not a folder here, and the Hugging Face hub does not answer",
            got=reason,
            fix=did_you_mean(Path(reference)) or "name a model's folder, or try with a network",
        )


def is_path(reference: str) -> bool:
    """Whether a reference to a model cannot be a hub name, which is NAME or OWNER/NAME."""
    return reference.startswith((".", "/", "~")) or reference.count("/") > 1


def silence_of_hub() -> str | None:
    """Why the hub does not answer; None if it answers.

    After a failure its client makes no further request in this process.
    """
    from huggingface_hub import constants, get_session, is_offline_mode

    if is_offline_mode():
        return "offline mode: HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception as err:  # noqa: BLE001 - its transport is another library in each version
        constants.HF_HUB_OFFLINE = True
        return first_line(err)
    return None
