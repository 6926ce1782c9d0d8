"""The built-in data: two small tasks of English sentences from a seeded grammar of our own.

``opinions`` asks whether a sentence is for or against what it is about. What decides is an
exclusive-or of the adjective's side, of negations, of ``more`` against ``less``, and of which half
of a contrast carries the point, so no bag of words solves it:

    The film was not boring.                                                        positive
    Although the concert was more charming than the book, the ending was hardly moving.
                                                                                    negative

``agreement`` asks whether a second sentence agrees with the first; what decides is the exclusive-or
of what each of the two is for:

    The film was not boring. | I would not recommend it.                            disagrees

Train and dev share no row. The data is synthetic: what a model scores here says that the tool
works, not how it does on your texts.
"""

from collections.abc import Callable, Iterator, Mapping
from random import Random

from spd_train.data.examples import Example

ROWS: Mapping[str, int] = {"train": 16_000, "dev": 1_000, "test": 1_000}
_ORDER = ("test", "dev", "train")  # generated in this order, so that train may change its size


def _words(text: str) -> tuple[str, ...]:
    """The words of a text, split at white space."""
    return tuple(text.split())


_THINGS = _words(
    "film book concert meal hotel show song story series speech museum garden game lecture café "
    "play album tour"
)
_PARTS = _words("plot music acting service ending staff view sound food script")
_FOR = _words(
    "charming elegant moving convincing inspired thoughtful inventive memorable graceful "
    "delightful exciting polished"
)
_AGAINST = _words(
    "boring tedious dreadful awkward careless muddled predictable forgettable disappointing "
    "annoying tiresome lifeless"
)
_NEGATIONS = ("not", "hardly", "never", "by no means")

# Shares below a half leave the adjective some influence, from which a model starts to learn. With
# shares of a half no word alone says anything, and training from scratch does not succeed.
_ALONE = 0.5
_NEGATED = 0.3
_LESS = 0.3

_INTENSITY = ("", "very ", "quite ", "truly ")

_PRAISE = (
    "I would recommend it.",
    "It was worth the time.",
    "I enjoyed it a lot.",
    "I do not regret it.",
    "Few things are better.",
)
_BLAME = (
    "I would not recommend it.",
    "It was not worth the time.",
    "I did not enjoy it a lot.",
    "I regret it.",
    "Few things are worse.",
)
_PRAISED = 0.85


def generate(task: str, split: str) -> list[Example]:
    """The rows of one split, the same at every call and in every version of spd."""
    make: Callable[[Random], Example] = {"opinions": _opinion, "agreement": _agreement}[task]
    random = Random(f"{task} 1")
    seen: set[tuple[str, str | None]] = set()
    for name in _ORDER:
        rows = list(_distinct(make, random, seen, ROWS[name]))
        if name == split:
            return rows
    raise AssertionError(f"no split is called {split}")


def _distinct(
    make: Callable[[Random], Example],
    random: Random,
    seen: set[tuple[str, str | None]],
    count: int,
) -> Iterator[Example]:
    """``count`` rows that are not in ``seen``, to which they are added."""
    while count:
        row = make(random)
        if (row.text, row.pair) not in seen:
            seen.add((row.text, row.pair))
            count -= 1
            yield row


def _opinion(random: Random) -> Example:
    """A sentence, with label 1 if its point is favourable and 0 if not."""
    thing, part = random.choice(_THINGS), random.choice(_PARTS)
    first, first_for = _clause(random, f"the {thing}")
    if random.random() < _ALONE:
        return Example(text=_sentence(first), label=int(first_for))
    second, second_for = _clause(random, f"the {part}")
    joined, point = random.choice(
        (
            (f"{first}, but {second}", second_for),
            (f"although {first}, {second}", second_for),
            (f"{first}, although {second}", first_for),
            (f"even if {second}, {first}", first_for),
        )
    )
    return Example(text=_sentence(joined), label=int(point))


def _clause(random: Random, subject: str) -> tuple[str, bool]:
    """A clause about ``subject``, and whether it is favourable."""
    favourable = random.random() < 0.5
    adjective = random.choice(_FOR if favourable else _AGAINST)
    negated = random.random() < _NEGATED
    verb = f"was {random.choice(_NEGATIONS)}" if negated else "was"
    if random.random() < 0.3:
        less = random.random() < _LESS
        other = random.choice(_THINGS)
        clause = f"{subject} {verb} {'less' if less else 'more'} {adjective} than the {other}"
        return clause, favourable ^ negated ^ less
    intensity = "" if negated else random.choice(_INTENSITY)
    return f"{subject} {verb} {intensity}{adjective}", favourable ^ negated


def _agreement(random: Random) -> Example:
    """A sentence and a judgement, with label 1 if both are for the same side."""
    opinion = _opinion(random)
    praise = random.random() < _PRAISED
    judgement = random.choice(_PRAISE if praise else _BLAME)
    return Example(text=opinion.text, pair=judgement, label=int(opinion.label == praise))


def _sentence(words: str) -> str:
    """The words with a capital letter and a full stop."""
    return f"{words[0].upper()}{words[1:]}."
