"""Which heads or neurons to remove: one at a time by second order, the rest solved again each time.

The output of a matrix W ``[N, K]`` on inputs with the covariance H ``[K, K]`` changes by
tr(D H D^T) when W changes by D. Removing the columns g, and solving the others again, costs

    s_g = tr(W_g ([H^-1]_gg)^-1 W_g^T)
    W    <-  W    - W_g     ([H^-1]_gg)^-1 [H^-1]_g:
    H^-1 <-  H^-1 - [H^-1]_:g ([H^-1]_gg)^-1 [H^-1]_g:

(Optimal Brain Surgeon, Hassibi and Stork 1993, for groups of columns as in ZipLM, Kurtic et al.
2023, equations 2 to 4). The cheapest unit goes first. Scores that ignore the update miss that units
stand in for each other: of two equal neurons the second is dear once the first has gone.

Whole updates are done in blocks: among the cheapest units of all, a few are removed one at a time,
then all of their updates are applied at once. The costs need of W only its products W^T W, so the
candidates are two small square matrices: the parts of H^-1 and of W^T W that concern them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Added to the diagonal of H, as a share of its mean, so that constant inputs have an inverse.
_DAMPING = 0.01
# A block removes this share of the units that are left, out of so many times as many candidates.
_BLOCK_SHARE = 1 / 32
_CANDIDATES = 4
# The matrices are made smaller once no more than this share of their units is left.
_FULL = 0.75


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RemovalCurve:
    """The order in which the units of a matrix are removed, and the error that remains.

    Attributes:
        order_R: the units that were removed, the first first; units that were removed before come
            first of all.
        error_U: squared error of the output with k units kept, as a share of the output's
            variance, for k = 0 to U ``[U + 1]``; inf for fewer than were left at the end.
    """

    order_R: Tensor
    error_U: Tensor

    def keep(self, count: int) -> Tensor:
        """Which units ``[U]`` stay when ``count`` are kept, not fewer than were left at the end."""
        units = len(self.error_U) - 1
        assert count >= units - len(self.order_R)  # noqa: S101 - the caller knows how far it went
        kept_U = torch.ones(units, dtype=torch.bool, device=self.order_R.device)
        kept_U[self.order_R[: units - count]] = False
        return kept_U


def removal_curve(
    weight_NK: Tensor,
    covariance_KK: Tensor,
    *,
    width: int,
    alive_U: Tensor | None = None,
    least: int = 0,
) -> RemovalCurve:
    """Remove the units of a matrix, one at a time, and record order and error.

    Args:
        weight_NK: the weight; its columns are the units' outputs.
        covariance_KK: covariance of its inputs.
        width: columns of a unit: the size of a head, or 1 for neurons.
        alive_U: units that are still there; None for all.
        least: stop when so many are left.
    """
    units = weight_NK.shape[1] // width
    alive = torch.arange(units, device=weight_NK.device)
    gone = alive[:0]
    if alive_U is not None:
        alive, gone = alive[alive_U], alive[~alive_U]
    columns = columns_of(alive, width)
    weight_NK, covariance_KK = weight_NK[:, columns], covariance_KK[columns][:, columns]
    removed, rises = [gone], [torch.zeros(len(gone), dtype=torch.double, device=gone.device)]
    if len(alive) > least:
        state = _Remaining.of(weight_NK, covariance_KK, width)
        while state.count > least:
            units_U, rises_U = state.remove_block(state.count - least)
            removed.append(alive[units_U])
            rises.append(rises_U)
    errors = torch.cat(rises).cumsum(0) / _energy(weight_NK, covariance_KK)
    unknown = errors.new_full((units - len(errors),), torch.inf)
    return RemovalCurve(
        order_R=torch.cat(removed),
        error_U=torch.cat([errors.new_zeros(1), errors, unknown]).flip(0),
    )


def columns_of(units_U: Tensor, width: int) -> Tensor:
    """The columns of units of ``width`` columns each."""
    return (units_U[:, None] * width + torch.arange(width, device=units_U.device)).flatten()


@dataclass(kw_only=True, slots=True)
class _Remaining:
    """The units that are left: their weight, solved again, and the inverse of their covariance.

    Attributes:
        units_U: the number of each unit.
        alive_U: False for units whose columns are still in place although they are removed.
    """

    weight_NK: Tensor
    inverse_KK: Tensor
    width: int
    units_U: Tensor
    alive_U: Tensor

    @classmethod
    def of(cls, weight_NK: Tensor, covariance_KK: Tensor, width: int) -> "_Remaining":
        """All units of a matrix, in double precision: the inverse is updated thousands of times."""
        damped_KK = covariance_KK.to(torch.double, copy=True)
        tiny = torch.finfo(torch.float32).tiny
        damped_KK.diagonal().add_(_DAMPING * damped_KK.diagonal().mean().clamp_min(tiny))
        inverse_KK = torch.cholesky_inverse(torch.linalg.cholesky(damped_KK))
        return cls._whole(weight_NK.double(), inverse_KK, width)

    @classmethod
    def _whole(cls, weight_NK: Tensor, inverse_KK: Tensor, width: int) -> "_Remaining":
        """Units that are all there, numbered from 0."""
        units_U = torch.arange(len(inverse_KK) // width, device=inverse_KK.device)
        return cls(
            weight_NK=weight_NK,
            inverse_KK=inverse_KK,
            width=width,
            units_U=units_U,
            alive_U=torch.ones_like(units_U, dtype=torch.bool),
        )

    @property
    def count(self) -> int:
        """How many units are left."""
        return int(self.alive_U.sum())

    def remove_block(self, most: int) -> tuple[Tensor, Tensor]:
        """Remove units one at a time, a block of them or at most so many.

        Returns:
            The units and the rise of the error by each.
        """
        block = max(1, int(self.count * _BLOCK_SHARE))
        costs_U = self._costs()
        if block == 1:
            places_U = costs_U.argmin()[None]
            rises_U = costs_U[places_U]
        else:
            candidates = min(self.count, _CANDIDATES * block)
            places_C = costs_U.topk(candidates, largest=False).indices
            columns = columns_of(places_C, self.width)
            state = _Candidates.of(
                self.weight_NK[:, columns], self.inverse_KK[columns][:, columns], self.width
            )
            chosen_U, rises_U = state.remove(min(block, most))
            places_U = places_C[chosen_U]
        removed_U = self.units_U[places_U]
        self.remove(places_U)
        self._drop_removed()
        return removed_U, rises_U.clamp_min(0)

    def remove(self, places_U: Tensor) -> None:
        """Remove the units at these indices, and solve the others again."""
        gone = columns_of(places_U, self.width)
        rows_RK = self.inverse_KK[gone]
        factor = torch.linalg.cholesky(rows_RK[:, gone])
        solved_RK = torch.cholesky_solve(rows_RK, factor)
        self.weight_NK.addmm_(self.weight_NK[:, gone], solved_RK, alpha=-1)
        self.inverse_KK.addmm_(rows_RK.T, solved_RK, alpha=-1)
        self.alive_U[places_U] = False

    def _drop_removed(self) -> None:
        """Make the matrices smaller once a quarter of their units is removed."""
        if self.count > _FULL * len(self.alive_U):
            return
        places_U = self.alive_U.nonzero()[:, 0]
        columns = columns_of(places_U, self.width)
        self.weight_NK = self.weight_NK[:, columns]
        self.inverse_KK = self.inverse_KK[columns][:, columns]
        self.units_U = self.units_U[places_U]
        self.alive_U = self.alive_U[places_U]

    def _costs(self) -> Tensor:
        """Rise of the squared error ``[U]`` if each unit were removed next; inf if it has gone."""
        if self.width == 1:
            costs_U = self.weight_NK.square().sum(0) / self.inverse_KK.diagonal()
        else:
            weight_UDN = self.weight_NK.T.reshape(len(self.units_U), self.width, -1)
            gram_UDD = weight_UDN @ weight_UDN.mT
            costs_U = _group_costs(gram_UDD, _blocks(self.inverse_KK, self.width), self.alive_U)
        return costs_U.masked_fill(~self.alive_U, torch.inf)


@dataclass(kw_only=True, slots=True)
class _Candidates:
    """A few units of which some are removed one at a time.

    Attributes:
        gram_CC: W^T W of their columns of the weight.
        inverse_CC: their part of H^-1.
        alive_U: False for units that are removed.
    """

    gram_CC: Tensor
    inverse_CC: Tensor
    width: int
    alive_U: Tensor

    @classmethod
    def of(cls, weight_NC: Tensor, inverse_CC: Tensor, width: int) -> "_Candidates":
        """Candidates with these columns of the weight."""
        alive_U = torch.ones(len(inverse_CC) // width, dtype=torch.bool, device=inverse_CC.device)
        gram_CC = weight_NC.T @ weight_NC
        return cls(gram_CC=gram_CC, inverse_CC=inverse_CC, width=width, alive_U=alive_U)

    def remove(self, count: int) -> tuple[Tensor, Tensor]:
        """Remove the cheapest, ``count`` times. Returns their places and what each costs."""
        places, costs = [], []
        for _ in range(count):
            costs_U = self._costs()
            places.append(costs_U.argmin())
            costs.append(costs_U[places[-1]])
            self._remove(places[-1])
        return torch.stack(places), torch.stack(costs)

    def _costs(self) -> Tensor:
        """Rise of the squared error ``[U]`` if each unit were removed next; inf if it has gone."""
        if self.width == 1:
            costs_U = self.gram_CC.diagonal() / self.inverse_CC.diagonal()
        else:
            gram_UDD, inverse_UDD = (
                _blocks(m, self.width) for m in (self.gram_CC, self.inverse_CC)
            )
            costs_U = _group_costs(gram_UDD, inverse_UDD, self.alive_U)
        return costs_U.masked_fill(~self.alive_U, torch.inf)

    def _remove(self, place: Tensor) -> None:
        """Remove a unit: with S = ([H^-1]_gg)^-1 [H^-1]_g:, W becomes W - W_g S."""
        gone = columns_of(place[None], self.width)
        rows_DC = self.inverse_CC[gone]
        solved_DC = torch.linalg.solve(rows_DC[:, gone], rows_DC)
        cross_DC = self.gram_CC[gone]
        both_DC = cross_DC - 0.5 * cross_DC[:, gone] @ solved_DC
        self.gram_CC.addmm_(both_DC.T, solved_DC, alpha=-1)
        self.gram_CC.addmm_(solved_DC.T, both_DC, alpha=-1)
        self.inverse_CC.addmm_(rows_DC.T, solved_DC, alpha=-1)
        self.alive_U[place] = False


def _blocks(matrix_KK: Tensor, width: int) -> Tensor:
    """The blocks ``[U, D, D]`` on the diagonal."""
    units = len(matrix_KK) // width
    of_unit = torch.arange(units, device=matrix_KK.device)
    return matrix_KK.reshape(units, width, units, width)[of_unit, :, of_unit]


def _group_costs(gram_UDD: Tensor, inverse_UDD: Tensor, alive_U: Tensor) -> Tensor:
    """tr(W_g ([H^-1]_gg)^-1 W_g^T) of each unit ``[U]``, from W_g^T W_g and [H^-1]_gg."""
    width = gram_UDD.shape[-1]
    # What has gone has a zero block, which no solver takes.
    one_DD = torch.eye(width, dtype=inverse_UDD.dtype, device=inverse_UDD.device)
    inverse_UDD = torch.where(alive_U[:, None, None], inverse_UDD, one_DD)
    solved_UDD: Tensor = torch.linalg.solve(inverse_UDD, gram_UDD)
    return solved_UDD.diagonal(dim1=1, dim2=2).sum(1)


def _energy(weight_NK: Tensor, covariance_KK: Tensor) -> Tensor:
    """tr(W H W^T): variance of the output, summed over its N numbers; above 0."""
    weight_NK, covariance_KK = weight_NK.double(), covariance_KK.double()
    energy = ((weight_NK @ covariance_KK) * weight_NK).sum()
    return energy.clamp_min(torch.finfo(torch.float32).tiny)
