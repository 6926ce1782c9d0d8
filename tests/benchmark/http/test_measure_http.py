"""Real servers under load: the report of a run, and the servers that are refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import pytest

from exporters.export import artefact_from_checkpoint
from serve.access import Access
from serve.api_keys import KeyFile
from serve.open_model import open_served
from serve.settings import ServeSettings
from spd_deploy.benchmark.arms import Arm
from spd_deploy.benchmark.artefact_arms import arms_of, open_source
from spd_deploy.benchmark.http import visit
from spd_deploy.benchmark.http.check_answers import check
from spd_deploy.benchmark.http.generator import body_of
from spd_deploy.benchmark.http.http_records import HttpSettings
from spd_deploy.benchmark.http.http_tables import answers_line, http_headlines, tables_of_http
from spd_deploy.benchmark.http.judge_http import judge_http
from spd_deploy.benchmark.http.load_spec import SampleRequest
from spd_deploy.benchmark.http.measure_http import measure_http
from spd_deploy.benchmark.http.served import serving
from spd_deploy.benchmark.http.servers import facts_at, match_servers
from spd_deploy.benchmark.http.workload import golden_requests, row_of, tolerance_of, workload_of
from spd_deploy.benchmark.publish import write_report
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.benchmark.report import read_report
from spd_deploy.benchmark.run import RunTools, run_benchmark
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting, EngineFailed, Unavailable
from spd_deploy.domain.progress import Silent
from tests.benchmark.made import source_of
from tests.serve.wire import listening, request

KEY = "4f0c8f6d9a1b4c5e8d7f"
SHAPES = Shape.grid((1, 2), (8,))
SETTINGS = BenchmarkSettings(shapes=SHAPES, threads=1, rounds=2, seconds=0.05, max_runs=20)
HTTP = HttpSettings(rates=(200.0,), latency_bound_s=0.05, price_per_hour=1.0, own_servers=False)


@pytest.fixture(scope="module")
def url(dense_artefact: Artefact) -> Iterator[str]:
    """The URL of a server of the dense artefact."""
    with listening(open_served(dense_artefact.folder, threads=1)) as found:
        yield f"http://127.0.0.1:{found.port}"


@pytest.fixture
def few_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads of twenty requests or more, and one step of the search a round; a p99 needs more."""
    monkeypatch.setattr(visit, "_LEAST_ARRIVALS", 20)
    monkeypatch.setattr(visit, "_BOUNDS_LONG", 1)
    monkeypatch.setattr(visit, "_STEPS", 2)


def measured(arms: tuple[Arm, ...], url: str, settings: BenchmarkSettings = SETTINGS) -> object:
    """A measurement of arms whose server runs already."""
    return measure_http(arms, settings, HTTP, urls=[url], clock=perf_counter_ns, progress=Silent())


@pytest.mark.usefixtures("few_arrivals")
def test_a_run_over_http_is_a_part_of_the_report(
    arms: tuple[Arm, ...], url: str, tmp_path: Path
) -> None:
    """Every scenario is in it, every answer was right, and it is read back from its file."""
    dense = (arms[0],)
    part = measure_http(dense, SETTINGS, HTTP, urls=[url], clock=perf_counter_ns, progress=Silent())
    plain = run_benchmark(dense, SETTINGS, tools=RunTools(weigh=lambda *_: None))
    report = replace(plain, http=part)
    page = write_report(report, tmp_path / "report")
    judged = judge_http(part, baseline=None, seed=0)

    assert {one.scenario for one in part.loads} == {"single stream", "server", "offline"}
    assert [(row.arm, row.shape) for row in judged.single] == [("dense", s) for s in SHAPES]
    assert (judged.wrong, judged.golden > 0, judged.difference < 1e-4) == (0, True, True)
    assert all(one.outcome.failed == 0 for one in part.loads)
    assert {"tok", "queue", "run", "rest"} <= set(judged.single[0].stages_s)
    assert judged.single[0].over_bare.ratio > 1
    assert read_report(tmp_path / "report" / "report.json") == report
    text = page.read_text(encoding="utf-8")
    assert "Latency is the time from when a request was due" in text
    assert answers_line(judged).split(";")[0] in text
    assert len(tables_of_http(part, judged)) == 4
    assert http_headlines(report, judged)[0].startswith("dense over HTTP: ")


def test_a_server_of_another_model_is_refused(arms: tuple[Arm, ...], url: str) -> None:
    """What it serves and what was to be measured are both told."""
    with pytest.raises(BadSetting, match="serves a model that is not among the arms"):
        measured((arms[1],), url)


def test_every_arm_needs_a_server(arms: tuple[Arm, ...], url: str) -> None:
    """One URL for two arms leaves one without."""
    with pytest.raises(BadSetting, match="no --url is a server of nm"):
        measured(arms, url)


def test_two_servers_of_one_arm_are_refused(arms: tuple[Arm, ...], url: str) -> None:
    """One of them would not be measured, without a word."""
    sources = [source_of(arms[0])]

    with pytest.raises(BadSetting, match="two servers serve dense"):
        match_servers(sources, [url, f"{url}/"])


def test_a_url_that_nobody_answers_is_refused(arms: tuple[Arm, ...]) -> None:
    """The address is named, before anything is measured."""
    with pytest.raises(Unavailable, match=r"nobody answers at http://127\.0\.0\.1:9"):
        measured((arms[0],), "http://127.0.0.1:9")


def test_a_server_with_other_threads_is_refused(arms: tuple[Arm, ...], url: str) -> None:
    """The bare engine would have other threads, so HTTP's part could not be told."""
    two = BenchmarkSettings(shapes=SHAPES, threads=2, rounds=2, seconds=0.05)

    with pytest.raises(BadSetting, match="add --threads 1"):
        measured((arms[0],), url, two)


def test_more_texts_than_a_request_may_have_are_refused(arms: tuple[Arm, ...], url: str) -> None:
    """The server's limit is told."""
    many = Shape.grid((ServeSettings().max_inputs + 1,), (8,))

    with pytest.raises(BadSetting, match=r"takes 32 texts in one request; got --batch 33"):
        measured((arms[0],), url, BenchmarkSettings(shapes=many, threads=1, rounds=2, seconds=1))


def test_a_bound_that_one_request_misses_is_refused(arms: tuple[Arm, ...], url: str) -> None:
    """A hundredth of a millisecond is not to be met; what one request takes is told."""
    tight = HttpSettings(latency_bound_s=1e-5, own_servers=False)

    with pytest.raises(BadSetting, match=r"longer than --latency-bound .* dense takes"):
        measure_http(
            (arms[0],), SETTINGS, tight, urls=[url], clock=perf_counter_ns, progress=Silent()
        )


@pytest.mark.usefixtures("few_arrivals")
def test_a_server_that_wants_a_key_is_measured_with_it(
    arms: tuple[Arm, ...], dense_artefact: Artefact, tmp_path: Path
) -> None:
    """Without the key, and with another, it is refused; with it every answer counts."""
    (tmp_path / "keys").write_text(KEY, encoding="utf-8")
    quick = replace(SETTINGS, shapes=SHAPES[:1])
    access = Access(keys=KeyFile(tmp_path / "keys"))
    with listening(open_served(dense_artefact.folder, threads=1), access=access) as found:
        urls = [f"http://127.0.0.1:{found.port}"]
        for wrong in (None, "0" * 20):
            with pytest.raises(BadSetting, match=r"API key.*--api-key-file"):
                facts_at(urls[0], api_key=wrong)
        part = measure_http(
            (arms[0],), quick, HTTP, urls=urls, api_key=KEY, clock=perf_counter_ns,
            progress=Silent(),
        )  # fmt: skip

    assert all(one.outcome.failed == 0 < len(one.outcome.latency_s) for one in part.loads)


def test_a_server_is_started_and_stopped(dense_artefact: Artefact) -> None:
    """It serves the artefact on a port of its own, and nobody answers there afterwards."""
    with serving(dense_artefact.folder, ["--threads", "1"]) as server:
        assert facts_at(server.url).name == dense_artefact.folder.name
    with pytest.raises(Unavailable, match="nobody answers"):
        facts_at(server.url)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The last line that it printed is told."""
    with (
        pytest.raises(EngineFailed, match=r"did not start; got .*no such"),
        serving(tmp_path / "x"),
    ):
        pass


@pytest.mark.parametrize("pair", [False, True], ids=["text", "pair"])
@pytest.mark.parametrize("tokens", [5, 8, 31, 32])
def test_a_text_has_just_the_tokens_asked_for(
    tokens: int, *, pair: bool, dense_artefact: Artefact
) -> None:
    """The tokenizer itself counts them, special ones included, and cuts nothing."""
    tokenizer = dense_artefact.tokenizer()

    row = row_of(tokenizer, tokens, pair=pair, random=np.random.default_rng(0))

    assert len(tokenizer.encode(*row.texts)) == tokens
    assert (len(row.texts), row.tokens.dropped) == (1 + pair, 0)


def test_no_text_has_fewer_tokens_than_the_special_ones(dense_artefact: Artefact) -> None:
    """A row of two tokens would hold no text."""
    with pytest.raises(BadSetting, match="no text was found of so many tokens; got --seq 2"):
        row_of(dense_artefact.tokenizer(), 2, pair=False, random=np.random.default_rng(0))


def test_pairs_are_asked_as_pairs(block_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Each row of a model of pairs has two texts and the logits that the bare engine gives it."""
    artefact = artefact_from_checkpoint(block_checkpoint, tmp_path / "pair")
    (arm,) = arms_of([artefact])
    with open_source(source_of(arm), SETTINGS) as session:
        work = workload_of(artefact, session, SHAPES, max_inputs=32, texts_per_request=32, seed=0)
        tolerance = tolerance_of(artefact, session)

    assert {len(texts) for one in work.mixed for texts in one.inputs} == {2}
    assert all(len(one.inputs) == len(one.expected) == 32 for one in work.offline)
    assert tolerance == artefact.manifest.parity.tolerance


def test_golden_texts_are_right_where_the_server_reads_windows(
    dense_artefact: Artefact, arms: tuple[Arm, ...]
) -> None:
    """Their logits are those of texts that were cut, so that is what the generator asks for."""
    with open_source(source_of(arms[0]), SETTINGS) as session:
        golden = golden_requests(dense_artefact, session)
    served = open_served(dense_artefact.folder, threads=1)
    assert any(row.dropped for row in map(dense_artefact.tokenizer().encode, texts_of(golden)))
    with listening(served, ServeSettings(long_texts="windows")) as server:
        for one in golden:
            body = json.dumps(body_of(one)).encode()
            (answer,) = server.say(request("POST", "/v1/classify", body=body))
            assert check(answer.body, one.expected, 1e-4).wrong == 0


def texts_of(requests: list[SampleRequest]) -> list[str]:
    return [text for one in requests for (text,) in one.inputs]
