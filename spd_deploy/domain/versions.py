"""Which versions of the packages that shape a result are installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGE = "spd-deploy"


@cache  # a session asks for several each time that one is opened
def version_of(package: str) -> str | None:
    """The installed version of a distribution, None where it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions_of(*packages: str) -> dict[str, str]:
    """The installed versions of those of ``packages`` that are installed, ours first."""
    found = {name: version_of(name) for name in (PACKAGE, *packages)}
    return {name: number for name, number in found.items() if number is not None}
