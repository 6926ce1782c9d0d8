"""Refuses ids that lie beyond a model's tables, before a GPU looks them up.

An engine reads past a table's end without an error. A kernel of PyTorch's stops at it, and with it
the process's whole work on that GPU: no later batch runs.
"""

from dataclasses import dataclass

from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.text import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class IdBounds:
    """How many rows there are for token ids and for their types.

    Attributes:
        types: one row alone is added to every token and looked up by none, as none is.
    """

    words: int
    types: int

    def refuse_beyond(self, batch: Batch) -> None:
        """Refuse a batch that asks for a row that is not there.

        Raises:
            EngineFailed: it does.
        """
        asked = [("input_ids", batch.ids_BS, self.words)]
        if self.types > 1:
            asked.append(("token_type_ids", batch.types_BS, self.types))
        for name, values_BS, rows in asked:
            if not values_BS.size:
                continue
            low, high = int(values_BS.min()), int(values_BS.max())
            if low < 0 or high >= rows:
                raise EngineFailed(
                    f"the model takes {name} of 0 to {rows - 1}",
                    got=f"{low} to {high}",
                    fix="tokenise with its own tokenizer",
                )
