"""The parts that every training needs besides its own recipe."""

from dataclasses import dataclass

from spd_train.training.distributed import Distributed
from spd_train.training.mixed_precision import MixedPrecision
from spd_train.training.scoring import Samples


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainContext:
    """Devices, precision, seed and tokenizer of a run, and the rows that its curves are scored on.

    Attributes:
        samples: rows that are scored during training.
        precision: number format of the training passes and of the scores during training. Final
            scores are computed in fp32.
        seed: seed of batches, dropout and grafting.
        pad_id: id of the padding token.
        special_ids: ids of the tokens that mark the start and the end of a text.
        distributed: the processes of the run and the device of this one.
    """

    samples: Samples
    precision: MixedPrecision
    seed: int
    pad_id: int
    special_ids: frozenset[int]
    distributed: Distributed
