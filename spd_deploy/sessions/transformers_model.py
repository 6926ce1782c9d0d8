"""Transformers' sequence classifier of a folder or a name on the hub, in fp32.

Every place that runs a model in Transformers loads it here: from safetensors, without the code that
a folder may bring along, and in fp32 whatever the weights are stored in.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.checkpoint import refuse_lacking
from spd_deploy.domain.errors import BadModel, SpdError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_classifier(
    reference: str | Path,
    *,
    config: Any = None,
    may_draw: Callable[[str, "PreTrainedModel"], bool] = lambda name, model: False,
    note: Callable[[str], None] = lambda text: None,
    fix: str = "use a complete model whose config.json is its own",
    **settings: Any,
) -> Any:
    """Load a classifier with all its weights.

    Args:
        reference: a folder, or a name on the hub.
        config: what the model is made by; its own ``config.json`` where there is none.
        may_draw: whether a tensor that the weights lack, or have in another size, may be drawn at
            random, as a new head is; no tensor may be by default.
        note: reports in a sentence where a tensor of another size was left out.
        fix: what to do about tensors that are lacking.
        settings: other arguments of ``from_pretrained``.

    Raises:
        BadModel: the model does not load, or tensors are lacking or of another size.
    """
    model, info = _loaded(reference, config, **settings)
    model.config.return_dict = True  # a config may ask for tuples, in which logits have no name
    misfits = sorted(info["mismatched_keys"])
    for name, stored, made in misfits:
        if not may_draw(name, model):
            raise BadModel(
                f"{name} in the weights of {reference} has another size than in the model that "
                "config.json or the task asks for",
                got=f"{tuple(stored)}, expected {tuple(made)}",
                fix=fix,
            )
    if misfits:
        name, stored, made = max(misfits, key=lambda misfit: len(misfit[1]))
        note(
            f"{reference} has a classifier of {stored[0]} outputs, the task needs {made[0]}: "
            f"a new one is drawn and trained ({name})"
        )
    lacking = [name for name in info["missing_keys"] if not may_draw(name, model)]
    refuse_lacking(reference, lacking, fix=fix)
    return model


def _loaded(reference: str | Path, config: Any, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and what of its tensors was missing, unexpected or of another size.

    Raises:
        BadModel: Transformers cannot load it.
    """
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if config is not None:
        settings["config"] = config
    try:
        return AutoModelForSequenceClassification.from_pretrained(  # type: ignore[no-any-return]
            reference,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **settings,
        )
    except SpdError:
        raise
    except Exception as err:
        raise BadModel(
            f"{reference} does not load as a sequence classifier",
            got=first_line(err),
            fix="check that the folder is complete and its config.json the model's own",
        ) from err
