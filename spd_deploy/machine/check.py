"""A check of ``spd doctor``: yes, or no with a reason and a remedy."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        group: the heading under which it is printed.
        found: what was found, whatever the result.
        reason: why the result is no; None for a yes.
        remedy: how to get a yes, or how to do without; None for a yes.
    """

    group: str
    name: str
    ok: bool
    found: str | None = None
    reason: str | None = None
    remedy: str | None = None

    def __post_init__(self) -> None:
        """Refuse a "no" without reason and remedy, and a "yes" with one."""
        explained = bool(self.reason and self.remedy)
        if explained == self.ok:
            raise ValueError(f"{self.name}: a no, and only a no, has a reason and a remedy")


def yes(group: str, name: str, found: str | None = None) -> Check:
    """A check that passed."""
    return Check(group=group, name=name, ok=True, found=found)


def no(group: str, name: str, *, reason: str, remedy: str, found: str | None = None) -> Check:
    """A check that failed, with its reason and its remedy."""
    told = without_folders(reason)
    return Check(group=group, name=name, ok=False, found=found, reason=told, remedy=remedy)


def without_folders(text: str) -> str:
    """``text`` with absolute paths cut to their last part, since the output may be published."""
    return re.sub(r"(?<!\w)(?:/[\w.+-]+)+/", "", text)


def run_probe(group: str, probe: Callable[[], Sequence[Check]]) -> list[Check]:
    """The checks of ``probe``; an exception of it becomes a failed check."""
    try:
        return list(probe())
    except Exception as err:  # noqa: BLE001 - whatever a driver or package throws becomes a line
        return [
            no(
                group,
                f"the checks of {group}",
                reason=f"they raised {type(err).__name__}: {err}",
                remedy="report this as a bug, with the line above",
            )
        ]
