"""A torch artefact in Transformers' own classifier, whose linears are replaced one by one.

For code that has such a module already: a pipeline, a trainer's evaluation, a comparison. It keeps
PyTorch's token-major layout, so at every block-sparse linear the activations turn and turn back,
and nothing is fused across modules; ``spd serve`` and ``spd bench`` run the artefact's own network
instead (``network.py``), which is the faster one.

    model = classifier_from_artefact(open_artefact(Path("artefacts/mrpc-gpu")), device="cuda")
"""

import warnings
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.kernels.remembered import Memory
from spd_deploy.kernels.weights import dtype_of
from spd_deploy.sessions.protocol import Device
from spd_deploy.sessions.torch_artefact.loading import refuse_no_cuda, runners_for, tensors_in
from spd_deploy.sessions.torch_artefact.plan import NetworkPlan, read_plan
from spd_deploy.sessions.torch_artefact.products import Parts, Product, TwoFourTokens, product_of
from spd_deploy.sessions.torch_artefact.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def classifier_from_artefact(artefact: Artefact, *, device: Device = "cpu") -> "PreTrainedModel":
    """The module on ``device``, ready to run; it is not to be moved or trained.

    Raises:
        Unavailable: no CUDA where it was asked for; or heads or neurons are gone, which
            Transformers' module has no place for.
        BadArtefact: the artefact's files do not fit together, or are of another format.
    """
    import torch

    if artefact.manifest.format != "torch":
        raise BadArtefact(
            "only a torch artefact goes into a module of PyTorch",
            got=f"format {artefact.manifest.format}",
            fix="export with --format torch",
        )
    if device == "cuda":
        refuse_no_cuda()
    plan = read_plan(artefact.folder)
    _refuse_compact(artefact, plan)
    tensors = tensors_in(artefact.folder, plan, device)
    backend, chooser = runners_for(plan, Memory() if device == "cuda" else None)
    module: Any = _module(artefact, plan, tensors)
    model: PreTrainedModel = module.to(device=device, dtype=dtype_of(plan.number)).eval()
    with torch.no_grad():
        for matrix in plan.matrices:
            turned = matrix.kind == "blocks"
            parts = Parts(tensors=tensors, backend=backend, chooser=chooser, feature_major=turned)
            product = product_of([matrix], parts)
            assert product is not None  # noqa: S101 - one matrix is always run alike
            if isinstance(product, TwoFourTokens) and product.refused is not None:
                warnings.warn(f"{matrix.name} stays dense: {product.refused}", stacklevel=2)
            model.set_submodule(matrix.name, _replacement(product, turned=turned))
    return model


def _module(artefact: Artefact, plan: NetworkPlan, tensors: Tensors) -> Any:
    """Transformers' classifier with everything but the matrices."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(artefact.folder, local_files_only=True)
    with torch.device("cpu"):
        model = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32
        )
    matrices = {matrix.name for matrix in plan.matrices}
    state = {
        name: tensors.get(name, *value.shape)
        for name, value in model.state_dict().items()
        if name.rpartition(".")[0] not in matrices
    }
    model.load_state_dict(state, strict=False)
    return model


def _replacement(product: Product, *, turned: bool) -> Any:
    """A module in a linear's place."""
    import torch

    class Replaced(torch.nn.Module):
        """``[.., K]`` to ``[.., N]`` by a product of the artefact's."""

        def forward(self, x: "Tensor") -> "Tensor":
            """Feature-major where the product wants that, for its duration."""
            x_TK = x.reshape(-1, x.shape[-1])
            y_TN = product(x_TK.T.contiguous()).T if turned else product(x_TK)
            return y_TN.reshape(*x.shape[:-1], -1)

    return Replaced()


def _refuse_compact(artefact: Artefact, plan: NetworkPlan) -> None:
    """Heads and neurons that went are no rows of zeros here: they are not there."""
    for matrix in plan.matrices:
        if (matrix.outputs, matrix.inputs) != artefact.encoder.shape_of(matrix.role):
            raise Unavailable(
                "Transformers' module has no place for a layer whose heads or neurons are gone",
                got=f"{matrix.name} of {matrix.outputs}x{matrix.inputs}",
                fix="run the artefact with spd, or export it with --lowering dense",
            )
