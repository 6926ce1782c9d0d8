"""How the CPU threads of the runtime are shared by several models."""

from collections.abc import Collection, Sequence


def thread_shares(budget: int, names: Sequence[str], shadows: Collection[str] = ()) -> list[int]:
    """Threads of each model, in order; their sum is the budget, or a thread each if that is more.

    A runtime keeps its threads, and those of a busy model would wait for each other if they shared
    cores with those of another. So every model gets its own: one for a model that only shadows
    another, and equal shares of the rest for the others, the first ones one more where it does not
    divide.
    """
    served = [name for name in names if name not in shadows]
    rest = max(len(served), budget - (len(names) - len(served)))
    each, more = divmod(rest, max(1, len(served)))
    place = {name: i for i, name in enumerate(served)}
    return [1 if name in shadows else each + (place[name] < more) for name in names]
