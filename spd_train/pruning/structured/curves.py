"""The cost of removing heads and neurons: a removal curve for each part of each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spd_deploy.domain.encoder import Encoder, Matrix
from spd_train.grafting import GraftedNetwork
from spd_train.pruning.calibration import Calibration
from spd_train.pruning.input_moments import input_moments
from spd_train.pruning.structured.removal import RemovalCurve, columns_of, removal_curve

# Weight of the ridge term of a solution, as a share of the inputs' mean variance.
_RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Sublayer:
    """The attention or the feed-forward part of a layer.

    Attributes:
        producers: the matrices whose rows are the heads or neurons.
        reader: the matrix whose columns they are.
        width: columns of a head, or 1 for neurons.
    """

    layer: int
    producers: tuple[Matrix, ...]
    reader: Matrix
    width: int

    @property
    def is_attention(self) -> bool:
        """Whether the sublayer consists of heads."""
        return self.reader.role == "attention_output"

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """All matrices of the sublayer."""
        return (*self.producers, self.reader)

    @property
    def count(self) -> int:
        """The number of heads or neurons."""
        return self.reader.shape[1] // self.width

    def alive(self, masks: Mapping[str, Tensor]) -> Tensor | None:
        """Which heads or neurons ``[U]`` the masks keep; None if there is no mask, so all."""
        mask_NK = masks.get(self.reader.name)
        return None if mask_NK is None else mask_NK.any(0).reshape(-1, self.width).any(1)

    def left_of(self, masks: Mapping[str, Tensor]) -> int:
        """How many heads or neurons the masks keep."""
        alive_U = self.alive(masks)
        return self.count if alive_U is None else int(alive_U.sum())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SublayerCurve:
    """A sublayer's removal curve, with what it takes to solve its reader for any number of columns.

    Attributes:
        left: heads or neurons that are left now.
        covariance_KK, mean_K: of the reader's inputs; 0 at those that have gone.
    """

    sublayer: Sublayer
    left: int
    curve: RemovalCurve
    weight_NK: Tensor
    bias_N: Tensor
    covariance_KK: Tensor
    mean_K: Tensor

    def solved(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The kept columns ``[C]``, the weight ``[N, C]`` over them and the bias that fit best."""
        keep_U = self.curve.keep(count)
        columns = columns_of(keep_U.nonzero()[:, 0], self.sublayer.width)
        pull = _RIDGE * self.covariance_KK.diagonal().mean()
        rows_CK = self.covariance_KK[columns]
        left_CC = rows_CK[:, columns]
        left_CC.diagonal().add_(pull)
        right_CN = (rows_CK @ self.weight_NK.T) + pull * self.weight_NK.T[columns]
        weight_NC = torch.cholesky_solve(right_CN, torch.linalg.cholesky(left_CC)).T.contiguous()
        mean_K = self.mean_K
        bias_N = self.bias_N + self.weight_NK @ mean_K - weight_NC @ mean_K[columns]
        return columns, weight_NC, bias_N


def sublayers_of(encoder: Encoder) -> list[Sublayer]:
    """The sublayers of an encoder in network order."""
    return [
        Sublayer(
            layer=group[0].layer,
            producers=group[:-1],
            reader=group[-1],
            width=encoder.unit_width(group[-1].role),
        )
        for group in encoder.coupled()
    ]


def removal_curves(
    network: GraftedNetwork,
    sublayers: Sequence[Sublayer],
    calibration: Calibration,
    masks: Mapping[str, Tensor],
    *,
    least: Mapping[str, int] | None = None,
) -> list[SublayerCurve]:
    """The removal curve of each sublayer of the students, on the inputs that they have now.

    Args:
        network: the network.
        sublayers: the sublayers to remove heads and neurons of.
        calibration: texts to measure the inputs on.
        masks: masks ``[N, K]`` of what has gone already, by matrix name; empty at the start.
        least: how many heads or neurons of each reader the curve goes down to, by name; None for
            whole curves.
    """
    if not sublayers:
        return []
    inputs = input_moments(network, [sublayer.reader for sublayer in sublayers], calibration)
    curves = []
    for sublayer in sublayers:
        linear = network.linear(sublayer.reader.name)
        weight_NK = linear.weight.detach().float()
        found = inputs.pop(sublayer.reader.name)
        covariance_KK = found.covariance_KK
        curve = removal_curve(
            weight_NK,
            covariance_KK,
            width=sublayer.width,
            alive_U=sublayer.alive(masks),
            least=0 if least is None else least[sublayer.reader.name],
        )
        curves.append(
            SublayerCurve(
                sublayer=sublayer,
                left=sublayer.left_of(masks),
                curve=curve,
                weight_NK=weight_NK.clone(),
                bias_N=linear.bias.detach().float().clone(),
                covariance_KK=covariance_KK,
                mean_K=found.mean_K,
            )
        )
    return curves
