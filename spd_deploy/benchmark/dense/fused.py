"""ONNX Runtime's own form of a dense model: its transformer optimiser's fused operators.

The exporter is PyTorch's older one, since the newer one's graphs lose these fusions; its warnings
that it is old are not the reader's concern.
"""

import warnings
from pathlib import Path
from typing import Any

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import SpdError, Unavailable, first_line
from spd_deploy.domain.model_config import has_token_types
from spd_deploy.domain.text import INPUTS
from spd_deploy.sessions.transformers_model import load_classifier

# The operators that ONNX Runtime's optimiser makes of a layer's attention.
_FUSED = ("Attention", "MultiHeadAttention")


def fused_from_checkpoint(folder: Path, encoder: Encoder, file: Path, *, gpu: bool = True) -> Path:
    """Write the classifier of ``folder`` as ONNX Runtime's tools make it for a GPU, or a CPU.

    Raises:
        Unavailable: the tools do not take this model, or do not fuse its attention.
    """
    try:
        _export(folder, file)
        _fuse(encoder, file, gpu=gpu)
        refuse_unfused(file, encoder.layers)
    except SpdError:
        file.unlink(missing_ok=True)  # or it would pass for a fused one
        raise
    except Exception as err:
        raise Unavailable(
            "ONNX Runtime's transformer tools do not take this model",
            got=first_line(err),
            fix="leave this arm out",
        ) from err
    return file


def refuse_unfused(file: Path, layers: int) -> None:
    """Refuse a graph in which the optimiser did not fuse the attention of every layer.

    It matches the nodes that PyTorch's exporter wrote for a version of Transformers, and says
    nothing where a newer version computes the same otherwise.

    Raises:
        Unavailable: fewer attention nodes than layers.
    """
    import onnx

    kinds = [node.op_type for node in onnx.load(file, load_external_data=False).graph.node]
    found = sum(kinds.count(kind) for kind in _FUSED)
    if found < layers:
        from transformers import __version__

        raise Unavailable(
            "ONNX Runtime's transformer tools did not fuse this model's attention",
            got=f"{found} fused attention nodes for {layers} layers, by Transformers {__version__}",
            fix="leave this arm out, or install another version of Transformers",
        )


def _export(folder: Path, file: Path) -> None:
    """The graph as the model computes, with attention written out, which the optimiser knows."""
    import torch

    model = load_classifier(folder, local_files_only=True, attn_implementation="eager").eval()
    typed = has_token_types(model.config)

    class Logits(torch.nn.Module):
        """The classifier without what surrounds its answer."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids_BS: Any, mask_BS: Any, types_BS: Any) -> Any:
            """The logits; ids of types that tell no texts apart are read and not used."""
            types = types_BS if typed else None
            found = self.model(input_ids=ids_BS, attention_mask=mask_BS, token_type_ids=types)
            return found.logits if typed else found.logits + 0 * types_BS.sum()

    ids_BS = torch.ones(2, 16, dtype=torch.long)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits().train(mode=False),
            (ids_BS, ids_BS, ids_BS * 0),
            str(file),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in INPUTS},
            opset_version=17,
            dynamo=False,
        )


def _fuse(encoder: Encoder, file: Path, *, gpu: bool) -> None:
    """Fuse attention, norms and activations; for a GPU in fp16, but for inputs and logits."""
    from onnxruntime.transformers import optimizer

    model = optimizer.optimize_model(
        str(file),
        model_type="bert",
        num_heads=encoder.heads,
        hidden_size=encoder.hidden,
        opt_level=0 if gpu else None,
        use_gpu=gpu,
    )
    if gpu:
        model.convert_float_to_float16(keep_io_types=True)
    model.save_model_to_file(str(file))
