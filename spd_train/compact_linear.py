"""A linear layer that computes a part of its outputs from a part of its inputs."""

from torch import Tensor, nn
from torch.nn import functional


class CompactLinear(nn.Linear):
    """A linear layer that computes ``rows`` of its outputs from ``columns`` of its inputs.

    Attributes:
        rows, columns: indices; None for all.
        whole: compute everything, whatever ``rows`` and ``columns`` say.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Share the parameters of ``linear``."""
        super().__init__(1, 1, device="meta")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.whole = False
        self.rows: Tensor | None = None
        self.columns: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """The outputs of ``rows``, for inputs that have ``columns`` alone."""
        weight_NK: Tensor = self.weight
        bias_N: Tensor = self.bias
        if not self.whole and self.rows is not None:
            weight_NK, bias_N = weight_NK[self.rows], bias_N[self.rows]
        if not self.whole and self.columns is not None:
            weight_NK = weight_NK.index_select(1, self.columns)
        return functional.linear(input, weight_NK, bias_N)


def computed_rows(linear: nn.Module) -> Tensor | None:
    """The indices of the outputs that a layer computes; None for all."""
    if isinstance(linear, CompactLinear) and not linear.whole:
        return linear.rows
    return None
