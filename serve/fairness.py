"""Fair queueing between requests, in tokens.

Each request that waits gets an equal share of the model, as if the model ran all of them at once,
and they run in the order in which they would then end (A. Demers, S. Keshav and S. Shenker,
"Analysis and Simulation of a Fair Queueing Algorithm", 1989). A short request therefore overtakes
long ones that came before it. A long one still gets its share, so that no number of short ones can
hold it back for ever, and requests of one size run in the order in which they came.
"""


class FairClock:
    """The tokens that each request would have had so far, were all of them run at once."""

    def __init__(self) -> None:
        self._share = 0.0

    def turn_of(self, tokens: int) -> float:
        """The turn of a request that comes now with so many tokens; the smallest turn is next."""
        return self._share + tokens

    def ran(self, tokens: int, requests: int) -> None:
        """Note a batch of so many tokens, run while so many requests waited or ran."""
        self._share += tokens / max(1, requests)
