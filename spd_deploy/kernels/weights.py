"""A block-sparse weight in the form that the kernel reads.

An artefact holds the values ``[G, R, J]`` and the indices ``[G, U]`` of the blocks that each of the
G groups of R rows kept. A block has C inputs, so J = U C. For the kernel the index of a block is
expanded to the indices of its C inputs, so that one kernel runs all widths. J is padded to a
multiple of 16 with values of zero, which read an input that the group reads anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, get_args

from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.number_types import NUMBER_TYPES, FloatType
from spd_deploy.kernels.tiles import MIN_TILE_SIDE, ProblemSize

if TYPE_CHECKING:
    from torch import Tensor, dtype

_FLOAT_TYPES: dict[str, FloatType] = {
    NUMBER_TYPES[name].dtype: name for name in get_args(FloatType)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockWeight:
    """G groups of R outputs with J kept inputs each, and a bias in fp32.

    Attributes:
        values_GRJ: the weights of the kept inputs.
        rows_GJ: int32, the index of the input that each column of the values multiplies.
    """

    values_GRJ: "Tensor"
    rows_GJ: "Tensor"
    bias_N: "Tensor"

    @classmethod
    def of(
        cls,
        values_GRJ: "Tensor",
        index_GU: "Tensor",
        bias_N: "Tensor",
        *,
        columns: int,
        inputs: int,
    ) -> Self:
        """Convert an exported weight with ``inputs`` inputs in blocks of ``columns``.

        Raises:
            BadArtefact: the sizes contradict each other, or a block index is out of range.
        """
        import torch
        from torch.nn.functional import pad

        if not _fits(values_GRJ, index_GU, bias_N, columns=columns, inputs=inputs):
            raise BadArtefact(
                "the parts of a block-sparse weight contradict each other",
                got=f"values {tuple(values_GRJ.shape)}, blocks {tuple(index_GU.shape)}, "
                f"{len(bias_N)} outputs, {inputs} inputs in blocks of {columns}",
                fix="export it again",
            )
        G, _, J = values_GRJ.shape
        within_C = torch.arange(columns, device=index_GU.device)
        rows_GJ = (index_GU.long()[:, :, None] * columns + within_C).reshape(G, J)
        more = -J % MIN_TILE_SIDE
        rows_GJ = torch.cat([rows_GJ, rows_GJ[:, -1:].expand(G, more)], 1)
        return cls(
            values_GRJ=pad(values_GRJ, (0, more)).contiguous(),
            rows_GJ=rows_GJ.int().contiguous(),
            bias_N=bias_N.float().contiguous(),
        )

    @classmethod
    def joined(cls, weights: Sequence[Self]) -> Self | None:
        """Concatenate the outputs of weights; None where R or J differ between them."""
        import torch

        if len({weight.values_GRJ.shape[1:] for weight in weights}) != 1:
            return None
        return cls(
            values_GRJ=torch.cat([weight.values_GRJ for weight in weights]),
            rows_GJ=torch.cat([weight.rows_GJ for weight in weights]),
            bias_N=torch.cat([weight.bias_N for weight in weights]),
        )

    @property
    def outputs(self) -> int:
        """Number of outputs N = G R."""
        return len(self.bias_N)

    def problem(self, tokens: int) -> ProblemSize:
        """The size of the product with so many tokens."""
        G, R, J = self.values_GRJ.shape
        return ProblemSize(
            groups=G,
            rows=R,
            inputs=J,
            tokens=tokens,
            dtype=float_type_of(self.values_GRJ.dtype),
        )


def _fits(
    values_GRJ: "Tensor", index_GU: "Tensor", bias_N: "Tensor", *, columns: int, inputs: int
) -> bool:
    """Whether sizes agree and block indices are in range, which the kernel does not check."""
    if values_GRJ.ndim != 3 or index_GU.ndim != 2 or not values_GRJ.numel():
        return False
    G, R, J = values_GRJ.shape
    sizes = tuple(index_GU.shape) == (G, J // columns) and J % columns == 0
    return (
        sizes
        and len(bias_N) == G * R
        and int(index_GU.min()) >= 0
        and int(index_GU.max()) < inputs // columns
    )


def float_type_of(kind: "dtype") -> FloatType:
    """The short name of a PyTorch dtype, such as ``fp16``."""
    return _FLOAT_TYPES[str(kind).removeprefix("torch.")]


def dtype_of(float_type: str) -> "dtype":
    """The PyTorch dtype of a short name."""
    import torch

    found: dtype = getattr(torch, NUMBER_TYPES[float_type].dtype)
    return found
