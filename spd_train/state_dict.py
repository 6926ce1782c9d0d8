"""Dictionaries of named tensors, in which a prefix keeps several kinds apart."""

from collections.abc import Mapping

from torch import Tensor


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name starts with ``prefix``, by the rest of their name."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
