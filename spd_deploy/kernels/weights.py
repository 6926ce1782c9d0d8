"""A block-sparse weight as the kernel reads it.

Exported are the values ``[G, R, J]`` and the numbers ``[G, U]`` of the blocks of C inputs that each
of the G groups of R rows kept, J = U C. For the kernel a block's number becomes the numbers of its
C inputs, so that one kernel does all widths, and J grows to a multiple of 16 with values of zero,
which read an input that the group reads anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from spd_deploy.domain.errors import BadArtefact
from spd_deploy.kernels.tiles import LEAST, Number, Problem

if TYPE_CHECKING:
    from torch import Tensor, dtype

NUMBERS: dict[str, Number] = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockWeight:
    """G groups of R outputs over the J inputs each kept, with a bias in fp32.

    Attributes:
        rows_GJ: int32, which input each column of a group's values multiplies.
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
        """Of a weight as it is exported, for ``inputs`` inputs in blocks of ``columns``.

        Raises:
            BadArtefact: sizes that do not fit together, or a block that is not there.
        """
        import torch
        from torch.nn.functional import pad

        if not _fits(values_GRJ, index_GU, bias_N, columns=columns, inputs=inputs):
            raise BadArtefact(
                "a block-sparse weight whose parts do not fit together",
                got=f"values {tuple(values_GRJ.shape)}, blocks {tuple(index_GU.shape)}, "
                f"{len(bias_N)} outputs, {inputs} inputs in blocks of {columns}",
                fix="export it again",
            )
        G, _, J = values_GRJ.shape
        within_C = torch.arange(columns, device=index_GU.device)
        rows_GJ = (index_GU.long()[:, :, None] * columns + within_C).reshape(G, J)
        more = -J % LEAST
        rows_GJ = torch.cat([rows_GJ, rows_GJ[:, -1:].expand(G, more)], 1)
        return cls(
            values_GRJ=pad(values_GRJ, (0, more)).contiguous(),
            rows_GJ=rows_GJ.int().contiguous(),
            bias_N=bias_N.float().contiguous(),
        )

    @classmethod
    def joined(cls, weights: Sequence[Self]) -> Self | None:
        """One weight that gives the outputs of all one after another; None where they differ."""
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
        """N."""
        return len(self.bias_N)

    def problem(self, tokens: int) -> Problem:
        """The product for so many tokens."""
        G, R, J = self.values_GRJ.shape
        return Problem(
            groups=G,
            rows=R,
            inputs=J,
            tokens=tokens,
            number=number_of(self.values_GRJ.dtype),
        )


def _fits(
    values_GRJ: "Tensor", index_GU: "Tensor", bias_N: "Tensor", *, columns: int, inputs: int
) -> bool:
    """Whether sizes agree and every block is there: a kernel reads whatever it is told to."""
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


def number_of(kind: "dtype") -> Number:
    """The name of a PyTorch number."""
    return NUMBERS[str(kind).removeprefix("torch.")]


def dtype_of(number: str) -> "dtype":
    """The PyTorch number of a name."""
    import torch

    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[number]
