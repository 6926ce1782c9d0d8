"""Refuses ids that are out of range of a model's embedding tables, before a GPU looks them up.

A TensorRT engine reads beyond the end of a table without an error. PyTorch's kernel raises a device
assert, after which the process can run nothing more on that GPU.
"""

from dataclasses import dataclass

from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.text import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class IdBounds:
    """The rows of the embedding tables of token ids and token types.

    Attributes:
        token_ids: rows of the word embeddings.
        token_types: rows of the token type embeddings. With 0 or 1 rows nothing is looked up, and
            any token type is accepted.
    """

    token_ids: int
    token_types: int

    def refuse_out_of_range(self, batch: Batch) -> None:
        """Refuse a batch with an id that has no row.

        Raises:
            EngineFailed: a token id or a token type is out of range.
        """
        lookups = [("input_ids", batch.ids_BS, self.token_ids)]
        if self.token_types > 1:
            lookups.append(("token_type_ids", batch.types_BS, self.token_types))
        for name, values_BS, rows in lookups:
            if not values_BS.size:
                continue
            low, high = int(values_BS.min()), int(values_BS.max())
            if low < 0 or high >= rows:
                raise EngineFailed(
                    f"the model takes {name} of 0 to {rows - 1}",
                    got=f"{low} to {high}",
                    fix="tokenise the text with the model's own tokenizer",
                )
