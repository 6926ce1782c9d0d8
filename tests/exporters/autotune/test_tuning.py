"""Choosing by measurement: which products are timed, and what their times decide."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from exporters.autotune.select import choose_lowerings
from exporters.autotune.tune import TuningPlan, distinct_products, tune
from exporters.autotune.tuning import ProductTimes, TimedProduct, Times, Tuning, fastest_tuning
from exporters.classifier_weights import ClassifierWeights, read_weights
from exporters.lowering.candidates import candidates_of
from exporters.precision import Precision
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.patterns import Block, Structured
from spd_deploy.domain.shapes import Shape
from spd_deploy.timing.host_clock import TimingSettings
from spd_deploy.timing.interleaved import Opener
from tests.tiny import tiny_checkpoint

BLOCKS = Block(rows=16, columns=1, sparsity=0.75)
SHAPES = (Shape(batch=1, seq=8), Shape(batch=2, seq=16))
# Seconds of each lowering at each shape.
Speeds = Mapping[LoweringName, tuple[float, ...]]
WINS: Speeds = {"dense": (2e-3, 8e-3), "compact": (2e-3, 8e-3), "gathered": (1e-3, 2e-3)}
LOSES: Speeds = {"dense": (2e-3, 8e-3), "compact": (2e-3, 8e-3), "gathered": (4e-3, 8e-3)}


def times(speeds: Speeds, lowerings: tuple[LoweringName, ...]) -> Times:
    """Times with three rounds around each speed."""
    return Times(
        seconds={name: tuple((1.1 * s, s, 0.9 * s) for s in speeds[name]) for name in lowerings}
    )


def tuned(
    checkpoint: Checkpoint, weights: ClassifierWeights, speeds: Speeds, network: Speeds | None
) -> Tuning:
    """A tuning made of numbers instead of measurements, the same for all products."""
    distinct = distinct_products(
        candidates_of(checkpoint, weights), last=checkpoint.encoder.layers - 1
    )
    return Tuning(
        checkpoint_sha256=checkpoint.weights_sha256,
        machine="Test CPU",
        threads=2,
        shapes=SHAPES,
        products=tuple(
            ProductTimes(product=product, times=times(speeds, tuple(candidates.lowerings)))
            for product, candidates in distinct.items()
        ),
        network=None if network is None else times(network, ("dense", "gathered")),
    )


def test_products_are_timed_once(blocks: tuple[Checkpoint, ClassifierWeights]) -> None:
    """Matrices of one size that keep as many inputs, on as many tokens, are one product."""
    checkpoint, weights = blocks

    found = distinct_products(candidates_of(checkpoint, weights), last=2)

    expected = set()
    for matrix in checkpoint.encoder.matrices():
        N, K = matrix.shape
        groups = weights.of(matrix).reshape(N // 16, 16, K)
        kept = max(int(np.count_nonzero(group.any(0))) for group in groups)
        first = matrix.layer == 2 and matrix.role not in ("key", "value")
        expected.add((matrix.shape, kept, first))
    assert len(expected) == 7
    assert {(p.shape, p.kept, p.first) for p in found} == expected
    assert len(found) == len(expected)
    assert {(p.left == p.shape, p.block) for p in found} == {(True, "block:16x1")}


def test_dense_models_have_nothing_to_time(dense_checkpoint: Checkpoint) -> None:
    """Where each matrix can only be run dense, there is no product to compare."""
    weights = read_weights(dense_checkpoint)

    assert not distinct_products(candidates_of(dense_checkpoint, weights), last=1)


def test_what_loses_is_not_used(blocks: tuple[Checkpoint, ClassifierWeights]) -> None:
    """Times that say that gathering loses make all dense, with the shapes in the reason."""
    checkpoint, weights = blocks

    found = choose_lowerings(checkpoint, weights, tuned(checkpoint, weights, LOSES, None))

    for choice in found.values():
        assert choice.lowering.name == "dense"
        assert choice.reason == (
            "dense: gathered was measured at 0.7x the dense speed (0.5x at 1x8, 1.0x at 2x16)"
        )
        assert [one.gain for one in choice.measured] == [1.0, 1.0]


def test_what_wins_is_used(blocks: tuple[Checkpoint, ClassifierWeights]) -> None:
    """Times that say that gathering wins are believed, against the cost model too."""
    checkpoint, weights = blocks
    assert "dense" in {c.lowering.name for c in choose_lowerings(checkpoint, weights).values()}

    found = choose_lowerings(checkpoint, weights, tuned(checkpoint, weights, WINS, WINS))

    for choice in found.values():
        assert choice.lowering.name == "gathered"
        assert "measured at 2.8x the dense speed (2.0x at 1x8, 4.0x at 2x16)" in choice.reason
        assert [one.gain for one in choice.measured] == pytest.approx([2.0, 4.0])


def test_a_network_that_loses_is_dense(blocks: tuple[Checkpoint, ClassifierWeights]) -> None:
    """Products that win alone are not used where the whole network is slower with them."""
    checkpoint, weights = blocks

    found = choose_lowerings(checkpoint, weights, tuned(checkpoint, weights, WINS, LOSES))

    for choice in found.values():
        assert choice.lowering.name == "dense"
        assert "gathered was measured at 2.8x" in choice.reason
        assert "whole network with gathered matrices at 0.7x the dense speed" in choice.reason


def test_one_product_alone_can_lose(blocks: tuple[Checkpoint, ClassifierWeights]) -> None:
    """The times of a product decide for its own matrices."""
    checkpoint, weights = blocks
    name = "bert.encoder.layer.1.attention.self.key"
    odd = TimedProduct.of(candidates_of(checkpoint, weights)[name], last=2)
    tuning = tuned(checkpoint, weights, WINS, WINS)
    lost = ProductTimes(product=odd, times=times(LOSES, ("dense", "gathered")))
    products = tuple(lost if known.product == odd else known for known in tuning.products)

    found = choose_lowerings(checkpoint, weights, replace(tuning, products=products))

    assert [m for m, choice in found.items() if choice.lowering.name == "dense"] == [name]


def test_dead_neurons_go_whatever_is_measured(tmp_path: Path) -> None:
    """A structured matrix stays compact, and its row holds the times of the dense one beside it."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=Structured(sparsity=0.5))
    weights = read_weights(checkpoint)
    tuning = tuned(checkpoint, weights, {**WINS, "compact": (1e-3, 1e-3)}, None)

    for choice in choose_lowerings(checkpoint, weights, tuning).values():
        assert choice.lowering.name == "compact"
        assert [one.gain for one in choice.measured] == pytest.approx([2.0, 8.0])


def test_reasons_name_the_lowering_that_is_used(tmp_path: Path) -> None:
    """Where gathering loses, by times or by the cost model, a row that is compact says compact."""
    narrow = Block(rows=2, columns=1, sparsity=0.5)  # of which the cost model promises nothing
    checkpoint = without_neurons(tiny_checkpoint(tmp_path / "c", pattern=narrow))
    weights = read_weights(checkpoint)
    slower: Speeds = {**LOSES, "compact": (3e-3, 9e-3)}
    tuning = tuned(checkpoint, weights, slower, None)
    layer = "bert.encoder.layer.0"
    left = "64 of 128 neurons are left; "

    for tunings, text in ((tuning, "x the {} speed ("), (None, "x the {} speed for gathered")):
        found = choose_lowerings(checkpoint, weights, tunings)
        compact, dense = found[f"{layer}.output.dense"], found[f"{layer}.attention.self.key"]
        assert (compact.lowering.name, dense.lowering.name) == ("compact", "dense")
        assert compact.reason.startswith(left)
        assert text.format("compact") in compact.reason
        assert text.format("dense") in dense.reason
    timed = choose_lowerings(checkpoint, weights, tuning)[f"{layer}.output.dense"]
    assert [one.gain for one in timed.measured] == pytest.approx([2 / 3, 8 / 9])


def test_a_tuning_comes_back_as_it_went(blocks: tuple[Checkpoint, ClassifierWeights]) -> None:
    """Through JSON text nothing is lost, with and without times of the whole network."""
    for network in (None, WINS):
        tuning = replace(tuned(*blocks, WINS, network), doubts=("the machine was busy",))

        assert Tuning.from_json(json.loads(json.dumps(tuning.to_json()))) == tuning


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema"),
        ({"schema": None}, "schema"),
        ({"threads": "two"}, "threads"),
        ({"shapes": []}, "do not fit"),
        ({"products": [{"product": {}}]}, "products.0"),
        ({"network": {"seconds": {"dense": [[0.0], [1.0]]}}}, "not positive"),
        ({"network": {"seconds": {"gathered": [[1.0], [1.0]]}}}, "missing"),
    ],
    ids=str,
)
def test_a_damaged_tuning_is_refused(
    blocks: tuple[Checkpoint, ClassifierWeights], change: dict[str, Any], said: str
) -> None:
    """Another schema, or a value that is none, is an error that names it."""
    value = json.loads(json.dumps(tuned(*blocks, WINS, WINS).to_json()))

    with pytest.raises(BadReport, match=said):
        Tuning.from_json({**value, **change})


def test_times_of_other_weights_are_refused(
    blocks: tuple[Checkpoint, ClassifierWeights], block_checkpoint: Checkpoint
) -> None:
    """A tuning says for which checkpoint it holds, and one without a product is no tuning of it."""
    checkpoint, weights = blocks
    tuning = tuned(checkpoint, weights, WINS, WINS)

    with pytest.raises(BadReport, match="other weights"):
        choose_lowerings(block_checkpoint, read_weights(block_checkpoint), tuning)
    with pytest.raises(BadReport, match="lacks a product"):
        choose_lowerings(checkpoint, weights, replace(tuning, products=tuning.products[1:]))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, dict[str, Any]]:
    """A checkpoint that lacks neurons and has blocks, with a ``tuning.json`` that was measured."""
    checkpoint = tiny_checkpoint(tmp_path_factory.mktemp("measured") / "c", pattern=BLOCKS)
    checkpoint = without_neurons(checkpoint)
    timing = TimingSettings(seconds=1e-6, rounds=1, warmup_runs=1, min_runs=1)
    plan = TuningPlan(shapes=SHAPES, threads=1, machine="here", timing=timing)
    (found,) = tune(checkpoint, read_weights(checkpoint), [plan])
    return checkpoint, json.loads(json.dumps(found.to_json()))


def without_neurons(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with half of a layer's neurons gone."""
    weights = load_file(checkpoint.weights)
    weights["bert.encoder.layer.0.intermediate.dense.weight"][:64] = 0
    weights["bert.encoder.layer.0.output.dense.weight"][:, :64] = 0
    save_file(weights, checkpoint.weights, metadata={"format": "pt"})
    return replace(checkpoint, weights_sha256=sha256_of(checkpoint.weights))


def told_to_win(value: dict[str, Any]) -> dict[str, Any]:
    """The tuning with times under which gathering wins, whatever this machine measured."""
    value = copy.deepcopy(value)
    networks = [value["network"]]
    networks[0]["seconds"].setdefault("gathered", [[1.0]] * len(SHAPES))
    for times in (*(known["times"] for known in value["products"]), *networks):
        for lowering, shapes in times["seconds"].items():
            times["seconds"][lowering] = [[1.0 if lowering == "gathered" else 2.0]] * len(shapes)
    return value


@pytest.mark.parametrize("lowering", ["compact", "gathered"])
@pytest.mark.parametrize("where", ["product", "network"])
def test_a_tuning_that_lacks_a_lowering_is_refused(
    measured: tuple[Checkpoint, dict[str, Any]], lowering: str, where: str
) -> None:
    """A file that lacks a lowering of a product or of the network is an error that names it."""
    checkpoint, value = measured
    weights = read_weights(checkpoint)
    whole = told_to_win(value)
    choose_lowerings(checkpoint, weights, Tuning.from_json(whole))
    timed = [known["times"]["seconds"] for known in whole["products"]]
    edited = timed if where == "product" else [whole["network"]["seconds"]]
    for seconds in edited:
        seconds.pop(lowering, None)

    with pytest.raises(
        BadReport, match=f"lacks times of .* {lowering}; got times of dense.*--tune"
    ):
        choose_lowerings(checkpoint, weights, Tuning.from_json(whole))


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_a_network_is_tuned_in_openvino(
    blocks: tuple[Checkpoint, ClassifierWeights], precision: Precision
) -> None:
    """Products and networks have times there, and what is written down names the runtime."""
    timing = TimingSettings(seconds=1e-6, rounds=1, warmup_runs=1, min_runs=1)
    plan = TuningPlan(
        shapes=SHAPES, threads=1, machine="here", precision=precision, runtime="openvino",
        timing=timing,
    )  # fmt: skip

    (found,) = tune(*blocks, [plan])

    assert (found.runtime, found.precision) == ("openvino", precision)
    assert found.where == "here, 1 thread, openvino"
    assert found.network is not None
    assert {"dense"} <= set(found.network.seconds)
    assert Tuning.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_networks_of_all_runtimes_take_turns(
    blocks: tuple[Checkpoint, ClassifierWeights], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared is timed in the same rounds; products with their own lowerings only."""
    together: list[tuple[str, ...]] = []

    def remembered(openers: Mapping[str, Opener], shapes: object, timing: object) -> object:
        together.append(tuple(openers))
        return {name: ((2.0 - ("gathered" in name),),) * len(SHAPES) for name in openers}

    monkeypatch.setattr("exporters.autotune.tune.time_interleaved", remembered)
    plan = TuningPlan(shapes=SHAPES, threads=1, machine="here")

    found = tune(*blocks, [plan, replace(plan, runtime="openvino")])

    assert [one.runtime for one in found] == ["onnxruntime", "openvino"]
    assert set(together[:-1]) == {("dense", "gathered")}
    assert together[-1] == tuple(
        f"{lowering} in {runtime}"
        for runtime in ("onnxruntime", "openvino")
        for lowering in ("dense", "gathered")
    )
    assert [one.network and one.network.chosen for one in found] == ["gathered", "gathered"]


def test_the_runtime_of_the_fastest_network_is_tuned_for(
    blocks: tuple[Checkpoint, ClassifierWeights],
) -> None:
    """Each counts as it would be chosen, and the second must win by more than noise."""
    slow: Speeds = {"dense": (2e-3, 9e-3), "gathered": (1e-3, 4e-3)}
    quick: Speeds = {"dense": (1e-3, 3e-3), "gathered": (9e-3, 9e-3)}
    first = tuned(*blocks, WINS, slow)
    second = replace(tuned(*blocks, WINS, quick), runtime="openvino")

    assert (first.network_seconds, second.network_seconds) == ((1e-3, 4e-3), (1e-3, 3e-3))
    assert fastest_tuning([first, second]) is second
    barely = tuned(*blocks, WINS, {"dense": (1e-3, 3.9e-3), "gathered": (9e-3, 9e-3)})
    assert fastest_tuning([first, replace(barely, runtime="openvino")]) is first
    assert (
        fastest_tuning([replace(first, network=None), replace(second, network=None)]).network
        is None
    )
