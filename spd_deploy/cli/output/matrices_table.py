"""The table of matrices that ``spd inspect`` shows: a row for those that are alike."""

import re
from collections.abc import Mapping, Sequence

from spd_deploy.domain.artefact import MatrixRow
from spd_deploy.domain.shapes import mean_gain

Rows = Sequence[MatrixRow]
Row = tuple[str, ...]


def matrices_table(
    matrices: Rows, marks: Mapping[str, str], *, every: bool
) -> tuple[Row, list[Row]]:
    """Column names, and a row for all matrices of one role that are run alike for one reason.

    Args:
        matrices: in the order of the model.
        marks: the footnote of each reason.
        every: a row for each matrix instead.
    """
    timed = any(row.measured for row in matrices)
    columns = (
        *(("matrix",) if every else ("matrix", "layers")),
        *("outputs x inputs", "pattern", "density"),
        *(("measured",) if timed else ()),
        *("run as", "FLOPs kept", "why"),
    )
    groups = [(row,) for row in matrices] if every else alike(matrices)
    return columns, [_row(group, marks, timed=timed, every=every) for group in groups]


def alike(matrices: Rows) -> list[Rows]:
    """The matrices that differ in nothing but their layer and how many zeros they have."""
    found: dict[tuple[object, ...], list[MatrixRow]] = {}
    for row in matrices:
        key = (_role(row.name), row.shape, row.pattern, row.lowering, row.reason)
        found.setdefault(key, []).append(row)
    return list(found.values())


def spelled_layers(layers: Sequence[int]) -> str:
    """Numbers of layers, runs of them by their ends: ``0-5``, or ``0, 2-3``."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _row(group: Rows, marks: Mapping[str, str], *, timed: bool, every: bool) -> Row:
    """The cells of a group; numbers that differ within it are given from the least to the most."""
    first = group[0]
    layers = spelled_layers([_layer(row.name) for row in group])
    return (
        *((_short(first.name),) if every else (_role(first.name), layers)),
        f"{first.shape[0]} x {first.shape[1]}",
        first.pattern,
        _span([f"{row.density:.3f}" for row in group]),
        *((_gain(group),) if timed else ()),
        first.lowering,
        _span([f"{100 * row.flops_share:.1f}" for row in group]) + "%",
        marks[first.reason],
    )


def _gain(group: Rows) -> str:
    """The measured gains of single products, from the least to the most."""
    gains = [mean_gain(one.gain for one in row.measured) for row in group if row.measured]
    return _span([f"{gain:.1f}" for gain in gains]) + "x" if gains else "-"


def _span(numbers: Sequence[str]) -> str:
    """One number where all are spelled alike, else the least and the most."""
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if low == high else f"{low}-{high}"


def _short(name: str) -> str:
    """A matrix's name from its layer on: ``bert.encoder.layer.0.x`` is ``layer.0.x``."""
    return re.sub(r"^.*?(\w+\.\d+\.)", r"\1", name)


def _role(name: str) -> str:
    """A matrix's name within its layer: of ``bert.encoder.layer.0.x`` it is ``x``."""
    return re.sub(r"^.*?\w+\.\d+\.", "", name)


def _layer(name: str) -> int:
    """The number of a matrix's layer."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else 0
