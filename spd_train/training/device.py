"""Where a training runs and what it is scored on."""

from dataclasses import dataclass

from spd_train.training.distributed import Distributed
from spd_train.training.mixed_precision import MixedPrecision
from spd_train.training.scoring import Samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What a training needs to know besides its recipe.

    Attributes:
        special_ids: of the tokens that mark where texts begin and end.
        precision: of training, and of the scores along the way; what is reported is scored in fp32.
    """

    samples: Samples
    precision: MixedPrecision
    seed: int
    pad_id: int
    special_ids: frozenset[int]
    processes: Distributed
