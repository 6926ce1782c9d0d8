"""What the tests of training share: an easy task of tiny texts, a cheap recipe, rows of any length.

The recipe says everything that costs time, so that it stays cheap whatever the defaults become.
"""

from dataclasses import replace
from pathlib import Path

import torch

from spd_deploy.domain.patterns import NM, Pattern
from spd_deploy.domain.tasks import TASKS
from spd_deploy.domain.text import Tokens
from spd_train.config import (
    GraftRecipe,
    GraftUnit,
    LossRecipe,
    Recipe,
    StudentRecipe,
    TeacherRecipe,
)
from spd_train.data.batching import LabelledTokens, TensorBatch, batch_of
from spd_train.data.examples import Example
from spd_train.data.splits import Data
from spd_train.grafting import GraftedNetwork
from spd_train.model import encoder_sizes, load_classifier
from spd_train.prune_recipe import PruneRecipe
from spd_train.pruning.calibration import Calibration
from spd_train.recipes import spd, with_field
from spd_train.train_config import TrainConfig
from spd_train.training.mixed_precision import MixedPrecision
from tests.tiny import WORDS

TASK = TASKS["sst2"]
FP32 = MixedPrecision(name="fp32", reason="a test")
QUICK = Recipe(
    name="quick",
    pattern=NM(n=2, m=4),
    teacher=TeacherRecipe(epochs=2, learning_rate=1e-3),
    student=StudentRecipe(
        prune_epochs=2,
        graft_epochs=1,
        finetune_epochs=1,
        learning_rate=5e-4,
        decay="rewound",
        warmup_share=0.0,
        weight_decay=0.0,
        dropout=True,
        graft=GraftRecipe(shape="paper", start=0.8, unit="layer"),
        losses=LossRecipe(attention=1.0, hidden=1.0, logits=1.0, label=0.0),
        pruning=PruneRecipe(
            importance="magnitude",
            updates=12,
            regrow=False,
            reconstruct=False,
            permute=False,
            allocation="uniform",
            calibration_tokens=64,
        ),
    ),
    batch_size=8,
    accumulate=1,
    max_tokens=16,
    holdout=0.2,
    precision="fp32",
)


def spd_recipe() -> Recipe:
    """The built-in recipe ``spd``, as short as the quick one and calibrated on a few texts.

    What makes it dear is said again, so that these tests see it whatever the built-in becomes.
    """
    student = spd().lasting(QUICK.student.epochs)
    pruning = replace(
        student.pruning,
        importance="second-order",
        updates=3,
        regrow=True,
        reconstruct=True,
        permute=False,
        calibration_tokens=64,
    )
    return replace(QUICK, name="spd", student=replace(student, mix_pairs=0.5, pruning=pruning))


def examples(count: int) -> list[Example]:
    """Texts whose label is whether they hold the word 'good'."""
    words = WORDS.split()
    draw = torch.Generator().manual_seed(count)
    found = []
    for i in range(count):
        length = int(torch.randint(3, 9, (1,), generator=draw))
        picked = [
            words[int(torch.randint(len(words), (1,), generator=draw))] for _ in range(length)
        ]
        text = " ".join(w for w in picked if w not in ("good", "bad"))
        found.append(Example(text=f"{text} {'good' if i % 2 else 'bad'}", label=i % 2))
    return found


DATA = Data.of(examples(48), {"dev": examples(16)}, dev_name="dev", holdout=examples(12))


def config_for(model: Path, output: Path, recipe: Recipe = QUICK) -> TrainConfig:
    """A run on the easy task."""
    return TrainConfig(
        task=TASK, data=DATA, recipe=recipe, model=str(model), teacher=None, output=output
    )


def student_config(teacher: Path, output: Path, recipe: Recipe, data: Data = DATA) -> TrainConfig:
    """A run that trains the student alone."""
    config = config_for(teacher, output, recipe)
    return replace(config, model=None, teacher=str(teacher), data=data)


def with_pruning(recipe: Recipe, pattern: Pattern, **settings: object) -> Recipe:
    """The recipe with some settings of its pruning replaced."""
    recipe = replace(recipe, pattern=pattern)
    for name, value in settings.items():
        recipe = with_field(recipe, f"student.pruning.{name}", value)
    return recipe


class StopAfter:
    """Says stop when it was asked a number of times."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        """One step fewer."""
        self.left -= 1
        return self.left == 0


def rows_of(*lengths: int, classes: int = 2) -> list[LabelledTokens]:
    """Random rows of these lengths."""
    draw = torch.Generator().manual_seed(0)
    return [
        LabelledTokens(
            tokens=Tokens(
                ids=tuple(torch.randint(5, 40, (n,), generator=draw).tolist()), types=(0,) * n
            ),
            label=float(n % classes),
        )
        for n in lengths
    ]


def batch(*lengths: int, pad_id: int = 0) -> TensorBatch:
    """Random rows of these lengths as the whole batch of a step."""
    return batch_of(rows_of(*lengths), pad_id=pad_id, device="cpu")


def calibration(*lengths: int) -> Calibration:
    """Random rows of these lengths, in one batch, to calibrate on in fp32."""
    return Calibration(batches=[batch(*lengths)], autocast=lambda: FP32.autocast("cpu"))


def grafted(
    folder: Path, *, unit: GraftUnit = "layer", attention: bool = True, hidden: bool = True
) -> GraftedNetwork:
    """The classifier in ``folder`` with a student beside each part, in evaluation mode."""
    model = load_classifier(str(folder), TASK, trained=True)
    encoder = encoder_sizes(model)
    return GraftedNetwork(model, encoder, unit=unit, attention=attention, hidden=hidden).eval()


def shaken(network: GraftedNetwork) -> GraftedNetwork:
    """Students that differ from their teachers."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in network.student_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return network
