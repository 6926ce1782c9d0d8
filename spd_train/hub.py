"""The Hugging Face hub is asked once whether it answers, before anything is fetched from it.

Its own client tries again for half a minute, file by file, and prints each try.
"""

from pathlib import Path

from spd_deploy.domain.errors import Unavailable, first_line
from spd_deploy.domain.folders import did_you_mean

_PATIENCE_S = 5.0


def require_hub_for(reference: str) -> None:
    """See to it that a model named on the hub can be had: from there, or from this machine's cache.

    Nothing is asked for a folder. Where the hub does not answer, this process keeps to the cache.

    Raises:
        Unavailable: the hub does not answer, and the model is not in the cache.
    """
    if Path(reference).is_dir() or is_path(reference) or (reason := silence_of_hub()) is None:
        return
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = isinstance(try_to_load_from_cache(reference, "config.json"), str)
    except ValueError:  # no name that the hub could have
        cached = False
    if not cached:
        raise Unavailable(
            f"{reference} is no folder here, and the Hugging Face hub does not answer",
            got=reason,
            fix=did_you_mean(Path(reference)) or "name a model's folder, or try with a network",
        )


def is_path(reference: str) -> bool:
    """Whether a reference to a model can be no name on the hub, which is NAME or OWNER/NAME."""
    return reference.startswith((".", "/", "~")) or reference.count("/") > 1


def silence_of_hub() -> str | None:
    """Why the hub gives nothing now; None where it answers, with whatever it does.

    After a silence its client does not ask again in this process.
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
