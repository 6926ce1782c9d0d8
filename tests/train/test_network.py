"""The grafted network against transformers and against mixtures made by hand."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from spd_train.config import GraftUnit
from spd_train.data.batching import TensorBatch
from spd_train.grafting import GraftedNetwork, draw_graft
from tests.tiny import tiny_model
from tests.train.runs import TASK, batch, grafted, shaken

ARCHITECTURES = ("bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2")
every_unit = pytest.mark.parametrize("unit", ["layer", "sublayer"])
both_attentions = pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "fused"])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture: str = request.param
    place = tmp_path_factory.mktemp("network") / "m"
    return tiny_model(place, architecture=architecture, task=TASK, hidden=32, intermediate=64)


@pytest.fixture
def network(folder: Path) -> GraftedNetwork:
    return grafted(folder)


def plain(folder: Path) -> PreTrainedModel:
    """The model as transformers runs it."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    return model.train(mode=False)  # type: ignore[no-any-return]


def logits(model: PreTrainedModel, rows: TensorBatch) -> torch.Tensor:
    """What a plain model answers."""
    with torch.no_grad():
        return model(**rows.model_inputs(model.config)).logits  # type: ignore[no-any-return]


def rows_for(network: GraftedNetwork, *lengths: int) -> TensorBatch:
    """Rows padded as the model's tokenizer would."""
    return batch(*lengths, pad_id=network.model.config.pad_token_id)


@every_unit
@both_attentions
def test_no_student_in_place_is_the_teacher_bit_for_bit(
    folder: Path, unit: GraftUnit, recorded: bool
) -> None:
    """At probability 0 the grafted network gives the teacher's logits, even in training mode."""
    network = grafted(folder, unit=unit, attention=recorded)
    rows = rows_for(network, 9, 4, 7)
    expected = network.teacher_forward(rows).logits_BC

    shaken(network).train().graft_all(False)

    assert torch.equal(network(rows).logits_BC, expected)
    torch.testing.assert_close(expected, logits(plain(folder), rows))


@every_unit
@both_attentions
def test_every_student_in_place_is_the_student(
    folder: Path, unit: GraftUnit, recorded: bool
) -> None:
    """At probability 1 the network gives what a plain model with the student's state gives."""
    network = shaken(grafted(folder, unit=unit, attention=recorded))
    network.graft_all(True)
    rows = rows_for(network, 9, 4, 7)
    student = plain(folder)
    student.load_state_dict(network.student_state())

    found = network(rows).logits_BC

    torch.testing.assert_close(found.detach(), logits(student, rows))
    assert not torch.allclose(found, network.teacher_forward(rows).logits_BC, atol=1e-3)


@every_unit
def test_each_unit_switched_alone_is_a_mixture_made_by_hand(folder: Path, unit: GraftUnit) -> None:
    """With one unit in place the network is a plain teacher that has that unit's weights alone."""
    network = shaken(grafted(folder, unit=unit))
    encoder, rows = network.encoder, rows_for(network, 9, 4, 7)
    assert len(network.units) == encoder.layers * (2 if unit == "sublayer" else 1)
    students = dict(network.student_parameters())
    seen: set[str] = set()
    for i in range(len(network.units)):
        layer = i // 2 if unit == "sublayer" else i
        in_feed_forward = {n: _of_feed_forward(n) for n in students if f".{layer}." in n}
        mine = [
            name
            for name, second in in_feed_forward.items()
            if unit == "layer" or second == bool(i % 2)
        ]
        mixture = copy.deepcopy(plain(folder))
        state = {
            n: students[n].detach() if n in mine else v for n, v in mixture.state_dict().items()
        }
        mixture.load_state_dict(state)
        network.graft([j == i for j in range(len(network.units))])

        with torch.no_grad():
            torch.testing.assert_close(network(rows).logits_BC, logits(mixture, rows))
        seen |= set(mine)
    assert seen == set(students)


def _of_feed_forward(name: str) -> bool:
    """Whether a tensor of a layer belongs to its feed-forward part, by its name's next word."""
    inside = name.split(".layer.")[1].split(".")[1]
    return inside not in ("attention", "sa_layer_norm")


def test_the_trace_is_what_transformers_computes(network: GraftedNetwork, folder: Path) -> None:
    """Hidden states and attention probabilities are transformers' own, layer by layer."""
    rows = rows_for(network, 9, 4)

    found = network.teacher_forward(rows)

    model = plain(folder)
    theirs = model(
        **rows.model_inputs(model.config), output_hidden_states=True, output_attentions=True
    )
    torch.testing.assert_close(found.hidden_BSH, theirs.hidden_states[1:])
    torch.testing.assert_close(found.attention_BASS, theirs.attentions)


def test_a_trace_holds_no_more_than_was_wanted(folder: Path) -> None:
    """Fused attention records no probabilities, and hidden states are left out where unwanted."""
    network = grafted(folder, attention=False, hidden=False)

    found = network.teacher_forward(rows_for(network, 9, 4))

    assert found.attention_BASS == () and found.hidden_BSH == ()


def test_fused_and_recorded_attention_agree(folder: Path) -> None:
    """Logits, hidden states and the students' gradients are the same within rounding."""
    found = []
    for recorded in (True, False):
        network = shaken(grafted(folder, attention=recorded))
        trace = network(rows_for(network, 9, 4, 7))
        trace.logits_BC.square().sum().backward()
        gradients = [p.grad for _, p in network.student_parameters() if p.grad is not None]
        assert gradients
        found.append((trace.logits_BC, trace.hidden_BSH[-1][0], gradients))

    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@every_unit
def test_only_students_are_trained(folder: Path, unit: GraftUnit) -> None:
    """Gradients reach the students in place and nothing else."""
    network = grafted(folder, unit=unit).train()
    network.graft([i == 0 for i in range(len(network.units))])

    network(rows_for(network, 5, 5)).logits_BC.sum().backward()

    reached = {name for name, p in network.student_parameters() if p.grad is not None}
    assert reached and all(".layer.0." in name for name in reached)
    if unit == "sublayer":
        assert not any(_of_feed_forward(name) for name in reached)
    students = {id(p) for _, p in network.student_parameters()}
    frozen = [p for p in network.parameters() if id(p) not in students]
    assert frozen and all(p.grad is None and not p.requires_grad for p in frozen)


def test_attention_is_recorded_before_dropout(network: GraftedNetwork) -> None:
    """With dropout on, each recorded row of probabilities still adds up to one."""
    network.train().graft_all(True)

    found = network(rows_for(network, 9, 9))

    for probability_BASS in found.attention_BASS:
        torch.testing.assert_close(probability_BASS.sum(-1), torch.ones(2, 4, 9))


def test_teaching_leaves_the_graft_as_it_was(network: GraftedNetwork) -> None:
    """The teacher's pass puts back what was in place."""
    network.graft([True, False])

    network.teacher_forward(rows_for(network, 5))

    assert [u.student_in_place for u in network.units] == [True, False]


def test_the_graft_is_drawn_from_seed_and_step() -> None:
    """The same seed and step draw the same layers, and the share is the probability."""
    draws = [draw_graft(12, 0.8, seed=3, step=s) for s in range(500)]

    assert draws == [draw_graft(12, 0.8, seed=3, step=s) for s in range(500)]
    assert sum(map(sum, draws)) / 6000 == pytest.approx(0.8, abs=0.02)
    assert draw_graft(12, 1.0, seed=0, step=0) == [True] * 12
    assert draw_graft(12, 0.0, seed=0, step=0) == [False] * 12
