"""Shadow traffic: compared off the critical path, counted, and never in an answer's way."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from serve.classifier import Classified
from serve.hosted_model import HostedModel
from serve.model_source import FolderSource, ModelSource
from serve.open_model import ServedModel
from serve.shadow import (
    Shadow,
    ShadowSpec,
    given_labels,
    refuse_bad_shadows,
    refuse_incomparable,
    score_distance,
    scores_of,
    shadow_from,
)
from serve.shadow_metrics import ShadowMetrics
from serve.texts import Text
from spd_deploy.domain.answers import answers_of, decided_of
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.tasks import ProblemType, Task, task_named
from spd_deploy.domain.text import Batch
from tests.serve.clients import client_of, metric
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.repositories import FakeVersions, folder_source
from tests.serve.test_reload import CONTROLLED, load, wait_for

ALL = ShadowSpec(model="first", other="second", share=1.0)
TEXTS = ["a good film", "the bus", "not very good", "a film"]


class Opposite(FakeSession):
    """A session whose logits are those of the fake with their sign changed."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """The opposite logits."""
        return -super().run(batch)


def fakes(folder: Path, **sessions: FakeSession) -> list[ModelSource]:
    """Models of these sessions by name."""

    def source(name: str, session: FakeSession) -> ModelSource:
        (folder / name).mkdir()

        def opened(_: Path, name: str, version: str) -> ServedModel:
            return replace(fake_served(folder, session), name=name, version=version)

        return FolderSource(name, folder / name, opened)

    return [source(name, session) for name, session in sessions.items()]


def counted(client: TestClient, what: str) -> float:
    """A metric of the shadow."""
    return metric(client, f'spd_shadow_{what}{{model="first",shadow="second"}}')


def classify(client: TestClient, texts: list[str], **more: object) -> int:
    """The status of a request to the first model."""
    body = {"inputs": [{"text": text} for text in texts], **more}
    return client.post("/v1/classify", json=body).status_code


def test_a_shadow_of_the_same_model_agrees(single_artefact: Artefact) -> None:
    """Every text is compared, with the same labels and no distance, also where logits are asked."""
    sources = [folder_source(name, single_artefact.folder) for name in ("first", "second")]
    with client_of(sources, shadows=[ALL]) as client:
        classify(client, TEXTS)
        classify(client, TEXTS, raw_scores=True)
        wait_for(lambda: counted(client, "texts_total") == 2 * len(TEXTS))

        assert counted(client, "disagreements_total") == 0
        assert counted(client, "score_distance_sum") == pytest.approx(0, abs=1e-5)


def test_a_shadow_that_says_the_opposite_disagrees(tmp_path: Path) -> None:
    """Disagreements and distances are those that the two formulas have, and answers stay."""
    sources = fakes(tmp_path, first=FakeSession(), second=Opposite())
    with client_of(sources, shadows=[ALL]) as client:
        body = {"inputs": [{"text": text} for text in TEXTS], "raw_scores": True}
        rows = client.post("/v1/classify", json=body).json()["results"]
        wait_for(lambda: counted(client, "texts_total") == len(TEXTS))

        logits = [[one["score"] for one in row["labels"]] for row in rows]
        assert counted(client, "disagreements_total") == sum(a != b for a, b in logits)
        # softmax of (a, b) and of (-a, -b) differ by |tanh((a - b) / 2)| in each label
        expected = sum(abs(np.tanh((a - b) / 2)) for a, b in logits)
        assert counted(client, "score_distance_sum") == pytest.approx(expected, rel=1e-5)


def test_a_shadow_that_hangs_or_fails_is_in_nobodys_way(tmp_path: Path) -> None:
    """Answers go on while it holds a batch; what does not fit is dropped, what fails counted."""
    slow = FakeSession()
    sources = fakes(tmp_path, first=FakeSession(), second=slow)
    with client_of(sources, shadows=[ALL]) as client:
        slow.gate.close()
        assert classify(client, TEXTS[:1]) == 200
        slow.gate.wait_until_reached()
        for _ in range(40):
            assert classify(client, TEXTS[:1]) == 200
        assert counted(client, "dropped_total") == 40 - 32
        assert counted(client, "texts_total") == 0

        def fail(rows: object) -> None:
            raise RuntimeError("injected")

        slow.fail = fail
        slow.gate.open()
        wait_for(lambda: counted(client, "errors_total") == 33)
        assert classify(client, TEXTS[:1]) == 200


def test_texts_in_every_protocol_are_shadowed(tmp_path: Path) -> None:
    """It does not matter how a text came, and the shadow's own requests are not."""
    sources = fakes(tmp_path, first=FakeSession(), second=FakeSession())
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    with client_of(sources, shadows=[ALL]) as client:
        client.post("/predict", json={"inputs": "a"})
        client.post("/classify", json={"input": "a"})
        client.post("/v1/models/first:predict", json={"instances": ["a"]})
        client.post("/v2/models/first/infer", json={"inputs": [text]})
        client.post("/predict", json={"inputs": "a", "model": "second"})
        wait_for(lambda: counted(client, "texts_total") >= 4)

        assert counted(client, "texts_total") == 4


@pytest.mark.parametrize("draw", [0.0, 0.2, 0.24999, 0.25, 0.9])
def test_a_request_is_drawn_by_the_share(tmp_path: Path, draw: float) -> None:
    """It is queued where the number drawn is below the share."""
    models = [HostedModel(source) for source in fakes(tmp_path, a=FakeSession())]
    spec = ShadowSpec(model="a", other="b", share=0.25)

    async def story() -> bool:
        shadow = Shadow(spec, models[0], models[0], ShadowMetrics(), draw=lambda: draw)
        shadow.observe([Text(text="a")], [], task_named("sst2"))
        return shadow.waiting == 1

    assert asyncio.run(story()) is (draw < 0.25)


def test_a_version_with_other_labels_is_refused_beside_its_shadow(tmp_path: Path) -> None:
    """A new version of either model must stay comparable, and the old one answers on."""
    versions = [FakeVersions(tmp_path / name) for name in ("first", "second")]
    for one in versions:
        one.put("1")
    with client_of([one.source for one in versions], CONTROLLED, shadows=[ALL]) as client:
        for one, name in zip(versions, ("first", "second"), strict=True):
            one.put("2", task="cola")
            assert load(client, name) == 400
            assert client.get(f"/info/{name}").json()["model_version"] == "1"
            assert one.sessions["2"].closed


def classified(task: Task, *logits: float) -> Classified:
    """An answer with these logits."""
    logits_C = np.array(logits, np.float32)
    return Classified(
        answers=answers_of(task, logits_C, raw=True),
        decided=decided_of(task, logits_C),
        logits_C=logits_C,
        n_tokens=1,
        dropped_tokens=0,
    )


def test_labels_are_compared_as_the_task_has_them() -> None:
    """The best of several, those that hold of labels that go together, and none of a number."""
    one, two = {"a": 0.6, "b": 0.7}, {"a": 0.4, "b": 0.9}
    single = task_named("sst2")
    many = replace(single, problem_type=ProblemType.MULTI_LABEL)
    number = task_named("stsb")

    assert given_labels(single, one) == given_labels(single, two) == {"b"}
    assert given_labels(many, one) == {"a", "b"}
    assert given_labels(many, two) == {"b"}
    assert given_labels(number, {"score": 1.0}) == given_labels(number, {"score": 5.0}) == set()
    assert score_distance(one, two) == pytest.approx(0.2)
    scores = scores_of(single, classified(single, 1.0, 1.0))
    assert scores == {label: 0.5 for label in single.labels}


@pytest.mark.parametrize(
    "spelled",
    [
        *("", "a", "a=b", "a@0.1", "a=b@", "a=b@x", "=b@0.1", "a=b@0", "a=b@-1", "a=b@1.1"),
        *("a=b@nan", "a=b@inf", "a=a@0.5"),
    ],
)
def test_a_shadow_that_makes_no_sense_is_refused(spelled: str) -> None:
    """It needs two models and a share above 0, up to 1."""
    with pytest.raises(BadSetting):
        shadow_from(spelled)


def test_a_shadow_is_spelled_with_its_share() -> None:
    """A name may have an at sign; the last one ends it."""
    assert shadow_from("a=b@home@0.05") == ShadowSpec(model="a", other="b@home", share=0.05)


@pytest.mark.parametrize(
    ("specs", "told"),
    [(["a=c@1"], "not served"), (["c=a@1"], "not served"), (["a=b@1", "a=b@0.5"], "two shadows")],
)
def test_shadows_are_of_models_that_are_there(specs: list[str], told: str) -> None:
    """Each names two that are served, and a model has one."""
    with pytest.raises(BadSetting, match=told):
        refuse_bad_shadows([shadow_from(one) for one in specs], ["a", "b"])


@pytest.mark.parametrize("task", ["mnli", "cola", "mrpc", "stsb"])
def test_models_of_other_tasks_cannot_be_compared(tmp_path: Path, task: str) -> None:
    """Other labels, other inputs, or numbers beside labels."""
    first = fake_served(tmp_path, FakeSession())

    with pytest.raises(BadSetting, match="cannot be compared"):
        refuse_incomparable(first, fake_served(tmp_path, FakeSession(), task=task))
