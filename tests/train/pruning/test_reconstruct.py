"""Kept weights solved again: against exact solutions row by row, and on a tiny network."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_train.data.batching import TensorBatch
from spd_train.grafting import GraftedNetwork
from spd_train.pruning.calibration import (
    Calibration,
    evaluation_mode,
    first_layer_inputs,
)
from spd_train.pruning.importance import magnitudes
from spd_train.pruning.input_moments import input_moments
from spd_train.pruning.masks import masks_of, targets_of
from spd_train.pruning.reconstruct import RIDGE, Moments, moments_of, reconstruct, solve_kept
from spd_train.pruning.sensitivity import sensitivity_targets
from tests.tiny import tiny_model
from tests.train.runs import FP32, TASK, batch, grafted

N, K, T = 8, 16, 400
PATTERNS: list[Pattern] = [
    Unstructured(sparsity=0.7),
    NM(n=2, m=4),
    Block(rows=4, columns=1, sparsity=0.75),
    Structured(sparsity=0.5, axis=1, width=2),
]
every_pattern = pytest.mark.parametrize("pattern", PATTERNS, ids=repr)


def flow(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Correlated inputs, targets of another matrix on other inputs, and weights to start from."""
    draw = torch.Generator().manual_seed(seed)
    mix_KK = torch.eye(K) + torch.randn(K, K, generator=draw) / K**0.5
    x_TK = torch.randn(T, K, generator=draw) @ mix_KK + 0.5
    weight_NK = torch.randn(N, K, generator=draw)
    bent_TK = x_TK + 0.1 * torch.randn(T, K, generator=draw)
    return x_TK, bent_TK @ weight_NK.T + torch.randn(N, generator=draw), weight_NK


def error(x_TK: Tensor, y_TN: Tensor, weight_NK: Tensor, bias_N: Tensor) -> float:
    """Mean squared error."""
    return float((x_TK @ weight_NK.T + bias_N - y_TN).square().mean())


@every_pattern
@pytest.mark.parametrize("seed", range(3))
def test_each_row_is_the_exact_proximal_solution(pattern: Pattern, seed: int) -> None:
    """Solved row by row by elimination, over the inputs that its mask keeps, it is the same."""
    x_TK, y_TN, start_NK = flow(seed)
    mask_NK = pattern.mask(start_NK.square(), pattern.sparsity)

    weight_NK, bias_N = solve_kept(moments_of(iter([(x_TK, y_TN)])), mask_NK, start_NK)

    x, y = (x_TK - x_TK.mean(0)).double(), (y_TN - y_TN.mean(0)).double()
    inputs_KK, cross_NK = x.T @ x / T, y.T @ x / T
    pull = RIDGE * inputs_KK.diagonal().mean()
    for n in range(N):
        kept = mask_NK[n].nonzero()[:, 0]
        left = inputs_KK[kept][:, kept] + pull * torch.eye(len(kept))
        exact = torch.linalg.solve(left, cross_NK[n, kept] + pull * start_NK[n, kept])
        torch.testing.assert_close(weight_NK[n, kept].double(), exact, atol=1e-2, rtol=1e-2)
    assert not weight_NK[~mask_NK].any()
    torch.testing.assert_close(bias_N, y_TN.mean(0) - weight_NK @ x_TK.mean(0))


@every_pattern
@pytest.mark.parametrize("seed", range(3))
def test_solving_is_never_worse_than_masking(pattern: Pattern, seed: int) -> None:
    """Its error is below that of the masked start with the best bias, by a good part."""
    x_TK, y_TN, start_NK = flow(seed)
    mask_NK = pattern.mask(start_NK.square(), pattern.sparsity)

    weight_NK, bias_N = solve_kept(moments_of(iter([(x_TK, y_TN)])), mask_NK, start_NK)

    masked_NK = start_NK * mask_NK
    best_N = (y_TN - x_TK @ masked_NK.T).mean(0)
    before = error(x_TK, y_TN, masked_NK, best_N)
    assert error(x_TK, y_TN, weight_NK, bias_N) < 0.9 * before


def test_a_full_mask_gives_the_start_back() -> None:
    """Where the target is the start's own output nothing is to be gained."""
    x_TK, _, start_NK = flow()
    bias_N = torch.arange(float(N))

    weight_NK, found_N = solve_kept(
        moments_of(iter([(x_TK, x_TK @ start_NK.T + bias_N)])),
        torch.ones(N, K, dtype=torch.bool),
        start_NK,
    )

    torch.testing.assert_close(weight_NK, start_NK, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found_N, bias_N, atol=1e-2, rtol=1e-2)


def test_inputs_that_never_vary_leave_the_masked_start() -> None:
    """Without variance there is nothing to fit but the bias, and nothing that is no number."""
    _, _, start_NK = flow()
    mask_NK = NM(n=2, m=4).mask(start_NK.square(), 0.5)
    x_TK, y_TN = torch.full((T, K), 0.5), torch.full((T, N), 3.0)

    weight_NK, bias_N = solve_kept(moments_of(iter([(x_TK, y_TN)])), mask_NK, start_NK)

    torch.testing.assert_close(weight_NK, start_NK * mask_NK)
    torch.testing.assert_close(x_TK @ weight_NK.T + bias_N, y_TN)


def test_moments_are_covariances_whatever_the_batches() -> None:
    """Batch by batch they are those of all tokens at once."""
    x_TK, y_TN, _ = flow()

    found = moments_of(
        iter([(x_TK[:7], y_TN[:7]), (x_TK[7:300], y_TN[7:300]), (x_TK[300:], y_TN[300:])])
    )

    both = torch.cov(torch.cat([x_TK, y_TN], 1).T, correction=0)
    expected = Moments(
        inputs_KK=both[:K, :K], cross_NK=both[K:, :K], input_K=x_TK.mean(0), target_N=y_TN.mean(0)
    )
    for name in ("inputs_KK", "cross_NK", "input_K", "target_N"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=1e-4, rtol=1e-4
        )


@pytest.fixture(
    scope="module",
    params=["bert", "roberta", "distilbert", "electra", "mpnet", "modernbert", "deberta-v2"],
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reconstruct") / "m"
    return tiny_model(place, architecture=request.param, task=TASK, hidden=32, intermediate=64)


def texts(network: GraftedNetwork) -> Calibration:
    """Two padded batches."""
    pad = network.model.config.pad_token_id
    lengths = [[12, 9, 15, 7, 11, 20, 16, 13], [30, 22, 25, 28, 19, 27, 24, 29]]
    return Calibration(
        batches=[batch(*few, pad_id=pad) for few in lengths], autocast=lambda: FP32.autocast("cpu")
    )


def last_error(network: GraftedNetwork, batches: list[TensorBatch]) -> float:
    """How far the student's last hidden state is from the teacher's."""
    found = []
    with evaluation_mode(network):
        for rows in batches:
            network.graft_all(True)
            student, teacher = network(rows), network.teacher_forward(rows)
            real = rows.mask_BS.bool()
            gap = (student.hidden_BSH[-1] - teacher.hidden_BSH[-1])[real]
            found.append(gap.square().mean())
    return float(torch.stack(found).mean())


def masked(network: GraftedNetwork, pattern: Pattern) -> dict[str, Tensor]:
    """Prune the students by magnitude; returns the masks."""
    targets = targets_of(network.encoder, pattern)
    weights = {name: network.linear(name).weight for name in targets}
    masks = masks_of(network.encoder, targets, magnitudes(weights))
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)
    return masks


@pytest.mark.parametrize(
    "pattern",
    [
        Unstructured(sparsity=0.7),
        NM(n=2, m=4),
        Block(rows=8, columns=1, sparsity=0.5),
        Structured(sparsity=0.5),
    ],
    ids=str,
)
def test_reconstruction_brings_the_student_nearer(folder: Path, pattern: Pattern) -> None:
    """The last hidden state errs less, what is masked stays zero, and the teacher is untouched."""
    network = grafted(folder)
    calibration = texts(network)
    masks = masked(network, pattern)
    teachers = {n: network.linear(n, teacher=True).weight.clone() for n in masks}
    before = last_error(network, list(calibration.batches))
    network.train().graft([True, False])

    reconstruct(network, masks, calibration)

    assert network.training and [u.student_in_place for u in network.units] == [True, False]
    assert last_error(network, list(calibration.batches)) < 0.8 * before
    for name, mask in masks.items():
        assert not network.linear(name).weight.detach()[~mask].any()
        assert torch.equal(network.linear(name, teacher=True).weight, teachers[name])


def test_full_masks_leave_the_student_as_it_was(folder: Path) -> None:
    """A dense student is its teacher already: reconstruction moves it by no more than rounding."""
    network = grafted(folder)
    calibration = texts(network)
    masks = {m.name: torch.ones(m.shape, dtype=torch.bool) for m in network.encoder.matrices()}

    reconstruct(network, masks, calibration)

    assert last_error(network, list(calibration.batches)) < 1e-5


def test_a_matrix_without_a_mask_is_left_alone(folder: Path) -> None:
    """Only masked matrices are solved."""
    network = grafted(folder)
    masks = masked(network, NM(n=2, m=4))
    left = [n for n in masks if ".1." in n]
    before = {n: network.linear(n).weight.clone() for n in left}

    reconstruct(network, {n: m for n, m in masks.items() if n not in left}, texts(network))

    assert all(torch.equal(network.linear(n).weight, w) for n, w in before.items())


def test_input_moments_are_those_of_what_the_matrices_read(folder: Path) -> None:
    """Over real tokens of all batches, seen by a hook of the test's own; no dropout, no padding."""
    network = grafted(folder).train()
    calibration = texts(network)
    matrices = list(network.encoder.matrices())
    seen: dict[str, list[Tensor]] = {m.name: [] for m in matrices}

    found = input_moments(network, matrices, calibration)

    network.eval().graft_all(True)
    for rows in calibration.batches:
        real = rows.mask_BS.bool()
        handles = [
            network.linear(m.name).register_forward_hook(
                lambda _, args, __, name=m.name, real=real: seen[name].append(args[0][real])
            )
            for m in matrices
        ]
        with torch.no_grad():
            network(rows)
        for handle in handles:
            handle.remove()
    for name, parts in seen.items():
        x_TK = torch.cat(parts)
        torch.testing.assert_close(
            found[name].second_KK, x_TK.T @ x_TK / len(x_TK), atol=1e-4, rtol=1e-4
        )


def test_a_layer_at_a_time_is_the_whole_network(folder: Path) -> None:
    """The flows taken through the layers one by one end in the network's last hidden state."""
    network = grafted(folder)
    calibration = texts(network)

    with evaluation_mode(network):
        network.graft_all(True)
        flows = first_layer_inputs(network, calibration)
        for number in range(len(network.layers)):
            for one in flows:
                one.student_BSH = one.run(network.layers, number, one.student_BSH)

        for one, rows in zip(flows, calibration.batches, strict=True):
            torch.testing.assert_close(one.student_BSH, network(rows).hidden_BSH[-1])


PRODUCERS = ("intermediate", "gate")


@pytest.mark.parametrize("pattern", [Unstructured(sparsity=0.8), Structured(sparsity=0.5)], ids=str)
def test_sensitive_goals_meet_the_total_and_spare_what_matters(
    folder: Path, pattern: Pattern
) -> None:
    """All together are as sparse as wanted, none below the floor, and the student is untouched."""
    network = grafted(folder)
    calibration = texts(network)
    targets = targets_of(network.encoder, pattern)
    weights = {name: network.linear(name).weight for name in targets}
    before = {name: weight.clone() for name, weight in weights.items()}
    wild = [name for name in targets if ".0." in name]
    tiny = [m.name for m in network.encoder.matrices() if m.name in wild and m.role in PRODUCERS]
    with torch.no_grad():
        for name in wild:  # where weights are tiny, pruning them costs next to nothing
            if name in tiny:
                weights[name].mul_(1e-4)
                before[name].mul_(1e-4)

    found = sensitivity_targets(
        network, targets, magnitudes(weights), calibration, least_density=0.02
    )

    sizes = {m.name: m.shape[0] * m.shape[1] for m in network.encoder.matrices()}
    total = sum(sizes[n] * g.sparsity for n, g in found.items()) / sum(sizes.values())
    assert total == pytest.approx(pattern.sparsity, abs=1e-4)
    assert max(g.sparsity for g in found.values()) <= 0.98 + 1e-9
    assert all(torch.equal(weights[name], value) for name, value in before.items())
    sparsest = max(found, key=lambda n: found[n].sparsity)
    assert found[sparsest].sparsity > pattern.sparsity
    assert found[tiny[0]].sparsity == pytest.approx(0.98)


def test_inputs_that_hardly_vary_are_solved() -> None:
    """Where the mean is a thousand times the spread, the solution is that of centred inputs."""
    x_TK, y_TN, start_NK = flow()
    mask_NK = torch.ones_like(start_NK, dtype=torch.bool)
    small_TK = 1e-3 * x_TK
    near, far = (
        solve_kept(moments_of(iter([(x, y_TN)])), mask_NK, torch.zeros_like(start_NK))
        for x in (small_TK, small_TK + 1)
    )

    torch.testing.assert_close(near[0], far[0], rtol=0.02, atol=0.02 * float(near[0].abs().max()))
    torch.testing.assert_close(
        small_TK @ near[0].T + near[1], (small_TK + 1) @ far[0].T + far[1], rtol=0.05, atol=0.05
    )
