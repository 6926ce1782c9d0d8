"""Check once whether the Hugging Face hub answers, before anything is fetched from it.

Its own client retries for half a minute for each file, and prints each retry.
"""

import contextlib
import sys
from collections.abc import Iterator

from spd_deploy.domain.errors import first_line

_TIMEOUT_S = 5.0


def why_hub_is_unreachable() -> str | None:
    """Why the hub does not answer; None if it answers.

    After a failure its client makes no further request in this process.
    """
    from huggingface_hub import constants, get_session, is_offline_mode

    if is_offline_mode():
        return "offline mode: HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except Exception as err:  # noqa: BLE001 - its transport is another library in each version
        constants.HF_HUB_OFFLINE = True
        return first_line(err)
    return None


@contextlib.contextmanager
def bars_on_a_terminal() -> Iterator[None]:
    """Let the hub's client draw its bars on a terminal, and nothing into a log."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
