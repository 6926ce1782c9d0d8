"""Feed-forward parts with gates: the activated outputs of one matrix times those of another."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spd_deploy.kernels.eager import activated
from spd_deploy.sessions.torch_network.layouts import TorchLayout
from spd_deploy.sessions.torch_network.network_plan import MatrixPlan
from spd_deploy.sessions.torch_network.products import MatrixProduct, ProductInputs, product_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class GatedProduct:
    """Both products in one where they are of a kind, or one after the other.

    Attributes:
        products: of both matrices together, or of ``intermediate`` and ``gate``.
        neurons: outputs of each matrix.
    """

    products: tuple[MatrixProduct, ...]
    neurons: int
    layout: TorchLayout

    @classmethod
    def of(
        cls, intermediate: MatrixPlan, gate: MatrixPlan, parts: ProductInputs, layout: TorchLayout
    ) -> "GatedProduct":
        """The products of two matrices that read the same activations.

        Raises:
            BadArtefact: tensors are missing, or their shapes contradict each other.
        """
        together = product_of([intermediate, gate], parts)
        apart = (product_of([intermediate], parts), product_of([gate], parts))
        products = apart if together is None else (together,)
        return cls(
            products=tuple(product for product in products if product is not None),
            neurons=intermediate.outputs,
            layout=layout,
        )

    def __call__(self, x: "Tensor", *, activation: str) -> "Tensor":
        """The neurons of the tokens ``x``."""
        outputs = [product(x) for product in self.products]
        if len(outputs) == 1:
            outputs = list(self.layout.split(outputs[0], [self.neurons, self.neurons]))
        inner, gate = outputs
        return activated(inner, activation) * gate
