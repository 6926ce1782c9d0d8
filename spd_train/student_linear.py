"""The linear layers of a student: they compute what is left of them, and in int8 on request.

The parameters keep their names and sizes, so masks, optimiser, saved states and checkpoints are as
those of any linear layer.

int8 is simulated as exported artefacts compute it in ONNX Runtime: a weight has a scale for each
output, and an input has one scale and zero point, by its own smallest and largest value. Gradients
pass straight through the rounding (quantisation-aware training: Jacob et al. 2018, section 3).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_MAX_INT8, _MAX_UINT8 = 127, 255


class StudentLinear(nn.Linear):
    """A linear layer that computes ``rows`` of its outputs from ``columns`` of its inputs.

    Attributes:
        rows, columns: indices; None for all.
        whole: compute everything, whatever ``rows`` and ``columns`` say.
        int8: round weights and inputs as an int8 artefact does.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Share the parameters of ``linear``."""
        super().__init__(1, 1, device="meta")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.whole = False
        self.int8 = False
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
        if self.int8:
            weight_NK, input = int8_rows(weight_NK), uint8_inputs(input)
        return functional.linear(input, weight_NK, bias_N)


def int8_rows(weight_NK: Tensor) -> Tensor:
    """The weight rounded to int8 and back: symmetrically, with a scale for each row."""
    most_N = weight_NK.detach().abs().amax(1)
    scale_N = torch.where(most_N > 0, most_N / _MAX_INT8, 1.0)
    zero_N = torch.zeros_like(scale_N, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight_NK, scale_N, zero_N, 0, -_MAX_INT8, _MAX_INT8
    )


def uint8_inputs(x: Tensor) -> Tensor:
    """The input rounded to uint8 and back, as ONNX's ``DynamicQuantizeLinear`` does.

    Its range is that of all its values, and holds 0.
    """
    wide = x.float()
    low, high = (bound.detach() for bound in wide.aminmax())
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = torch.where(high > low, (high - low) / _MAX_UINT8, 1.0)
    zero = (-low / scale).round().clamp(0, _MAX_UINT8).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(wide, scale, zero, 0, _MAX_UINT8).to(x.dtype)


def projected(linear: nn.Linear, x: Tensor) -> Tensor:
    """The output of a layer for an input that is a constant of the model, not of a text.

    An artefact computes it once, in fp32. So it is not rounded as in int8, and hooks do not see it.
    """
    rows = computed_rows(linear)
    if rows is None:
        return functional.linear(x, linear.weight, linear.bias)
    return functional.linear(x, linear.weight[rows], linear.bias[rows])


def computed_rows(linear: nn.Module) -> Tensor | None:
    """The indices of the outputs that a layer computes; None for all."""
    if isinstance(linear, StudentLinear) and not linear.whole:
        return linear.rows
    return None


def computed_columns(linear: nn.Module) -> Tensor | None:
    """The indices of the inputs that a layer reads, and has; None for all."""
    if isinstance(linear, StudentLinear) and not linear.whole:
        return linear.columns
    return None
