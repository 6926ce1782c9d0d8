"""ONNX Runtime's profile as node times: what its JSON means, and nothing of what it is for.

The file is a list of events with start and duration in whole microseconds: one of category
``Session`` named ``model_run`` for each run, and in it one of category ``Node`` for each operator,
named after the node with ``_kernel_time`` behind. What two versions of the runtime may write
differently is refused rather than guessed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spd_deploy.benchmark.layers.layer_records import NodeTime
from spd_deploy.domain.errors import Unavailable

_SUFFIX = "_kernel_time"
_MICRO = 1e-6


def read_events(file: Path) -> Sequence[Mapping[str, Any]]:
    """The events of a profile.

    Raises:
        Unavailable: the runtime wrote no list of events.
    """
    import json

    try:
        events = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise _not_understood(err) from err
    if not isinstance(events, list):
        raise _not_understood(type(events).__name__)
    return events


def nodes_of(events: Sequence[Mapping[str, Any]], *, runs: int) -> tuple[NodeTime, ...]:
    """The time of each operator in the last ``runs`` runs, as one round.

    Operators are distinguished by their place in the graph, since the runtime inserts some without
    a name.

    Raises:
        Unavailable: there are not so many runs, or an operator is not timed once in each.
    """
    try:
        starts = sorted(e["ts"] for e in events if e["name"] == "model_run")
        if not 0 < runs <= len(starts):
            raise _not_understood(f"{len(starts)} runs of {runs}")
        found: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for event in events:
            timed = event["cat"] == "Node" and event["name"].endswith(_SUFFIX)
            if timed and event["ts"] >= starts[-runs]:
                facts = event["args"]
                key = (event["name"].removesuffix(_SUFFIX), facts["op_name"], facts["node_index"])
                found[key].append(event["dur"])
    except (KeyError, TypeError, AttributeError) as err:
        raise _not_understood(repr(err)) from err
    if odd := next((name for (name, *_), us in found.items() if len(us) != runs), None):
        raise _not_understood(f"{odd} not once in each run")
    return tuple(
        NodeTime(name=name, op=op, seconds=(_MICRO * midmean(us),))
        for (name, op, _), us in found.items()
    )


def midmean(values: Sequence[float]) -> float:
    """The mean of the middle half.

    As deaf to stray runs as the median, and, unlike it, finer than the whole microseconds that it
    is made of.
    """
    cut = len(values) // 4
    return float(np.mean(sorted(values)[cut : len(values) - cut]))


def _not_understood(got: object) -> Unavailable:
    """The error for a profile of another kind."""
    return Unavailable(
        "the profile that ONNX Runtime wrote is of a kind this version does not know",
        got=got,
        fix="use the version of ONNX Runtime that constraints.txt names",
    )
