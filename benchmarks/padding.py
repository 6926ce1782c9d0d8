"""What batches by length save: an epoch of ours against one in which every text has 128 tokens.

The released code of the paper pads every text to a fixed length; here rows of like length share a
batch that is padded to its longest. The same rows are taken in turns both ways, by one model.

    python -m benchmarks.padding --model MINILM_FOLDER --data GLUE/MRPC --task mrpc
"""

import statistics
from dataclasses import replace

from torch import nn

from benchmarks.steps import (
    MAX_TOKENS,
    distilled_step,
    network_of,
    parser_of,
    seconds_in_turns,
    setting_of,
)
from spd_deploy.cli.output.console import show_table
from spd_train.data.batching import TensorBatch
from spd_train.recipes import spd

OURS, FIXED = "by length", f"padded to {MAX_TOKENS} tokens"
_UNCOUNTED = 1


def main() -> None:
    """Time steps on a sample of an epoch's batches, and print what the epoch takes."""
    options = parser_of(__doc__, steps=30).parse_args()
    setting = setting_of(options)
    losses = spd().losses
    step = distilled_step(setting, network_of(setting, losses), losses)
    batches = setting.batches(_UNCOUNTED + options.steps)
    arms = {
        OURS: step,
        FIXED: lambda batch: step(widened(batch, MAX_TOKENS, pad_id=setting.pad_id)),
    }
    seconds_in_turns(arms, batches[:_UNCOUNTED])
    seconds = seconds_in_turns(arms, batches[_UNCOUNTED:])
    real = statistics.fmean(batch.real_share for batch in batches[_UNCOUNTED:])
    # An epoch is a sum over batches of many lengths, so its time is given by their mean.
    epoch = {n: statistics.fmean(s) * setting.steps_per_epoch for n, s in seconds.items()}
    show_table(
        f"{options.task}, {len(seconds[OURS])} of {setting.steps_per_epoch} batches, taking turns; "
        f"by length {real:.0%} of the tokens are real",
        ["batches", "median step", "epoch", "epoch, to ours"],
        [
            [
                name,
                f"{statistics.median(seconds[name]) * 1e3:.0f} ms",
                f"{epoch[name]:.0f} s",
                f"{epoch[name] / epoch[OURS]:.2f}",
            ]
            for name in arms
        ],
    )


def widened(batch: TensorBatch, tokens: int, *, pad_id: int) -> TensorBatch:
    """The same rows padded to ``tokens``."""
    room = (0, tokens - batch.ids_BS.shape[1])
    return replace(
        batch,
        ids_BS=nn.functional.pad(batch.ids_BS, room, value=pad_id),
        mask_BS=nn.functional.pad(batch.mask_BS, room),
        types_BS=nn.functional.pad(batch.types_BS, room),
    )


if __name__ == "__main__":
    main()
