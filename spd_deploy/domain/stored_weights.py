"""The safetensors of a model folder: one file, or shards with an index that names them.

No tensor is read here but its name, type, shape and place. The names are those that Transformers
gives the tensors on loading (``domain.tensor_names``), whatever the files call them.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.files import read_json, sha256_of
from spd_deploy.domain.tensor_names import parts_of, read_name

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# What else weights are found in; named in the error, never opened.
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.safetensors", "*.gguf")
# What a file begins with that git cloned without Git LFS.
_POINTER = b"version https://git-lfs"
_FLOATS = ("F64", "F32", "F16", "BF16")
_COPY_AGAIN = "copy the model again from where it came"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """The place of a tensor: the file, its name there, its safetensors type and its shape.

    Attributes:
        first_row: the row of the stored tensor at which it begins, where that holds several.
    """

    file: Path
    stored_name: str
    dtype: str
    shape: tuple[int, ...]
    first_row: int | None = None

    @property
    def rows(self) -> slice:
        """Its rows of the stored tensor."""
        first = self.first_row
        return slice(None) if first is None else slice(first, first + self.shape[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWeights:
    """All tensors of a model folder, by the name that Transformers gives them."""

    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor by its name."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def stored_in_half(self, names: Collection[str]) -> tuple[str, ...]:
        """The half-precision types among the named tensors, such as ``("BF16",)``."""
        found = {self.tensors[name].dtype for name in names if name in self.tensors}
        return tuple(sorted(found & {"F16", "BF16"}))

    def refuse_quantised(self, names: Collection[str]) -> None:
        """Refuse weights that are not floating-point numbers of 16 bits or more.

        Raises:
            BadModel: one of the named tensors is stored in another type.
        """
        for name in names:
            tensor = self.tensors.get(name)
            if tensor is not None and tensor.dtype not in _FLOATS:
                raise BadModel(
                    f"{name} in {tensor.file} is not stored in floating point",
                    got=tensor.dtype,
                    fix="use the model from before it was quantised; spd export quantises itself",
                )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a model folder, as Transformers chooses them.

    Raises:
        BadModel: there are none, or the index or a shard that it names is missing or damaged.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    index = folder / INDEX_FILE
    if not index.is_file():
        raise _no_safetensors(folder)
    shards = _shards(read_json(index, error=BadModel, fix=_COPY_AGAIN))
    if not shards:
        raise BadModel(f"{index} names no shards", fix=_COPY_AGAIN)
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise BadModel(
            f"{folder} lacks {len(missing)} of the {len(shards)} shards that {INDEX_FILE} names",
            got=f"no {missing[0]}",
            fix=_COPY_AGAIN,
        )
    return tuple(folder / name for name in shards)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds safetensors of a whole model, in one file or in shards."""
    return any((folder / name).is_file() for name in (WEIGHTS_FILE, INDEX_FILE))


def stored_weights(folder: Path, config: Mapping[str, Any]) -> StoredWeights:
    """The tensors of a model folder with this ``config.json``.

    Raises:
        BadModel: there are no safetensors, or a file is missing or damaged.
    """
    files = weight_files(folder)
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for tensor in _tensors_of(file):
            tensors |= _read(tensor, config.get("model_type"))
    return StoredWeights(files=files, tensors=tensors)


def sha256_of_weights(folder: Path) -> str:
    """The identity of the weights: the SHA-256 of their file, or of the list of their shards.

    Raises:
        BadModel: there are no safetensors.
    """
    files = weight_files(folder)
    if len(files) == 1 and files[0].name == WEIGHTS_FILE:
        return sha256_of(files[0])
    listed = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _shards(index: Mapping[str, Any]) -> list[str]:
    """The files that an index names, each of which must lie beside it."""
    try:
        names = sorted({str(name) for name in index["weight_map"].values()})
    except (KeyError, AttributeError) as err:
        raise BadModel(f"{INDEX_FILE} is damaged", got=repr(err), fix=_COPY_AGAIN) from err
    outside = [n for n in names if Path(n).name != n or Path(n).suffix != ".safetensors"]
    if outside:
        raise BadModel(
            f"{INDEX_FILE} names a shard that is no safetensors file beside it",
            got=outside[0],
            fix=_COPY_AGAIN,
        )
    return names


def _read(tensor: StoredTensor, model_type: object) -> dict[str, StoredTensor]:
    """The tensors that a stored one holds, by name.

    Raises:
        BadModel: its rows cannot be shared out evenly.
    """
    name = read_name(tensor.stored_name, model_type)
    names = parts_of(name, model_type)
    if len(names) == 1:
        return {name: tensor}
    rows = tensor.shape[0] if tensor.shape else 0
    size, rest = divmod(rows, len(names))
    if rest or not size:
        raise BadModel(
            f"{tensor.stored_name} in {tensor.file} does not hold {len(names)} matrices of a size",
            got=f"shape {tensor.shape}",
            fix=_COPY_AGAIN,
        )
    shape = (size, *tensor.shape[1:])
    return {part: replace(tensor, shape=shape, first_row=i * size) for i, part in enumerate(names)}


def _tensors_of(file: Path) -> list[StoredTensor]:
    """The tensors of one file, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            found = [(name, opened.get_slice(name)) for name in opened.keys()]  # noqa: SIM118
            return [
                StoredTensor(
                    file=file,
                    stored_name=name,
                    dtype=str(part.get_dtype()),
                    shape=tuple(part.get_shape()),
                )
                for name, part in found
            ]
    except (OSError, SafetensorError, json.JSONDecodeError) as err:
        with suppress(OSError), file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise BadModel(
                    f"{file} is a pointer of Git LFS, not the weights", fix="run git lfs pull"
                ) from err
        raise BadModel(f"{file} is damaged", got=err, fix=_COPY_AGAIN) from err


def _no_safetensors(folder: Path) -> BadModel:
    """The error for a folder whose weights are of another kind, or not there."""
    others = sorted({p.name for glob in _OTHER_WEIGHTS for p in folder.glob(glob)})
    adapter = next((name for name in others if name.startswith("adapter_model")), None)
    if adapter is not None:
        return BadModel(
            f"{folder} holds an adapter, not a whole model",
            got=adapter,
            fix="merge it into its base model with PEFT's merge_and_unload(), and save that",
        )
    found = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if others[3:] else "")
    if any(name.endswith(".safetensors") for name in others):
        return BadModel(
            f"{folder} has no {WEIGHTS_FILE} and no {INDEX_FILE}",
            got=found,
            fix=f"name the file {WEIGHTS_FILE}; shards need the {INDEX_FILE} that lies beside them",
        )
    return BadModel(
        f"{folder} has no {WEIGHTS_FILE}",
        got=found or "no weights at all",
        fix="convert the weights to safetensors with save_pretrained(); pickled weights are never "
        "opened",
    )
