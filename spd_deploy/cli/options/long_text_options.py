"""Options for texts that are longer than the model reads."""

import click

from spd_deploy.api import values
from spd_deploy.cli.options.common import Command
from spd_deploy.domain.long_texts import MAX_WINDOWS, WindowPooling

_OPTIONS = (
    click.option(
        "--long-texts",
        type=click.Choice(values.LONG_TEXTS.words),
        help="What becomes of a text that is longer than the model reads. cut leaves out what is "
        "behind the longest input. windows reads it in windows of that length and pools their "
        "logits; of a pair, the longer text beside the whole of the shorter one.  [default: as "
        "the model was trained, or --teacher of spd train; else cut]",
    ),
    click.option(
        "--window-stride",
        type=click.IntRange(values.WINDOW_STRIDE.low, values.WINDOW_STRIDE.high),
        metavar="TOKENS",
        help="With --long-texts windows: tokens that a window shares with the one before, as the "
        "stride of Transformers' tokenizers.  [default: as the model was trained; else a quarter "
        "of the longest input]",
    ),
    click.option(
        "--window-pooling",
        type=click.Choice(values.WINDOW_POOLING.words),
        help="With --long-texts windows: what becomes of the logits of a text's windows. mean fits "
        "a label that the whole text has, max one that a part of it gives.  [default: as the "
        f"model was trained; else {WindowPooling.MEAN}]",
    ),
    click.option(
        "--max-windows",
        type=click.IntRange(values.MAX_WINDOWS.low, values.MAX_WINDOWS.high),
        help="With --long-texts windows: most windows of a text. What is behind them is cut off, "
        f"and the answer says so.  [default: as the model was trained; else {MAX_WINDOWS}]",
    ),
)


def long_text_options(command: Command) -> Command:
    """Give a command the options, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
