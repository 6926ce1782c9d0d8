"""A check of ``spd doctor``: passed, or failed with a reason and a remedy."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        group: the heading under which it is printed.
        found: what was found, whatever the result.
        reason: why it failed; None where it passed.
        remedy: how to make it pass, or how to do without; None where it passed.
    """

    group: str
    name: str
    ok: bool
    found: str | None = None
    reason: str | None = None
    remedy: str | None = None

    def __post_init__(self) -> None:
        """Refuse a failed check without reason and remedy, and one that passed with them."""
        explained = bool(self.reason and self.remedy)
        if explained == self.ok:
            raise ValueError(
                f"{self.name}: a failed check, and only a failed one, has a reason and a remedy"
            )


def passed(group: str, name: str, found: str | None = None) -> Check:
    """A check that passed."""
    return Check(group=group, name=name, ok=True, found=found)


def failed(group: str, name: str, *, reason: str, remedy: str, found: str | None = None) -> Check:
    """A check that failed, with its reason and its remedy."""
    shown = without_folders(reason)
    return Check(group=group, name=name, ok=False, found=found, reason=shown, remedy=remedy)


def without_folders(text: str) -> str:
    """``text`` with absolute paths cut to their last part, since the output may be published."""
    return re.sub(r"(?<!\w)(?:/[\w.+-]+)+/", "", text)


def run_probe(group: str, probe: Callable[[], Sequence[Check]]) -> list[Check]:
    """The checks of ``probe``; an exception of it becomes a failed check."""
    try:
        return list(probe())
    except Exception as err:  # noqa: BLE001 - whatever a driver or package throws becomes a line
        return [
            failed(
                group,
                f"the checks of {group}",
                reason=f"they raised {type(err).__name__}: {err}",
                remedy="report this as a bug, with the line above",
            )
        ]
