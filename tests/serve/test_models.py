"""Several models in one server: every protocol finds each by its name, and each counts alone."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serve.repository import named_path, refuse_bad_name, refuse_like_names
from serve.settings import ServeSettings
from serve.thread_budget import thread_shares
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadSetting
from tests.serve.clients import Exchange, client_of, metric, ready, until
from tests.serve.repositories import FakeVersions, folder_source

ONE, TWO = "a good film", "the bus is late"
PAIR = {"text": ONE, "text_pair": TWO}


@pytest.fixture(scope="module")
def several(single_artefact: Artefact, pair_artefact: Artefact) -> Iterator[TestClient]:
    """A client of a server of single texts, under the name ``texts``, and of ``pairs``."""
    sources = [
        folder_source("texts", single_artefact.folder),
        folder_source("pairs", pair_artefact.folder),
    ]
    with client_of(sources, ServeSettings(model_control=True)) as client:
        yield client


def oip(**tensors: str) -> dict[str, Any]:
    """A body of the Open Inference Protocol."""
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}
        for name, text in tensors.items()
    ]
    return {"inputs": inputs}


def scores_in(path: str, answer: Any) -> list[float]:
    """The scores of an answer, smallest first."""
    match path.split("/")[1:]:
        case ["v2", *_]:
            found = next(one["data"] for one in answer["outputs"] if one["name"] == "scores")
        case ["v1", "models", _]:
            found = [one["score"] for one in answer["predictions"][0]]
        case ["v1", "classify"]:
            found = [one["score"] for one in answer["results"][0]["labels"]]
        case ["classify"]:
            found = answer["data"][0]["probs"]
        case _:
            found = [one["score"] for one in (answer[0] if path == "/predict" else answer)]
    return sorted(found)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/classify", {"model": "pairs", "inputs": [PAIR]}),
        ("/predict", {"model": "pairs", "inputs": [[ONE, TWO]]}),
        ("/v1/models/pairs:predict", {"instances": [[ONE, TWO]]}),
        ("/v2/models/pairs/infer", oip(text=ONE, text_pair=TWO)),
        ("/v2/models/pairs/versions/1/infer", oip(text=ONE, text_pair=TWO)),
    ],
)
def test_each_protocol_finds_the_second_model_by_its_name(
    several: TestClient, pairs: TestClient, path: str, body: dict[str, Any]
) -> None:
    """The scores are those of a server that has that model alone."""
    alone = pairs.post("/v1/classify", json={"inputs": [PAIR]}).json()

    answer = several.post(path, json=body)

    assert answer.status_code == 200, answer.text
    expected = scores_in("/v1/classify", alone)
    assert scores_in(path, answer.json()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/classify", {"inputs": [{"text": ONE}]}),
        ("/v1/classify", {"model": "texts", "inputs": [{"text": ONE}]}),
        ("/predict", {"inputs": [[ONE]]}),
        ("/classify", {"input": ONE}),
        ("/classify", {"model": "texts", "input": ONE}),
        ("/v1/models/texts:predict", {"instances": [ONE]}),
        ("/v2/models/texts/infer", oip(text=ONE)),
    ],
)
def test_the_first_model_answers_who_names_none(
    several: TestClient, single: TestClient, path: str, body: dict[str, Any]
) -> None:
    """The first model answers under its own name, and where a request has no name."""
    alone = single.post("/v1/classify", json={"inputs": [{"text": ONE}]}).json()

    answer = several.post(path, json=body)

    assert answer.status_code == 200, answer.text
    expected = scores_in("/v1/classify", alone)
    assert scores_in(path, answer.json()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/classify", {"model": "other", "inputs": [{"text": ONE}]}),
        ("/v1/classify", {"model": "other", "input": ONE}),
        ("/classify", {"model": "other", "input": ONE}),
        ("/score", {"model": "other", "text_1": ONE, "text_2": TWO}),
        ("/predict", {"model": "other", "inputs": ONE}),
        ("/rerank", {"model": "other", "query": ONE, "texts": [TWO]}),
        ("/tokenize", {"model": "other", "inputs": ONE}),
        ("/v1/models/other:predict", {"instances": [ONE]}),
        ("/v2/models/other/infer", oip(text=ONE)),
        ("/v2/models/texts/versions/2/infer", oip(text=ONE)),
        ("/v2/repository/models/other/load", {}),
        ("/v2/repository/models/other/unload", {}),
    ],
)
def test_a_model_that_is_not_there_is_404(
    several: TestClient, path: str, body: dict[str, Any]
) -> None:
    """In every protocol, and the error names what is there."""
    answer = several.post(path, json=body)

    assert answer.status_code == 404
    assert "texts, pairs" in answer.text or "use 1" in answer.text


def test_a_name_that_is_no_text_is_refused(several: TestClient) -> None:
    """A number in the field is a fault of the body, not the name of a model."""
    body = {"model": 7, "inputs": [{"text": ONE}]}

    assert several.post("/v1/classify", json=body).status_code == 422


def test_the_lists_have_every_model(several: TestClient) -> None:
    """OpenAI's list, the repository's index and the server's facts agree, in order."""
    names = ["texts", "pairs"]

    assert [one["id"] for one in several.get("/v1/models").json()["data"]] == names
    assert [one["name"] for one in several.post("/v2/repository/index").json()] == names
    assert [one["model"] for one in several.get("/info").json()["models"]] == names


def test_the_facts_of_each_model_are_its_own(several: TestClient) -> None:
    """Each has a page of facts; without a name it is that of the first."""
    assert several.get("/info").json()["model"] == "texts"
    found = several.get("/info/pairs").json()
    assert (found["model"], found["takes"], found["model_version"]) == ("pairs", "pair", "1")
    assert several.get("/info/other").status_code == 404


def test_each_model_counts_alone(several: TestClient) -> None:
    """A request raises the counts of its own model, and leaves those of the other."""
    counted = 'spd_batch_rows_sum{{model="{}"}}'
    asked = 'spd_requests_total{{code="200",model="{}",route="/v1/classify"}}'
    several.post("/v1/classify", json={"inputs": [{"text": ONE}]})
    several.post("/v1/classify", json={"model": "pairs", "inputs": [PAIR]})
    before = [metric(several, one.format("texts")) for one in (counted, asked)]
    other = [metric(several, one.format("pairs")) for one in (counted, asked)]

    several.post("/v1/classify", json={"model": "pairs", "inputs": [PAIR, PAIR]})

    assert [metric(several, one.format("texts")) for one in (counted, asked)] == before
    after = [metric(several, one.format("pairs")) for one in (counted, asked)]
    assert after == [other[0] + 2, other[1] + 1]


def test_each_model_has_a_line_of_facts_in_the_metrics(several: TestClient) -> None:
    """What one runs in is not hidden by the one that was opened after it."""
    found = [metric(several, f'spd_build_info{{model="{name}"}}') for name in ("texts", "pairs")]

    assert found == [1, 1]


def test_a_model_whose_queue_is_full_refuses_alone(tmp_path: Path) -> None:
    """429 is for requests that name it; one whose body may name another is read."""
    models = [FakeVersions(tmp_path / name) for name in ("full", "free")]
    for model in models:
        model.put("1")

    async def story() -> list[int | None]:
        sources = [model.source for model in models]
        async with ready(sources, ServeSettings(max_queue_items=1)) as (app, state):
            models[0].sessions["1"].gate.close()
            held = Exchange(app, "/v2/models/full/infer", oip(text=ONE))
            full = state.models[0].opened
            await until(lambda: full is not None and full.admission.held.items == 1)
            statuses = []
            for path, body in (
                ("/v2/models/full/infer", {"read": "never"}),
                ("/v2/models/free/infer", oip(text=ONE)),
                ("/v1/classify", {"model": "free", "inputs": [{"text": ONE}]}),
                ("/v1/classify", {"model": "full", "inputs": [{"text": ONE}]}),
            ):
                await (other := Exchange(app, path, body)).answer()
                statuses.append(other.status)
            models[0].sessions["1"].gate.open()
            await held.answer()
            return [held.status, *statuses]

    assert asyncio.run(story()) == [200, 429, 200, 200, 429]


def test_the_description_has_the_models_by_name(several: TestClient) -> None:
    """Paths and bodies list both names, and a body of either kind fits."""
    described = several.get("/openapi.json").json()

    infer = described["paths"]["/v2/models/{name}/infer"]["post"]
    assert infer["parameters"][0]["schema"]["enum"] == ["texts", "pairs"]
    fields = described["components"]["schemas"]["ClassifyRequest"]["properties"]
    assert fields["model"]["anyOf"] == [{"enum": ["texts", "pairs", None]}]


def test_a_model_that_is_unloaded_leaves_the_others(tmp_path: Path) -> None:
    """The other answers, the server stays ready, and it is not once none is left."""
    first, second = FakeVersions(tmp_path / "first"), FakeVersions(tmp_path / "second")
    for one in (first, second):
        one.put("1")
    ask = {"model": "second", "inputs": [{"text": ONE}]}
    with client_of([first.source, second.source], ServeSettings(model_control=True)) as client:
        assert client.post("/v2/repository/models/second/unload").status_code == 200
        assert client.post("/v1/classify", json=ask).status_code == 503
        assert client.post("/v1/classify", json={**ask, "model": "first"}).status_code == 200
        assert client.get("/readyz").status_code == 200

        client.post("/v2/repository/models/first/unload")
        assert client.get("/readyz").status_code == 503
        client.post("/v2/repository/models/second/load")
        assert client.post("/v1/classify", json=ask).status_code == 200


@pytest.mark.parametrize(
    ("spelled", "name"),
    [("a=b/c", "a"), ("b/c", "c"), ("runs/lr=0.1/model", "model"), ("a=b=c", "a")],
)
def test_a_name_comes_before_the_first_equals_sign(spelled: str, name: str) -> None:
    """A path may have one too, further down."""
    assert named_path(spelled)[0] == name


def test_a_folder_with_an_equals_sign_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there under the whole name is meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()

    assert named_path("lr=0.1") == ("lr=0.1", Path("lr=0.1"))


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\nb", "x" * 101])
def test_a_name_that_fits_no_url_is_refused(name: str) -> None:
    """A model's name is one part of a path."""
    with pytest.raises(BadSetting):
        refuse_bad_name(name)


@pytest.mark.parametrize("names", [["a", "a"], ["a", "b", "A"], ["Straße", "STRASSE"]])
def test_names_that_clash_are_refused(names: list[str]) -> None:
    """Two models of one name, or of names that differ by case, are one too many."""
    with pytest.raises(BadSetting, match="two "):
        refuse_like_names(names)


@given(st.integers(1, 64), st.integers(1, 8), st.integers(0, 7))
def test_threads_are_shared_out_whole(budget: int, models: int, shadows: int) -> None:
    """The shares are the budget or one each, never none, and equal to within one thread."""
    names = [str(i) for i in range(models)]
    seconds = names[models - min(shadows, models - 1) :] if shadows and models > 1 else []

    shares = thread_shares(budget, names, seconds)

    assert sum(shares) == max(budget, models)
    assert min(shares) >= 1
    served = [n for name, n in zip(names, shares, strict=True) if name not in seconds]
    assert max(served) - min(served) <= 1
    assert all(n == 1 for name, n in zip(names, shares, strict=True) if name in seconds)
