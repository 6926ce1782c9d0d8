"""How fast the model, or the tokenizer, is: seconds for each unit of work."""

_KEPT = 0.8


class AveragePace:
    """A moving average that weighs each measurement by its size, and new ones more than old ones.

    A small batch takes longer for each of its tokens than a large one, so a mean of their paces
    would promise too little of the large ones.
    """

    def __init__(self) -> None:
        self._units = self._total_s = 0.0
        self.seconds = 0.0

    def learn(self, units: float, seconds: float) -> None:
        """Take in that so many units took so many seconds."""
        if units > 0:
            self._units = _KEPT * self._units + units
            self._total_s = _KEPT * self._total_s + seconds
            self.seconds = self._total_s / self._units
