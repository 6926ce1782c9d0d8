"""The built-in data is fixed, balanced, and not to be had by counting words."""

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from spd_deploy.domain.tasks import BUILT_IN, TASKS
from spd_train.data.examples import Example
from spd_train.data.grammar import generate
from spd_train.data.read_split import read_split

every_task = pytest.mark.parametrize("task", BUILT_IN)


@every_task
def test_the_data_is_the_same_at_every_call(task: str) -> None:
    """Two calls give equal rows."""
    assert generate(task, "dev") == generate(task, "dev")


@every_task
def test_no_row_of_dev_is_in_train(task: str) -> None:
    """The splits share nothing."""
    train = {(e.text, e.pair) for e in generate(task, "train")}
    dev = {(e.text, e.pair) for e in generate(task, "dev")}

    assert not train & dev
    assert len(train) == 16_000 and len(dev) == 1_000


@every_task
def test_labels_are_balanced(task: str) -> None:
    """Neither label holds more than 53 % of the rows."""
    labels = [e.label == 1 for e in generate(task, "dev") if e.label is not None]

    assert 0.47 < sum(labels) / len(labels) < 0.53


@every_task
def test_a_bag_of_words_does_not_solve_it(task: str) -> None:
    """A linear classifier over word counts gets less than two thirds of dev right."""

    def joined(examples: list[Example]) -> list[str]:
        return [f"{e.text} {e.pair or ''}" for e in examples]

    train, dev = generate(task, "train"), generate(task, "dev")
    counter = CountVectorizer()
    model = LogisticRegression(max_iter=300)
    model.fit(counter.fit_transform(joined(train)), [e.label for e in train])

    accuracy = model.score(counter.transform(joined(dev)), [e.label for e in dev])

    assert accuracy < 2 / 3


def test_a_built_in_task_needs_no_folder() -> None:
    """Read like any task, the built-in ones come without files."""
    found = read_split(TASKS["agreement"], None, "dev")["dev"]

    assert found == generate("agreement", "dev")
    assert all(e.pair for e in found)
