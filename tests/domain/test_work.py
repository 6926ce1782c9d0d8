"""The least work of an encoder, counted by hand and by matrix products themselves."""

import pytest

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.models.bert import BERT_LAYER
from spd_deploy.domain.roofline import Work, encoder_work
from spd_deploy.domain.shapes import Shape

BASE = Encoder(
    prefix="bert.encoder.layer",
    naming=BERT_LAYER,
    layers=12,
    hidden=768,
    heads=12,
    intermediate=3072,
    vocabulary=30522,
    positions=512,
)
SHAPE = Shape(batch=2, seq=128)


def test_flops_are_those_of_every_product_written_out() -> None:
    """Layer by layer: four squares, two wide matrices, and scores and sums head by head."""
    tokens = 2 * 128
    of_layer = 4 * 2 * tokens * 768 * 768 + 2 * 2 * tokens * 768 * 3072
    of_heads = 2 * (2 * 2 * 12 * 128 * 128 * 64)

    assert encoder_work(BASE, SHAPE).flops == 12 * (of_layer + of_heads)


def test_bytes_are_weights_inputs_and_outputs_once() -> None:
    """Two bytes each of weights, of what goes in and comes out, and of attention's four parts."""
    tokens = 2 * 128
    squares = 4 * (768 * 768 + tokens * 2 * 768)
    wide = 2 * (768 * 3072 + tokens * (768 + 3072))
    attention = 4 * tokens * 768

    assert encoder_work(BASE, SHAPE).moved_bytes == 2 * 12 * (squares + wide + attention)


def test_kept_shares_count_for_products_alone() -> None:
    """A tenth of the weights leaves a tenth of the products, and attention as it was."""
    shares = {matrix.name: 0.1 for matrix in BASE.matrices()}
    dense, sparse = encoder_work(BASE, SHAPE), encoder_work(BASE, SHAPE, shares=shares)
    attention = 12 * BASE.attention_flops(2, 128, 128)

    assert sparse.flops - attention == pytest.approx(0.1 * (dense.flops - attention))
    assert sparse.moved_bytes < dense.moved_bytes


def test_the_last_layer_may_go_on_with_first_tokens() -> None:
    """Keys and values of all tokens stay; all else of that layer is of one token a row."""
    whole = encoder_work(BASE, SHAPE).flops
    first = encoder_work(BASE, SHAPE, first_only=True).flops
    spared: float = 2 * (128 - 1) * (2 * 2 * 768 * 768 + 2 * 2 * 768 * 3072)
    spared += BASE.attention_flops(2, 127, 128)

    assert whole - first == pytest.approx(spared)


def test_the_slower_of_two_rates_bounds() -> None:
    """The least time is the larger one, and says which it is."""
    work = Work(flops=100.0, moved_bytes=10.0)

    assert work.least_s(flops_per_s=10.0, bytes_per_s=10.0) == (10.0, "arithmetic")
    assert work.least_s(flops_per_s=1000.0, bytes_per_s=10.0) == (1.0, "memory")
