"""What node times amount to, by arithmetic on made ones."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from spd_deploy.benchmark.layers.analysis import Analysis, analyse, total_of
from spd_deploy.benchmark.layers.layer_records import LayerProfile, NodeTime, Timeline, timeline_of
from spd_deploy.domain.errors import BadReport
from tests.benchmark.layers.made import DENSE, MS, OUTPUT, QUERY, SPARSE, profile, timeline


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    """Of a gathered matrix and one that runs dense."""
    return analyse(profile())


def test_a_matrix_is_split_into_what_is_done(analysis: Analysis) -> None:
    """Products, copies and passes are the sums of its nodes, less what timing each costs."""
    query, output = (m.gain for m in analysis.matrices)

    assert query.dense.products_s == pytest.approx(10 * MS)
    assert query.sparse.products_s == pytest.approx(3 * MS)
    assert query.sparse.copies_s == pytest.approx(1 * MS)
    assert output.sparse.passes_s == pytest.approx(2 * MS)
    assert output.sparse.copies_s == 0


def test_the_gain_is_held_against_the_promise(analysis: Analysis) -> None:
    """10 ms became 4 ms, where a density of 0.1 promised 1 ms and 0.2 of the FLOPs 2 ms."""
    gain = analysis.matrices[0].gain

    assert gain.speed_up == pytest.approx(2.5)
    assert gain.promise == pytest.approx(10)
    assert gain.rate == pytest.approx(2 / 3)


def test_a_loss_has_its_cause(analysis: Analysis) -> None:
    """Of the 3 ms lost by the gathered matrix each cause has 1; the dense one multiplies zeros."""
    query, output = (m.gain for m in analysis.matrices)

    assert query.losses == pytest.approx(
        {"zeros": 1 * MS, "rate": 1 * MS, "copies": 1 * MS, "passes": 0.0}
    )
    assert output.losses == pytest.approx(
        {"zeros": 10 * MS, "rate": 1 * MS, "copies": 0.0, "passes": 1 * MS}
    )


def test_losses_are_all_that_the_promise_lacks(analysis: Analysis) -> None:
    """They add up to the time taken less the time promised, for matrices and the model."""
    for gain in (*(m.gain for m in analysis.matrices), analysis.all_matrices):
        lost = gain.sparse.total_s - gain.promised.total_s
        assert sum(gain.losses.values()) == pytest.approx(lost)
    assert sum(analysis.losses.values()) == pytest.approx(analysis.sparse_s - analysis.promised_s)


def test_the_steps_lead_from_total_to_total(analysis: Analysis) -> None:
    """Parts add up to both totals, and what no part accounts for is the runtime's."""
    assert sum(s.dense_s for s in analysis.steps) == pytest.approx(50 * MS)
    assert sum(s.sparse_s for s in analysis.steps) == pytest.approx(45 * MS)
    changes = {s.name: s.change_s / MS for s in analysis.steps}
    assert changes == pytest.approx(
        {
            "products": -6.0,
            "gather copies": 1.0,
            "bias and residual": 0.0,
            "attention": 1.0,
            "normalisation": 1.0,
            "activation": 0.0,
            "embeddings and head": 0.0,
            "unattributed": 1.0,
            "runtime": -3.0,
        }
    )


def test_the_models_promise_is_amdahls(analysis: Analysis) -> None:
    """32 ms of matrices promise to become 12 ms, so 50 ms become 30 ms."""
    assert analysis.promised_s == pytest.approx(30 * MS)
    assert analysis.promise == pytest.approx(50 / 30)


def test_a_matrix_of_which_nothing_is_left_has_no_ratio() -> None:
    """No time is left, nothing is lost, and no number is made of a division by zero."""
    gone = replace(QUERY, density=0.0, flops_share=0.0)
    left = {key: s for key, s in SPARSE.items() if "/query/" not in key[0]}

    gain = analyse(profile(sparse=left, matrices=(gone, OUTPUT))).matrices[0].gain

    assert (gain.speed_up, gain.promise, gain.rate) == (None, None, None)
    assert set(gain.losses.values()) == {0.0}


def test_a_model_against_itself_gains_nothing() -> None:
    """Dense times on both sides are ratios of 1 and no losses."""
    same = tuple(replace(m, density=1.0, flops_share=1.0) for m in (QUERY, OUTPUT))
    analysis = analyse(profile(sparse=DENSE, matrices=same, sparse_s=50 * MS))

    assert [m.gain.speed_up for m in analysis.matrices] == pytest.approx([1, 1])
    assert list(analysis.losses.values()) == pytest.approx([0.0] * 10, abs=1e-12)
    assert analysis.speed_up.ratio == pytest.approx(1)


def test_several_matrices_are_one(analysis: Analysis) -> None:
    """The whole of one matrix twice has its ratios and twice its losses."""
    gain = analysis.matrices[0].gain
    twice = total_of([gain, gain])

    assert twice.speed_up == pytest.approx(gain.speed_up)
    assert twice.promise == pytest.approx(gain.promise)
    assert twice.losses["copies"] == pytest.approx(2 * gain.losses["copies"])


def test_rounds_are_put_together_by_node() -> None:
    """A node's rounds stand in order, one that is missing in a round has no time there."""
    first, second = (
        (NodeTime(name="a", op="Gemm", seconds=(1.0,)),),
        (
            NodeTime(name="b", op="Gemm", seconds=(3.0,)),
            NodeTime(name="a", op="Gemm", seconds=(2.0,)),
        ),
    )

    found = timeline_of([(1.0,), (1.0,)], [(1.0,), (1.0,)], [first, second])

    assert {n.name: n.seconds for n in found.nodes} == {"a": (1.0, 2.0), "b": (0.0, 3.0)}


WHOLE = timeline(DENSE, 50 * MS)
BROKEN: dict[str, Callable[[], Timeline | LayerProfile]] = {
    "one round": lambda: timeline(DENSE, 50 * MS, rounds=1),
    "no nodes": lambda: replace(WHOLE, nodes=()),
    "a round without runs": lambda: replace(WHOLE, runs=(WHOLE.runs[0], ())),
    "a run of no time": lambda: replace(WHOLE, runs=((0.0,), (1.0,))),
    "another number of rounds": lambda: replace(WHOLE, profiled=WHOLE.profiled[:1]),
    "a node of one round": lambda: Timeline(
        runs=WHOLE.runs,
        profiled=WHOLE.profiled,
        nodes=(NodeTime(name="a", op="Gemm", seconds=(1.0,)),),
    ),
    "a matrix twice": lambda: profile(matrices=(QUERY, QUERY)),
    "no matrix": lambda: profile(matrices=()),
    "other rounds": lambda: replace(profile(), dense=timeline(DENSE, 50 * MS, rounds=3)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_profile_that_does_not_fit_together_is_refused(what: str) -> None:
    """Missing rounds, runs that are no durations and matrices in one place raise BadReport."""
    with pytest.raises(BadReport):
        BROKEN[what]()
