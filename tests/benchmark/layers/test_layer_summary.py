"""What is said of made profiles, and the bars of the waterfall."""

import re
from dataclasses import replace

import pytest

from spd_deploy.benchmark.layers.analysis import analyse
from spd_deploy.benchmark.layers.layer_summary import (
    analysis_to_json,
    explanation_of,
    lost_to,
    notes_of,
    promise_of,
    statement_of,
    verdict_of,
)
from spd_deploy.benchmark.layers.layer_tables import bars_of, matrix_table, waterfall_lines
from spd_deploy.benchmark.records import Shape
from tests.benchmark.layers.made import DENSE, MS, OUTPUT, QUERY, SPARSE, profile

ANALYSIS = analyse(profile())
SAME = analyse(
    profile(
        sparse=DENSE,
        matrices=tuple(replace(m, density=1.0, flops_share=1.0) for m in (QUERY, OUTPUT)),
        sparse_s=50 * MS,
    )
)


def test_a_gathered_matrix_is_told_its_three_losses() -> None:
    """2.5x of 10x, with a third of what is missing in zeros, slow products and copies each."""
    said = verdict_of(ANALYSIS.matrices[0])

    assert said.startswith("2.5x of 10x promised, lost to ")
    for loss in (
        "multiplying zeros (33 %)",
        "products at 67 % of the dense rate (33 %)",
        "copying the kept inputs together (33 %)",
    ):
        assert loss in said


def test_a_matrix_that_runs_dense_is_told_why() -> None:
    """It multiplies its zeros, and the exporter's reason stands behind."""
    matrix = ANALYSIS.matrices[1]

    assert verdict_of(matrix) == (
        "0.96x of 2x promised, lost to multiplying zeros (83 %); no kernel skips its zeros"
    )
    assert lost_to(matrix.gain) == "zeros 83 %"


def test_a_kept_promise_is_said_to_be_kept() -> None:
    """1 ms of the dense 10 ms is what a density of 0.1 promises."""
    fast = {**SPARSE, ("layer.0/attention/query/Conv", "Conv"): 1 * MS}
    del fast["layer.0/attention/query/Gather", "Gather"]

    query = analyse(profile(sparse=fast)).matrices[0]

    assert verdict_of(query) == "10.0x of 10x promised: it keeps its promise"
    assert lost_to(query.gain) == "none: as promised"


def test_a_promise_that_is_exceeded_is_said_to_be() -> None:
    """0.5 ms of the dense 10 ms is twice what a density of 0.1 promises; nothing was lost."""
    fast = {**SPARSE, ("layer.0/attention/query/Conv", "Conv"): 0.5 * MS}
    del fast["layer.0/attention/query/Gather", "Gather"]

    query = analyse(profile(sparse=fast)).matrices[0]

    assert promise_of(query.gain) == "20.0x, 10x promised"
    assert lost_to(query.gain) == "none: faster than promised"
    assert verdict_of(query) == "20.0x, 10x promised: faster than its density promises"


def test_a_model_that_exceeds_its_promise_is_not_said_to_keep_it() -> None:
    """The densities promise 30 ms of the baseline's 50; a run of 25 ms is faster than that."""
    quick = {node: seconds / 2 for node, seconds in SPARSE.items()}

    said = explanation_of(analyse(profile(sparse=quick, sparse_s=25 * MS)))

    assert said.endswith("it is faster than that")


def test_dense_weights_promise_nothing() -> None:
    """Neither the matrix nor the model is said to have lost anything."""
    assert lost_to(SAME.matrices[0].gain) == "-"
    assert promise_of(SAME.matrices[0].gain) == "1.00x"
    assert explanation_of(SAME) == "Its matrices have no zeros that promise a gain"
    assert statement_of(SAME).endswith("no difference shown, 1.00x [1.00, 1.00]")


def test_a_matrix_that_is_gone_is_said_to_be_gone() -> None:
    """There is no ratio to print."""
    left = {key: s for key, s in SPARSE.items() if "/query/" not in key[0]}
    none = replace(QUERY, density=0.0, flops_share=0.0)
    (query, _) = analyse(profile(sparse=left, matrices=(none, OUTPUT))).matrices

    assert verdict_of(query) == "nothing of it is left to run"
    assert promise_of(query.gain) == "gone"


def test_what_is_too_short_to_be_timed_is_not_called_gone() -> None:
    """A product that takes no longer than timing it does has no speed-up, on either side."""
    short = {**SPARSE, ("layer.0/attention/query/Conv", "Conv"): 0.0}
    del short["layer.0/attention/query/Gather", "Gather"]
    start = {**DENSE, ("layer.0/attention/query/Gemm", "Gemm"): 0.0}

    for found in (analyse(profile(sparse=short)), analyse(profile(dense=start))):
        assert verdict_of(found.matrices[0]).startswith("too short to be timed")
        assert promise_of(found.matrices[0].gain) == "too short"


def test_the_model_is_told_its_largest_losses() -> None:
    """Of 15 ms that the promise lacks, 11 ms are zeros; the smaller ones are left to the table."""
    assert statement_of(ANALYSIS) == (
        "45.0 ms against 50.0 ms of its dense baseline at 1x16 in onnxruntime 1.24.0, fp32: "
        "faster, 1.11x [1.11, 1.11]"
    )
    assert explanation_of(ANALYSIS).endswith(
        "it would be 1.67x; lost most to multiplying zeros (11.0 ms) and "
        "products at 92 % of the dense rate (2.00 ms)"
    )


def test_operators_longer_than_their_run_are_not_explained() -> None:
    """Nodes of 36 ms in a run of 20 ms come from an unsteady machine, and that is said."""
    found = analyse(profile(sparse_s=20 * MS))

    assert not found.steady
    assert "the machine was not steady" in explanation_of(found)


def test_busy_machines_are_doubted() -> None:
    """Other processes on the cores are told; a quiet machine has one note alone."""
    busy = notes_of(analyse(profile(others_cores=1.5)))

    assert len(notes_of(ANALYSIS)) == 1
    assert "1.50x and 1.50x as long" in busy[0]
    assert busy[1].startswith("caveat: other processes kept 1.5 cores busy")


def test_each_bar_begins_where_the_last_one_ended() -> None:
    """From the dense baseline's total down to the model's, and parts without time have no bar."""
    bars = bars_of(ANALYSIS)
    at_s = bars[0].high_s
    for bar in bars[1:]:
        assert bar.begin_s == pytest.approx(at_s)
        at_s += bar.change_s or 0.0

    assert at_s == pytest.approx(45 * MS)
    assert [bars[0].high_s, bars[-1].high_s] == pytest.approx([50 * MS, 45 * MS])
    assert "unattributed" in [bar.name for bar in bars]
    assert "unattributed" not in [bar.name for bar in bars_of(SAME)]


def test_the_waterfall_is_drawn_to_scale() -> None:
    """40 characters are 50 ms, so 45 ms are 36, and 6 ms gained hang as 5 below the end."""
    lines = waterfall_lines(ANALYSIS)

    assert re.search(r"dense baseline .*  █{40}$", lines[1])
    assert re.search(r"products .*-6\.00 {37}░{5}$", lines[2])
    assert re.search(r"block .*  █{36}$", lines[-1])


def test_matrices_of_a_role_are_one_row_where_they_run_alike() -> None:
    """Two layers are summed; a layer that runs otherwise has a row of its own."""
    second = {
        **SPARSE,
        **{(n.replace("layer.0", "layer.1"), op): s for (n, op), s in SPARSE.items() if "r.0" in n},
    }
    alike = (QUERY, replace(QUERY, layer=1, name="bert.encoder.layer.1.attention.self.query"))
    other = (QUERY, replace(alike[1], lowering="dense", reason="excluded"))

    summed = matrix_table(
        analyse(profile(sparse=second, matrices=alike)), every=False, marks={QUERY.reason: "a"}
    )
    apart = matrix_table(analyse(profile(sparse=second, matrices=other)), every=False, marks={})

    assert [row[0] for row in summed.rows] == ["query", "all matrices"]
    assert summed.rows[0][3:6] == ("gathered a", "10.0", "8.00")
    assert [row[0] for row in apart.rows] == ["query x1", "query x1", "all matrices"]
    assert apart.rows[-1][3] == "mixed"


@pytest.mark.parametrize(
    ("batch", "threads", "said"),
    [(1, 2, False), (3, 2, False), (8, 1, False), (8, 2, True), (8, None, True)],
)
def test_a_batch_that_would_be_shared_out_is_noted(
    batch: int, threads: int | None, said: bool
) -> None:
    """Where serving shares rows out among threads, it is said that operators were timed whole."""
    found = analyse(replace(profile(), shape=Shape(batch=batch, seq=128), threads=threads))

    assert ("Operators are timed on whole batches" in explanation_of(found)) == said


def test_what_ran_it_is_named() -> None:
    """Runtime and precision stand in the statement, the title and the notes, and for programs."""
    where = "onnxruntime 1.24.0, fp32"

    assert f"in {where}: " in statement_of(ANALYSIS)
    for every in (False, True):
        assert matrix_table(ANALYSIS, every=every, marks={}).title.endswith(f"; {where}")
    assert notes_of(ANALYSIS)[0].startswith(f"{where}, 2 threads; ")
    assert (analysis_to_json(ANALYSIS)["measured_in"], analysis_to_json(ANALYSIS)["served"]) == (
        where,
        None,
    )


def test_an_artefact_that_is_served_otherwise_is_said_to_be() -> None:
    """Its own runtime and precision are named, in the statement and in the notes."""
    found = analyse(replace(profile(), served="openvino, bf16"))

    assert statement_of(found).endswith(
        "; it is served with openvino, bf16, which was not profiled"
    )
    assert "as it is served, with openvino, bf16" in notes_of(found)[1]
    assert "served with" not in statement_of(ANALYSIS)
