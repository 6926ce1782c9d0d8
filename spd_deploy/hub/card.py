"""The model card: what the records of a model say, as prose and tables for its page on the hub.

Nothing is invented: what no record holds is left out, or said to be not measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from spd_deploy.domain.scores import whose
from spd_deploy.domain.tasks import ProblemType
from spd_deploy.hub.card_metadata import metadata_of
from spd_deploy.hub.intervals import interval_of
from spd_deploy.hub.model_facts import ModelFacts
from spd_deploy.hub.model_files import PICTURE_FILES

Row = Sequence[str]
_NOT_RECORDED = "not recorded"
_NO_INTERVAL = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedFacts:
    """The speed of the model in a report of ``spd bench``.

    Attributes:
        columns, rows: latency and speed-up with its interval, by shape.
        where: the machine, the runtime and the threads, in words.
        how: the command and the settings, in words.
        caveats: what speaks against the numbers, a sentence each.
    """

    columns: Row
    rows: Sequence[Row]
    where: str
    how: str
    caveats: Sequence[str]


def card_of(
    facts: ModelFacts, repository: str, *, license_: str | None, speed: SpeedFacts | None
) -> str:
    """The text of a model card.

    Args:
        facts: the model.
        repository: where it will be, ``OWNER/NAME`` or ``NAME``.
        license_: the licence; None leaves it out.
        speed: what a benchmark measured; None says that nothing was.
    """
    name = repository.rpartition("/")[2]
    sections = [
        f"# {name}\n\n{_summary(facts)}",
        _section("Use", _use(facts, repository)),
        _section("Data", _data(facts)),
        _section("Recipe", _recipe(facts)),
        _section("Accuracy", _accuracy(facts)),
        _section("Calibration", _calibration(facts)),
        _section("Speed", _speed(speed)),
        _section("Limits", _limits(facts)),
        _section("Files", _files(facts)),
    ]
    return (
        f"---\n{metadata_of(facts, name, license_).rstrip()}\n---\n\n"
        + "\n\n".join(sections)
        + "\n"
    )


def _section(title: str, parts: Iterator[str]) -> str:
    """A heading with its paragraphs."""
    return "\n\n".join([f"## {title}", *parts])


def _table(columns: Row, rows: Sequence[Row]) -> str:
    """A table in Markdown; a bar inside a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def _summary(facts: ModelFacts) -> str:
    """A description of the model in a sentence or two."""
    task = facts.task
    reads = "pairs of texts" if task.has_pair else "texts"
    match task.problem_type:
        case ProblemType.REGRESSION if task.ordinal:
            names = ", ".join(f"`{label}`" for label in task.ordinal)
            answers = f"a number, and the nearest of the labels {names}, which have this order"
        case ProblemType.REGRESSION:
            answers = "a number"
        case ProblemType.MULTI_LABEL:
            answers = f"any of the labels {_labels(facts)}"
        case ProblemType.SINGLE_LABEL:
            answers = f"one of the labels {_labels(facts)}"
    form = "a PyTorch checkpoint" if facts.format is None else _FORMS[facts.format]
    sparse = (
        "It is dense."
        if facts.pattern is None
        else f"Its encoder is sparse: pattern `{facts.pattern}`, {facts.density:.1%} of the "
        "prunable weights are not zero."
    )
    return (
        f"A text classifier for the task {task.name}: it reads {reads} and answers {answers}. "
        f"{sparse} This is {form} in {facts.precision}, made with `spd`."
    )


_FORMS = {
    "onnx": "an ONNX artefact",
    "torch": "an artefact for PyTorch",
    "trt": "an artefact for TensorRT",
}


def _labels(facts: ModelFacts) -> str:
    """The labels, in the order of the model's outputs."""
    return ", ".join(f"`{label}`" for label in facts.task.labels)


def _use(facts: ModelFacts, repository: str) -> Iterator[str]:
    """How to run it."""
    pair = ', "A second text."' if facts.task.has_pair else ""
    yield f'```sh\nspd predict hf://{repository} "A text."{pair.replace(",", "")}\n```'
    yield f"```sh\nspd serve hf://{repository}\n```"
    if facts.format is None:
        yield (
            "It is a folder of Transformers too, which runs it at dense speed:\n\n"
            "```python\nfrom transformers import AutoModelForSequenceClassification\n\n"
            f'model = AutoModelForSequenceClassification.from_pretrained("{repository}")\n```'
        )
    elif facts.format == "onnx":
        yield (
            "`model.onnx` is for ONNX Runtime, `portable.onnx` for other runtimes; both need no "
            "`spd`."
        )


def _data(facts: ModelFacts) -> Iterator[str]:
    """The section about the training data."""
    trained = facts.task.trained_on
    if trained is None:
        yield f"Task: {facts.task.name}. Which rows it was trained on is {_NOT_RECORDED}."
        return
    apart = (
        "A dev file was used to measure."
        if trained.held_out == 0
        else f"{trained.held_out:.0%} of the rows were set apart to measure on."
    )
    yield (
        f"Task: {facts.task.name}. {apart} The labelled rows have SHA-256 `{trained.sha256}`; no "
        "text is stored with the model."
    )


def _recipe(facts: ModelFacts) -> Iterator[str]:
    """The section about how the model was made, and from which models."""
    recipe = facts.recipe
    if not recipe:
        yield f"How it was trained is {_NOT_RECORDED}."
    else:
        rows = [(name, _spelled(value)) for name, value in _settings(recipe)]
        yield _table(("setting", "value"), rows)
    for role, origin in facts.origins.items():
        commit = "" if origin.commit is None else f" at commit `{origin.commit}`"
        yield f"The {_ROLES.get(role, role)} was read from `{origin.address}`{commit}."


_ROLES = {
    "pretrained": "pretrained encoder",
    "teacher": "dense teacher",
    "dense": "dense model",
    "checkpoint": "exported checkpoint",
}


def _settings(recipe: Any) -> Iterator[tuple[str, Any]]:
    """The settings of a recipe, nested ones by their path; those that are not set are left out."""
    for name, value in recipe.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", one) for inner, one in _settings(value))
        elif value not in (None, [], ""):
            yield name, value


def _spelled(value: Any) -> str:
    """A setting as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _accuracy(facts: ModelFacts) -> Iterator[str]:
    """Scores with intervals, of the model and of those that it was made from."""
    rows = [
        (whose(owner, facts.own), metric, _score(value), _interval(facts, owner, metric, value))
        for owner, scores in facts.scores.items()
        for metric, value in scores.items()
    ]
    if not rows:
        yield "Not measured."
        return
    count = f", {facts.scored_rows} rows" if facts.scored_rows else ""
    yield f"Measured on {facts.split or 'rows of which no record is kept'}{count}."
    yield _table(("model", "metric", "score", "95 % interval"), rows)
    if any(interval != _NO_INTERVAL for *_, interval in rows):
        yield (
            "The intervals say what other rows of the same kind would give: Wilson's for accuracy, "
            "Fisher's for Pearson's correlation. Another seed of the training may differ by more."
        )
    if facts.seeds:
        yield "Mean over several seeds of the same training:"
        found = [
            (arm, metric, _score(one["mean"]), _ends(one["low"], one["high"]), len(one["values"]))
            for arm, metrics in facts.seeds.items()
            for metric, one in metrics.items()
            if one
        ]
        cells = [(*row[:-1], str(row[-1])) for row in found]
        yield _table(("model", "metric", "mean", "95 % interval", "seeds"), cells)


def _interval(facts: ModelFacts, owner: str, metric: str, value: float | None) -> str:
    """The interval of a score; ``-`` where the records give none."""
    if value is None or not facts.scored_rows or owner not in ("dense", "sparse"):
        return _NO_INTERVAL
    found = interval_of(metric, value, facts.scored_rows)
    return _NO_INTERVAL if found is None else _ends(*found)


def _ends(low: float | None, high: float | None) -> str:
    """Both ends of an interval."""
    return _NO_INTERVAL if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _score(value: float | None) -> str:
    """A score; ``undefined`` where it has no value."""
    return "undefined" if value is None else f"{value:.4f}"


def _calibration(facts: ModelFacts) -> Iterator[str]:
    """How well its scores fit what is true."""
    if not facts.calibration:
        yield "Not measured: a score is not to be read as a probability."
        return
    rows = [
        (
            arm,
            f"{found.temperature:.3f}",
            f"{found.before.expected:.4f} to {found.after.expected:.4f}",
            f"{found.before.brier:.4f} to {found.after.brier:.4f}",
            found.split,
        )
        for arm, found in facts.calibration.items()
    ]
    columns = ("model", "temperature", "expected calibration error", "Brier score", "measured on")
    yield _table(columns, rows)
    own = facts.calibration.get("dense" if facts.pattern is None else "sparse")
    if own is not None and own.rows > 0:
        yield f"The temperature was fitted on {own.rows} rows; it is in the weights."
    else:
        yield "No temperature was fitted to this model: its scores are as they were trained."
    decision = facts.task.decision
    if decision.thresholds:
        spelled = ", ".join(
            f"`{label}` {one.value:g}" for label, one in decision.thresholds.items()
        )
        yield f"Thresholds: {spelled}."
    if decision.abstain_below is not None:
        yield f"It gives no label where its best score is below {decision.abstain_below:g}."


def _speed(speed: SpeedFacts | None) -> Iterator[str]:
    """How fast it is, where, and how that was measured."""
    if speed is None:
        yield "Not measured here. `spd bench` measures it on your machine against a dense baseline."
        return
    yield _table(speed.columns, speed.rows)
    yield f"{speed.where} {speed.how}"
    for caveat in speed.caveats:
        yield f"Caveat: {caveat}."


def _longer(facts: ModelFacts) -> str:
    """A sentence about texts that are longer than the model reads."""
    windows = facts.task.windows
    if windows is None:
        return "what is longer is cut"
    return f"it was trained to read what is longer in {windows}, {windows.most} windows at most"


def _limits(facts: ModelFacts) -> Iterator[str]:
    """The section about the limits of the model."""
    lines = [
        f"It reads {facts.max_tokens} tokens; {_longer(facts)}.",
        "Its scores hold for texts like those that they were measured on. Other domains and "
        "languages were not measured.",
        "How its errors are spread over groups of people was not measured.",
        *facts.facts,
    ]
    yield "\n".join(f"- {line}" for line in lines)


def _files(facts: ModelFacts) -> Iterator[str]:
    """The section about its files, with the versions that wrote them."""
    owner = "weights" if facts.format is None else "checkpoint's weights"
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    yield f"SHA-256 of the {owner}: `{facts.sha256}`." + (
        f" Made by {versions}." if versions else ""
    )
    for picture in PICTURE_FILES:
        if picture in facts.files:
            yield f"![{picture.removesuffix('.png')}]({picture})"
