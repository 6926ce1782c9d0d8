"""Buckets of distances, against Transformers' own."""

import torch
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from spd_deploy.domain.models.mpnet import MPNET


def test_buckets_are_transformers() -> None:
    """Every distance of texts of 600 tokens falls into the bucket that Transformers gives it."""
    assert MPNET.relative_positions is not None

    found = list(MPNET.relative_positions.buckets_of(600))

    distances = torch.arange(-599, 600)
    expected = MPNetEncoder.relative_position_bucket(distances)  # type: ignore[no-untyped-call]
    assert found == expected.tolist()
    assert sorted(set(found)) == [*range(16), *range(17, 32)]
