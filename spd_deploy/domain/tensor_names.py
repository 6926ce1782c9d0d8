"""Names of stored tensors, read as Transformers reads them when it loads a classifier.

Transformers renames some tensors on loading. TensorFlow's ``gamma`` and ``beta`` of a layer norm
become ``weight`` and ``bias``, and a base model that was saved alone gets its name put before
every tensor. The same rules are written here, because reading names must not import PyTorch; a
test compares them with Transformers' own.
"""

import re

from spd_deploy.domain.models.known import ARCHITECTURES, BASE_OF

# The modules of a base model, as they are named where it was saved alone.
_OF_BASE = (
    "embeddings.",
    "embeddings_project.",
    "encoder.",
    "final_norm.",
    "layers.",
    "pooler.",
    "transformer.",
)
_LEGACY = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


def read_name(stored: str, model_type: object) -> str:
    """The name in Transformers of the tensor that a file calls ``stored``."""
    name = stored
    for old, new in _LEGACY:
        name = name.replace(old, new, 1)
    base = BASE_OF.get(str(model_type))
    if base is None or not name.startswith(_OF_BASE):
        return name
    heads = tuple(f"{layer.name}." for layer in ARCHITECTURES[base].head)
    return name if name.startswith(heads) else f"{base}.{name}"


def parts_of(name: str, model_type: object) -> tuple[str, ...]:
    """The tensors whose rows a tensor holds, one below the other; mostly that is itself alone.

    Some architectures store matrices as one that have names of their own here
    (``Architecture.stacked``).
    """
    known = ARCHITECTURES.get(BASE_OF.get(str(model_type), ""))
    if known is None or not known.stacked:
        return (name,)
    modules = "|".join(map(re.escape, known.stacked))
    found = re.fullmatch(
        rf"({re.escape(f'{known.base}.{known.layers}')}\.\d+)\.({modules})\.(.+)", name
    )
    if found is None:
        return (name,)
    layer, module, kind = found.groups()
    return tuple(f"{layer}.{part}.{kind}" for part in known.stacked[module])
