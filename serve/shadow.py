"""Shadow traffic: a share of the requests of one model is run by another too, and compared.

    --shadow reviews=teacher@0.05

An answer never waits for its shadow: the texts are queued after the answer is made, one request at
a time is run, and what does not fit into the queue is dropped and counted. A shadow that fails is
counted as well.
"""

import asyncio
import logging
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve.classifier import Classified
from serve.hosted_model import HostedModel
from serve.open_model import ServedModel
from serve.shadow_metrics import ShadowMetrics
from serve.text_windows import AS_SERVED, AskedWindows
from serve.texts import Text
from spd_deploy.domain.answers import answers_of
from spd_deploy.domain.errors import BadSetting, SpdError, reason_of
from spd_deploy.domain.ordinal import nearest
from spd_deploy.domain.tasks import ProblemType, Task

_log = logging.getLogger(__name__)
_MAX_WAITING = 32  # requests
_MAX_WAITING_CHARS = 1_000_000
_FORM = re.compile(r"(?P<model>[^=]+)=(?P<other>.+)@(?P<share>[^@]+)")
# From this probability on, a label of several that may hold together counts as given.
_HOLDS = 0.5
_Observed = tuple[Sequence[Text], Sequence[Classified], Task, AskedWindows]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowSpec:
    """Which model shadows which, and for what share of its requests, above 0 up to 1."""

    model: str
    other: str
    share: float

    def __post_init__(self) -> None:
        """Refuse a share that is none, and a model that shadows itself."""
        if not 0 < self.share <= 1:
            raise BadSetting(
                "the share of --shadow must be above 0 and at most 1",
                got=f"{self.share:g}",
                fix="write NAME=OTHER@0.05 for five requests in a hundred",
            )
        if self.model == self.other:
            raise BadSetting(
                "a model cannot be its own shadow",
                got=self.model,
                fix="serve the other model under a name of its own",
            )


def shadow_from(spelled: str) -> ShadowSpec:
    """Parse ``NAME=OTHER@SHARE``.

    Raises:
        BadSetting: it is not written so, or the share is not above 0 and at most 1.
    """
    found = _FORM.fullmatch(spelled)
    try:
        share = float(found["share"]) if found else None
    except ValueError:
        share = None
    if found is None or share is None:
        raise BadSetting(
            "--shadow is not written as NAME=OTHER@SHARE",
            got=spelled,
            fix="write it like reviews=teacher@0.05",
        )
    return ShadowSpec(model=found["model"], other=found["other"], share=share)


def refuse_bad_shadows(specs: Sequence[ShadowSpec], names: Sequence[str | None]) -> None:
    """Refuse a shadow of or by a model that is not served, and two shadows of one model.

    Raises:
        BadSetting: with the name.
    """
    for spec in specs:
        for name in (spec.model, spec.other):
            if name not in names:
                raise BadSetting(
                    "--shadow names a model that is not served",
                    got=name,
                    fix=f"this server has {', '.join(one or '' for one in names)}",
                )
    shadowed = [spec.model for spec in specs]
    twice = [name for name in shadowed if shadowed.count(name) > 1]
    if twice:
        raise BadSetting("a model has two shadows", got=twice[0], fix="give it one")


class Shadows:
    """All shadows of one server."""

    def __init__(self, specs: Sequence[ShadowSpec], models: Sequence[HostedModel]) -> None:
        """Every model's answers are handed to its shadow from now on.

        Raises:
            BadSetting: a shadow names a model that is not served.
        """
        by_name = {model.name: model for model in models}
        refuse_bad_shadows(specs, list(by_name))
        self.metrics = ShadowMetrics()
        self._shadows = [
            Shadow(spec, by_name[spec.model], by_name[spec.other], self.metrics) for spec in specs
        ]

    def refuse_other_labels(self, model: HostedModel, served: ServedModel) -> None:
        """Refuse a version whose labels are not those of the model that it is compared with.

        Raises:
            BadSetting: the two cannot be compared.
        """
        for shadow in self._shadows:
            partner = shadow.partner_of(model)
            if partner is not None and partner.opened is not None:
                refuse_incomparable(served, partner.opened.served)

    async def run(self) -> None:
        """Run the shadows until this is cancelled."""
        await asyncio.gather(*(shadow.run() for shadow in self._shadows))


class Shadow:
    """One model that is run beside another."""

    def __init__(
        self,
        spec: ShadowSpec,
        model: HostedModel,
        other: HostedModel,
        metrics: ShadowMetrics,
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._spec, self._model, self._other = spec, model, other
        self._metrics, self._draw = metrics, draw
        self._waiting: asyncio.Queue[_Observed] = asyncio.Queue(_MAX_WAITING)
        self._waiting_chars = 0
        metrics.watch(spec.model, spec.other)
        model.after_answer = self.observe

    def partner_of(self, model: HostedModel) -> HostedModel | None:
        """The other one of the two; None where ``model`` is neither."""
        return {self._model: self._other, self._other: self._model}.get(model)

    @property
    def waiting(self) -> int:
        """Requests that are queued."""
        return self._waiting.qsize()

    def observe(
        self,
        texts: Sequence[Text],
        answered: Sequence[Classified],
        task: Task,
        asked: AskedWindows = AS_SERVED,
    ) -> None:
        """Queue the texts of an answered request, if it is drawn and there is room."""
        if self._draw() >= self._spec.share:
            return
        chars = sum(text.chars for text in texts)
        if self._waiting.full() or self._waiting_chars + chars > _MAX_WAITING_CHARS:
            self._metrics.dropped(self._spec.model, self._spec.other, len(texts))
            return
        self._waiting_chars += chars
        self._waiting.put_nowait((texts, answered, task, asked))

    async def run(self) -> None:
        """Run what is queued, one request after the other."""
        while True:
            texts, answered, task, asked = await self._waiting.get()
            try:
                await self._compare(texts, answered, task, asked)
            except Exception as err:  # noqa: BLE001  # a shadow that fails is counted, no more
                self._metrics.failed(self._spec.model, self._spec.other, len(texts))
                if not isinstance(err, SpdError):
                    _log.error("the shadow %s failed: %s", self._spec.other, reason_of(err))
            finally:
                self._waiting_chars -= sum(text.chars for text in texts)

    async def _compare(
        self,
        texts: Sequence[Text],
        answered: Sequence[Classified],
        task: Task,
        asked: AskedWindows,
    ) -> None:
        """Run the texts in the shadow, and count how far its scores are from the answers."""
        other = self._other.classifier()
        found, _ = await other.classify(
            texts,
            truncate=True,
            raw_scores=False,
            request_id=f"shadow-of-{self._spec.model}",
            asked=asked,
        )
        for mine, theirs in zip(answered, found, strict=True):
            first, second = scores_of(task, mine), scores_of(other.served.task, theirs)
            self._metrics.compared(
                self._spec.model,
                self._spec.other,
                distance=score_distance(first, second),
                agree=given_labels(task, first) == given_labels(task, second),
            )


def scores_of(task: Task, row: Classified) -> dict[str, float]:
    """The score of every label; probabilities, also where the request asked for logits."""
    answers = answers_of(task, row.logits_C)
    if task.ordinal:
        return {"score": answers[0].score}
    return {answer.label: answer.score for answer in answers}


def score_distance(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """The largest difference of a label's two scores."""
    return max(abs(score - second[label]) for label, score in first.items())


def given_labels(task: Task, scores: Mapping[str, float]) -> frozenset[str]:
    """The labels that an answer comes down to; none for a number, which has no label."""
    match task.problem_type:
        case ProblemType.SINGLE_LABEL:
            return frozenset([max(scores, key=lambda label: scores[label])])
        case ProblemType.MULTI_LABEL:
            return frozenset(label for label, score in scores.items() if score >= _HOLDS)
        case ProblemType.REGRESSION if task.ordinal:
            return frozenset([task.ordinal[int(nearest(task.ordinal, scores["score"]))]])
        case ProblemType.REGRESSION:
            return frozenset()


def refuse_incomparable(first: ServedModel, second: ServedModel) -> None:
    """Refuse two models that do not answer the same question with the same labels.

    Raises:
        BadSetting: their inputs, labels or activations differ.
    """
    facts: dict[str, list[Any]] = {
        "labels": [sorted(one.task.ordinal or one.task.labels) for one in (first, second)],
        "inputs": [one.takes for one in (first, second)],
        "scores": [
            f"{one.task.problem_type.value} with {one.task.activation.value}"
            for one in (first, second)
        ],
    }
    for what, (mine, theirs) in facts.items():
        if mine != theirs:
            raise BadSetting(
                f"{first.name} and {second.name} cannot be compared: their {what} differ",
                got=f"{mine} and {theirs}",
                fix="shadow with a model of the same task",
            )
