"""The drawn networks of the GPU session, on the CPU: both forms compute the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu_arms import arms_of_session
from benchmarks.gpu_networks import (
    NETWORKS,
    SparseNetwork,
    drawn_model,
    encoder_of,
    kept_sizes,
    spd_network,
)
from spd_deploy.benchmark.dense.torch_dense import forward_of
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.named_encoders import NAMED_ENCODERS
from spd_deploy.domain.patterns import NM, Block
from spd_deploy.domain.shapes import Shape, random_batch
from spd_deploy.kernels.backends import EagerBackend
from spd_deploy.kernels.two_four import supports_two_four

SMALL = replace(encoder_of("base"), layers=2, hidden=128, heads=4, intermediate=256, positions=32)


@pytest.mark.parametrize(
    "network",
    [
        SparseNetwork(name="dense"),
        SparseNetwork(name="structured", kept=0.25),
        SparseNetwork(name="blocks", pattern=Block(rows=32, columns=1, sparsity=0.75)),
        SparseNetwork(name="both", kept=0.5, pattern=Block(rows=32, columns=1, sparsity=0.5)),
        SparseNetwork(name="2:4", kept=0.5, pattern=NM(n=2, m=4)),
    ],
    ids=lambda network: network.name,
)
def test_both_forms_give_the_same_logits(network: SparseNetwork) -> None:
    """Transformers' classes on the drawn weights, and this project's network on the same."""
    model = drawn_model(SMALL, network, "cpu", torch.float32)
    own = spd_network(model, SMALL, network, backend=EagerBackend(), selector=None)
    batch = random_batch(Shape(batch=3, seq=8), SMALL.vocabulary, np.random.default_rng(0))
    ids, mask, types = map(torch.from_numpy, (batch.ids_BS, batch.mask_BS, batch.types_BS))

    with torch.inference_mode():
        expected_BC = forward_of(model, "eager")(ids, None, types)
        found_BC = own.logits(ids, mask, types)

    assert torch.allclose(found_BC, expected_BC, atol=1e-5)


@given(share=st.floats(0.01, 1.0), encoder=st.sampled_from(list(NAMED_ENCODERS.values())))
def test_neurons_come_in_multiples_of_64(share: float, encoder: Encoder) -> None:
    """At least the share is kept, less than a step more, and all of it at 100 %."""
    heads, neurons = kept_sizes(encoder, share)

    assert neurons % 64 == 0
    assert share * encoder.intermediate <= neurons < share * encoder.intermediate + 64
    assert share * encoder.heads <= heads < share * encoder.heads + 1


@pytest.mark.parametrize("model", ["base", "large"])
def test_every_pattern_fits_every_size(model: str) -> None:
    """No matrix of a network is one that its pattern does not divide."""
    encoder = encoder_of(model)
    for network in NETWORKS:
        heads, neurons = kept_sizes(encoder, network.kept)
        width = heads * encoder.head_size
        for shape in ((width, encoder.hidden), (encoder.hidden, width),
                      (neurons, encoder.hidden), (encoder.hidden, neurons)):  # fmt: skip
            if isinstance(network.pattern, Block):
                network.pattern.check(shape)
            elif isinstance(network.pattern, NM):
                assert supports_two_four(shape, "fp16")


def test_structured_is_the_first_sparse_arm_in_every_form() -> None:
    """After the three dense forms come the three of the structured network."""
    names = [str(arm) for arm in arms_of_session()]

    assert names[:6] == [
        "dense, torch-eager", "dense, torch-compile", "dense, torch-spd",
        "structured 75%, torch-eager", "structured 75%, torch-compile", "structured 75%, torch-spd",
    ]  # fmt: skip
    assert len(set(names)) == len(names)
