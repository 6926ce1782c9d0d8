"""One thing this machine can or cannot do; a "no" always says why and what to do about it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The answer to one question of ``spd doctor``.

    Attributes:
        group: the heading it stands under.
        found: what is there, whether or not that is enough.
        reason: why the answer is no; None for a yes.
        remedy: what would turn it into a yes, or how to do without; None for a yes.
    """

    group: str
    name: str
    ok: bool
    found: str | None = None
    reason: str | None = None
    remedy: str | None = None

    def __post_init__(self) -> None:
        """A "no" that explains nothing is the thing this project exists against."""
        explained = bool(self.reason and self.remedy)
        if explained == self.ok:
            raise ValueError(f"{self.name}: a no, and only a no, has a reason and a remedy")


def yes(group: str, name: str, found: str | None = None) -> Check:
    """It works."""
    return Check(group=group, name=name, ok=True, found=found)


def no(group: str, name: str, *, reason: str, remedy: str, found: str | None = None) -> Check:
    """It does not, because of ``reason``; ``remedy`` says what to do."""
    told = without_folders(reason)
    return Check(group=group, name=name, ok=False, found=found, reason=told, remedy=remedy)


def without_folders(text: str) -> str:
    """``text`` with absolute paths cut to their last part: what doctor prints may be published."""
    return re.sub(r"(?<!\w)(?:/[\w.+-]+)+/", "", text)


def run_probe(group: str, probe: Callable[[], Sequence[Check]]) -> list[Check]:
    """What ``probe`` finds; where it fails, that failure as a "no", so that the rest is shown."""
    try:
        return list(probe())
    except Exception as err:  # noqa: BLE001 - whatever a driver or package throws becomes a line
        return [
            no(
                group,
                f"the checks of {group}",
                reason=f"they failed with {type(err).__name__}: {err}",
                remedy="please report this, with the line above",
            )
        ]
