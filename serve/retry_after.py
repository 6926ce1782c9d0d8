"""When a refused request should be sent again: ``Retry-After``, and its like of gRPC.

A full queue tells the time until its work is done. What passes by itself within a moment, such as a
connection that ends or a model that opens, tells :data:`SOON_S`.
"""

import math

from spd_deploy.domain.errors import Overloaded

SOON_S = 1
_LONGEST_S = 60


def retry_after_s(seconds: float) -> int:
    """Seconds to wait, as a whole number from 1 to 60."""
    return max(SOON_S, min(_LONGEST_S, math.ceil(seconds)))


def overloaded(what: str, *, free_in_s: float = SOON_S) -> Overloaded:
    """The error of a request for which there is no room, but should be after so many seconds."""
    seconds = retry_after_s(free_in_s)
    return Overloaded(what, fix=f"try again in {seconds} s", retry_after_s=seconds)
