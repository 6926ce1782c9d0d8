"""The description fits the model that is served: its examples work, and its bounds hold."""

import html
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from exporters.export import artefact_from_checkpoint
from serve.app import create_app
from serve.open_model import open_served
from serve.protocols.input_spec import InputSpec
from serve.settings import ServeSettings
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import open_checkpoint
from tests.serve.clients import JSON, client_of
from tests.tiny import tiny_model

TAKES = ("single", "pair", "either")
LIMIT = 5


@pytest.fixture(scope="module", params=TAKES)
def client(
    request: pytest.FixtureRequest,
    single_artefact: Artefact,
    pair_artefact: Artefact,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TestClient]:
    """A client of a server of single texts, of pairs, and of a model that does not say."""
    folder = tmp_path_factory.mktemp("described")
    match request.param:
        case "single":
            artefact = single_artefact
        case "pair":
            artefact = pair_artefact
        case _:
            checkpoint = open_checkpoint(tiny_model(folder / "model"))
            artefact = artefact_from_checkpoint(checkpoint, folder / "artefact")
    settings = ServeSettings(max_inputs=LIMIT)
    with client_of(lambda: open_served(artefact.folder, threads=1), settings) as found:
        assert found.get("/info").json()["takes"] == request.param
        yield found


def bodies(client: TestClient) -> dict[str, dict[str, Any]]:
    """The schemas of the description."""
    found: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["components"]["schemas"]
    return found


def test_what_the_docs_say_to_paste_works(client: TestClient) -> None:
    """Each command of the page, read as a shell reads it, is answered with 200."""
    commands = [
        shlex.split(html.unescape(pre).replace("\\\n", " "))
        for pre in re.findall(r"<pre>(curl .*?)</pre>", client.get("/docs").text, re.DOTALL)
    ]

    assert len(commands) >= 4
    for name, url, _, header, _, data in commands:
        answer = client.post(url, content=data, headers=dict([header.split(": ")]))
        assert (name, answer.status_code) == ("curl", 200), answer.text


def test_the_examples_of_every_description_work(client: TestClient) -> None:
    """The body in the schema, and the one that /info gives to the demo page, are answered."""
    described = bodies(client)
    examples = [
        ("/v1/classify", client.get("/info").json()["example"]),
        ("/v1/classify", *described["ClassifyRequest"]["examples"]),
        ("/predict", *described["PredictRequest"]["examples"]),
    ]

    for path, example in examples:
        assert client.post(path, json=example).status_code == 200


def test_the_bounds_are_those_of_the_server(client: TestClient) -> None:
    """The description tells how many inputs there may be, and that no text is empty."""
    described = bodies(client)
    native = described["ClassifyRequest"]["properties"]["inputs"]
    text = described["Input"]["properties"]["text"]
    batch = described["PredictRequest"]["properties"]["inputs"]["oneOf"][-1]

    assert (native["minItems"], native["maxItems"]) == (1, LIMIT)
    assert (batch["minItems"], batch["maxItems"]) == (1, LIMIT)
    assert described["ClassifyRequest"]["properties"]["top_k"]["anyOf"][0]["minimum"] == 1
    assert text["minLength"] == batch["items"]["items"]["minLength"] == 1
    for bad in ("", " \n", "\u200b", "\x83"):
        assert not re.search(text["pattern"], bad)
    for good in ("a", "日本", "!", "🙂", "\u200bx"):
        assert re.search(text["pattern"], good)


def test_the_enum_is_what_is_taken(client: TestClient) -> None:
    """Each direction that the description lists is taken, and no other."""
    described = bodies(client)["PredictRequest"]
    (example,) = described["examples"]
    values = described["properties"]["truncation_direction"]["enum"]

    assert values == ["Right", "right", "Left", "left"]
    for value in [*values, "LEFT", "RIGHT", None]:
        answer = client.post("/predict", json={**example, "truncation_direction": value})
        assert answer.status_code == (200 if value in values else 422)


def test_the_form_of_an_input_is_the_models(client: TestClient) -> None:
    """A model of pairs requires both texts, one of single texts has no second one."""
    takes = client.get("/info").json()["takes"]
    described = bodies(client)
    item = described["PredictRequest"]["properties"]["inputs"]["oneOf"][-1]["items"]

    sizes = {"single": (1, 1), "pair": (2, 2), "either": (1, 2)}
    assert (item["minItems"], item["maxItems"]) == sizes[takes]
    required = ["text", "text_pair"] if takes == "pair" else ["text"]
    assert described["Input"]["required"] == required
    second = described["Input"]["properties"]["text_pair"]
    assert (second.get("type") == "null") == (takes == "single")


def test_a_server_that_opens_its_model_describes_any() -> None:
    """Before the model is open the description is the one of a model that may take either."""

    def never() -> Any:
        raise AssertionError

    app = create_app(never, ServeSettings())

    schemas = app.openapi()["components"]["schemas"]

    assert schemas["Input"]["required"] == ["text"]
    assert schemas["ClassifyRequest"]["examples"]


@pytest.mark.parametrize("top_k", [1.0, 2.0, 1e300])
def test_a_whole_number_is_whole_however_it_is_written(single: TestClient, top_k: float) -> None:
    """JSON has one kind of number, so 2.0 is taken where 2 is."""
    body = {"inputs": [{"text": "a film"}]}
    full = single.post("/v1/classify", json=body).json()["results"][0]["labels"]

    found = single.post("/v1/classify", json={**body, "top_k": top_k})

    assert found.json()["results"][0]["labels"] == full[: int(top_k)]


@pytest.mark.parametrize("top_k", ["0", "0.0", "-1", "1.5", "1e400", "true", '"1"'])
def test_no_other_number_is_taken(single: TestClient, top_k: str) -> None:
    """What is no whole number of at least one is refused by its name."""
    body = f'{{"inputs": [{{"text": "a film"}}], "top_k": {top_k}}}'

    answer = single.post("/v1/classify", content=body, headers=JSON)

    assert answer.status_code == 422
    assert answer.json()["error"].startswith("top_k: ")


def test_an_example_is_quoted_for_a_shell() -> None:
    """An example is one word of the command, whatever it holds."""
    from serve.pages import quoted

    for text in ('{"text": "it\'s"}', '$HOME `x` "\\" !', "''"):
        assert shlex.split(quoted(text)) == [text]


def test_every_form_has_an_example() -> None:
    """A pair has two texts, any other form one."""
    assert [len(InputSpec(takes=takes, max_inputs=1).example) for takes in TAKES] == [1, 2, 1]


@pytest.mark.parametrize("path", ["serve/html/demo.html", "serve/html/docs.html"])
def test_commands_are_wrapped_instead_of_clipped(path: str) -> None:
    """A command wider than the screen is broken into lines, so that a phone shows all of it."""
    style = (Path(__file__).parents[2] / path).read_text(encoding="utf-8")

    (rule,) = re.findall(r"^pre \{(.*?)\}", style, re.DOTALL | re.MULTILINE)
    assert "white-space: pre-wrap" in rule
    assert "overflow-x" not in rule
