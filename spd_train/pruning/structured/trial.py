"""Trials of whole networks: how far the output moves if each sublayer keeps so much.

Most trials change one sublayer and leave all before it whole. The hidden states before it are the
same in all of them, so on the rough texts they are computed once and the layers are skipped. The
memory for that has a bound, and so has that for solved weights: of a large model the hidden states
of each second or third layer are kept.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spd_train.grafting import GraftedNetwork
from spd_train.pruning.calibration import Calibration, forward_hook, inference_mode
from spd_train.pruning.structured.compact import CompactStudents
from spd_train.pruning.structured.curves import SublayerCurve

# Rough distances are of each batch of so many. Batches are ordered by length, so all lengths count.
_ROUGH = 4
# Most memory for hidden states of skipped layers, and for solved weights.
_MAX_HIDDEN_BYTES = 96 * 2**20
_MAX_SOLVED_BYTES = 256 * 2**20

Solution = tuple[Tensor, Tensor, Tensor]


class Trials:
    """Networks in which each sublayer's reader is solved for the columns that it keeps."""

    def __init__(
        self,
        network: GraftedNetwork,
        students: CompactStudents,
        curves: Sequence[SublayerCurve],
        calibration: Calibration,
    ) -> None:
        self.network = network
        self.students = students
        self.curves = curves
        self.calibration = calibration
        self._distances: dict[tuple[int, tuple[int, ...]], float] = {}
        self._solved = _Solutions(curves, _MAX_SOLVED_BYTES)
        self._whole = tuple(curve.left for curve in curves)
        self._whole_outputs: list[dict[int, Any]] = []  # of each batch, by number of layers
        self._every_layer = self._layers_apart()
        with inference_mode(self.network):
            network.graft_all(False)
            self._expected = self._outputs(every=1)

    def rough_distance(self, kept: Sequence[int]) -> float:
        """The same as :meth:`distance`, on a quarter of the texts."""
        return self.distance(kept, every=_ROUGH)

    def distance(self, kept: Sequence[int], *, every: int = 1) -> float:
        """How far the outputs are from the teacher's, if the sublayers keep so many.

        The squared distance of the last hidden states over their variance, plus that of the logits
        over theirs. The same numbers are tried once.

        Args:
            kept: heads or neurons that each sublayer keeps.
            every: only each batch of so many takes part, from the first on.
        """
        key = (every, tuple(kept))
        if (found := self._distances.get(key)) is None:
            found = self._distances[key] = self._distance(kept, every)
        return found

    def _distance(self, kept: Sequence[int], every: int) -> float:
        """The distance by a pass over the texts."""
        with inference_mode(self.network), self._pruned(kept):
            self.network.graft_all(True)
            outputs = self._outputs(every, skipped=self._whole_layers(kept, every))
        expected_outputs = self._expected[::every]
        total = 0.0
        for found, expected in zip(
            zip(*outputs, strict=True), zip(*expected_outputs, strict=True), strict=True
        ):
            a, b = torch.cat(found), torch.cat(expected)
            total += float((a - b).square().sum() / (b - b.mean(0)).square().sum())
        return total

    @contextlib.contextmanager
    def _pruned(self, kept: Sequence[int]) -> Iterator[None]:
        """Put the solved readers in place; the students are restored at the end."""
        readers = [self.network.linear(curve.sublayer.reader.name) for curve in self.curves]
        before = [(reader.weight.clone(), reader.bias.clone()) for reader in readers]
        masks_before = self.students.masks
        self.students.set_masks({**masks_before, **self._put(readers, kept)})
        try:
            yield
        finally:
            for reader, (weight_NK, bias_N) in zip(readers, before, strict=True):
                reader.weight.copy_(weight_NK)
                reader.bias.copy_(bias_N)
            self.students.set_masks(masks_before)

    def _put(self, readers: Sequence[nn.Linear], kept: Sequence[int]) -> dict[str, Tensor]:
        """Write the solved weights into the readers. Returns their masks by name."""
        masks = {}
        for i, (curve, reader, count) in enumerate(zip(self.curves, readers, kept, strict=True)):
            columns, weight_NC, bias_N = self._solved.of(i, count)
            mask_NK = torch.zeros_like(reader.weight, dtype=torch.bool)
            mask_NK[:, columns] = True
            reader.weight.zero_()
            reader.weight[:, columns] = weight_NC
            reader.bias.copy_(bias_N)
            masks[curve.sublayer.reader.name] = mask_NK
        return masks

    def _layers_apart(self) -> int:
        """Of every so many layers the hidden states are kept, so that they fit their bound."""
        return max(1, math.ceil(self.hidden_bytes / _MAX_HIDDEN_BYTES))

    @property
    def hidden_bytes(self) -> int:
        """Memory that the hidden states of all layers but the last take, of the rough texts."""
        tokens = sum(batch.mask_BS.numel() for batch in self.calibration.batches[::_ROUGH])
        return 4 * tokens * self.network.encoder.hidden * (len(self.network.layers) - 1)

    def _whole_layers(self, kept: Sequence[int], every: int) -> int:
        """How many of the first layers keep everything, and are followed by known hidden states."""
        if every != _ROUGH or len(self.network.layers) < 2:
            return 0
        changed = [
            curve.sublayer.layer
            for curve, count, whole in zip(self.curves, kept, self._whole, strict=True)
            if count != whole
        ]
        whole = min(changed, default=0)
        return whole - whole % self._every_layer

    def _layer_outputs(self) -> list[dict[int, Any]]:
        """The outputs of the whole student's layers on each rough batch, by number of layers."""
        if self._whole_outputs:
            return self._whole_outputs
        found: list[dict[int, Any]] = []
        outputs: dict[int, Any] = {}
        numbered = list(enumerate(self.network.layers[:-1], start=1))
        with self._pruned(self._whole), contextlib.ExitStack() as hooks:
            for number, layer in numbered[self._every_layer - 1 :: self._every_layer]:
                hook = layer.register_forward_hook(
                    lambda *call, number=number: outputs.__setitem__(number, call[2])
                )
                hooks.callback(hook.remove)
            for batch in self.calibration.batches[::_ROUGH]:
                with self.calibration.autocast():
                    self.network(batch)
                found.append({**outputs})
                outputs.clear()
        self._whole_outputs = found
        return found

    def _outputs(self, every: int, *, skipped: int = 0) -> list[tuple[Tensor, Tensor]]:
        """Last hidden states ``[T, H]`` of the real tokens and logits ``[B, C]``, by batch.

        The first ``skipped`` layers are whole, and their known output takes their place.
        """
        found = []
        hidden: list[Tensor] = []
        batches = self.calibration.batches[::every]
        known: Sequence[Mapping[int, Any]] = (
            self._layer_outputs() if skipped else [{}] * len(batches)
        )
        with forward_hook(self.network.layers[-1], lambda _, y: hidden.append(y)):
            for batch, outputs in zip(batches, known, strict=True):
                skipping = _skipping(self.network, skipped, outputs.get(skipped))
                with self.calibration.autocast(), skipping:
                    logits_BC = self.network(batch).logits_BC
                found.append((hidden.pop()[batch.mask_BS.bool()].float(), logits_BC.float()))
        return found


class _Solutions:
    """The readers' solutions, solved once, as far as they fit a bound; the oldest go first."""

    def __init__(self, curves: Sequence[SublayerCurve], most_bytes: int) -> None:
        self.curves = curves
        self.most_bytes = most_bytes
        self.bytes = 0
        self._found: dict[tuple[int, int], Solution] = {}

    def of(self, sublayer: int, count: int) -> Solution:
        """The solution of a sublayer's reader that keeps ``count`` heads or neurons."""
        key = sublayer, count
        found = self._found.pop(key, None)
        if found is None:
            found = self.curves[sublayer].solved(count)
            self.bytes += _bytes_of(found)
        self._found[key] = found
        while self.bytes > self.most_bytes and len(self._found) > 1:
            self.bytes -= _bytes_of(self._found.pop(next(iter(self._found))))
        return found


def _bytes_of(solution: Solution) -> int:
    """Memory that a solution takes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in solution)


@contextlib.contextmanager
def _skipping(network: GraftedNetwork, count: int, output: Any) -> Iterator[None]:
    """Let the first ``count`` layers return the output of the last of them, without computing."""
    skipped = network.layers[:count]
    for layer in skipped:
        layer.forward = partial(_return, output)
    try:
        yield
    finally:
        for layer in skipped:
            del layer.forward


def _return(output: Any, *_: Any, **__: Any) -> Any:
    """Returns the earlier outputs of the layers, whatever the inputs are."""
    return output
