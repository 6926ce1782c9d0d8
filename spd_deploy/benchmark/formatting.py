"""How numbers are printed, the same in tables, sentences and figures."""


def milliseconds(seconds: float) -> str:
    """A time with about three figures: ``0.512``, ``12.3``, ``1204``."""
    value = 1e3 * seconds
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def megabytes(size_bytes: int) -> str:
    """A size in millions of bytes: ``0.3``, ``438``."""
    value = size_bytes / 1e6
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def percent(share: float, digits: int = 0) -> str:
    """A share, such as ``10 %``."""
    return f"{100 * share:.{digits}f} %"


def ratio(value: float) -> str:
    """A ratio with the digits that matter: two decimals below 2, one above."""
    return f"{value:.2f}" if round(value, 2) < 2 else f"{value:.1f}"
