"""The parameters along the residual stream outside the encoder: embeddings, norms and head.

Module names differ between architectures, but the order in which modules run does not. One forward
pass is recorded. What runs before the first encoder matrix makes the residual stream: embeddings
and norms of its width or, if the embeddings are narrower (ELECTRA), the projection that widens
them. Only norms may run between the matrices. After the last matrix come norms and the linear layer
that reads the stream. Anything else is refused, so that no order is applied to a model that is only
partly understood.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel
from spd_train.data.batching import TensorBatch

# The dimension that lies along an axis, by name of the parameter.
Places = Mapping[str, int]

_PROBE_SHAPE = (4, 12)


def residual_places(model: PreTrainedModel, encoder: Encoder) -> Places:
    """The dimension along the residual axis of each parameter outside the encoder, by name.

    Raises:
        BadModel: the residual stream cannot be followed.
    """
    aside, tables = _beside_the_stream(encoder), _projected_tables(encoder)
    ran = [name for name in modules_that_run(model) if name not in aside]
    modules = dict(model.named_modules())
    matrices = {m.name for m in encoder.matrices()}
    at = [i for i, name in enumerate(ran) if name in matrices]
    owners = {name for name, module in modules.items() if _own(module)} - aside - tables
    if len(ran) != len(set(ran)) or set(ran) != owners or len(at) != len(matrices):
        raise _lost("a module with weights runs twice or not at all")
    within = [name for name in ran[at[0] : at[-1]] if name not in matrices]
    makers, reader = _makers(ran[: at[0]], modules), _reader(ran[at[-1] + 1 :], modules)
    if strange := [n for n in (*within, *reader[:-1]) if not isinstance(modules[n], nn.LayerNorm)]:
        raise _lost(f"{strange[0]} is not a norm")
    places: dict[str, int] = {}
    for name in (*makers, *within, *reader):
        dimensions = _dimensions(name, modules[name], reads=name == reader[-1])
        places |= {f"{name}.{p}": dimension for p, dimension in dimensions.items()}
        _refuse_other_widths(name, modules[name], dimensions, encoder.hidden)
    return places | {f"{name}.weight": 1 for name in tables}


def _beside_the_stream(encoder: Encoder) -> set[str]:
    """Modules that run and never touch the stream: biases of attention scores."""
    relative = encoder.relative_positions
    return set() if relative is None else {f"{encoder.base}.{relative.module}"}


def _projected_tables(encoder: Encoder) -> set[str]:
    """Tables that run as no module, and that queries and keys project as they do the stream."""
    found = encoder.disentangled
    return set() if found is None else {f"{encoder.base}.{found.table}"}


def modules_that_run(model: PreTrainedModel) -> list[str]:
    """Names of the modules that own parameters, in the order in which they run, with repeats."""
    ran: list[str] = []

    def listener(name: str) -> Callable[..., None]:
        return lambda *_: ran.append(name)

    owners = [(name, module) for name, module in model.named_modules() if _own(module)]
    hooks = [m.register_forward_pre_hook(listener(name)) for name, m in owners]
    try:
        probe_logits(model)
    finally:
        for hook in hooks:
            hook.remove()
    return ran


def probe_logits(model: PreTrainedModel) -> Tensor:
    """Logits ``[B, C]`` on a fixed random batch, padding included, without dropout."""
    draw = torch.Generator().manual_seed(0)
    B, S = _PROBE_SHAPE
    mask_BS = (torch.arange(S) < torch.arange(S, S - B, -1)[:, None]).long()
    batch = TensorBatch(
        ids_BS=torch.randint(model.config.vocab_size, (B, S), generator=draw).to(model.device),
        mask_BS=mask_BS.to(model.device),
        types_BS=torch.zeros_like(mask_BS).to(model.device),
        labels_B=torch.zeros(B),
        step_rows=B,
        step_tokens=int(mask_BS.sum()),
    )
    was_training = model.training
    model.train(mode=False)
    try:
        with torch.no_grad():
            return model(**batch.model_inputs(model.config)).logits  # type: ignore[no-any-return]
    finally:
        model.train(was_training)


def _makers(before: Sequence[str], modules: Mapping[str, nn.Module]) -> list[str]:
    """The modules that make the stream: all before the encoder, or from its last projection on."""
    projections = [i for i, name in enumerate(before) if isinstance(modules[name], nn.Linear)]
    return list(before[projections[-1] :] if projections else before)


def _reader(after: Sequence[str], modules: Mapping[str, nn.Module]) -> list[str]:
    """Norms after the encoder, and the linear layer that reads the stream."""
    for i, name in enumerate(after):
        if isinstance(modules[name], nn.Linear):
            return list(after[: i + 1])
    raise _lost("no linear layer reads the last hidden state")


def _dimensions(name: str, module: nn.Module, *, reads: bool) -> dict[str, int]:
    """The residual dimension of each of a module's parameters, by their names in it."""
    match module:
        case nn.Linear() if reads:
            return {"weight": 1}
        case nn.Embedding():
            return {"weight": 1}
        case nn.LayerNorm() | nn.Linear():
            return {p: 0 for p in _own(module)}
        case _:
            raise _lost(f"{name} is a {type(module).__name__}")


def _refuse_other_widths(
    name: str, module: nn.Module, dimensions: Mapping[str, int], hidden: int
) -> None:
    """Refuse a parameter along the stream that has another width than the stream."""
    for parameter, dimension in dimensions.items():
        if (width := _own(module)[parameter].shape[dimension]) != hidden:
            raise _lost(f"{name}.{parameter} has {width} where the hidden state has {hidden}")


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the module itself, without those of its children."""
    return dict(module.named_parameters(recurse=False))


def _lost(why: str) -> BadModel:
    """The error for a model whose residual stream cannot be followed."""
    return BadModel(
        f"the order of the hidden state is not changed: {why}",
        fix="use a plain BERT-like classifier",
    )
