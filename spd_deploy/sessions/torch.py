"""Runs a checkpoint in PyTorch; artefacts are compared with it."""

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.checkpoint import refuse_unsafe_weights
from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.model_config import has_token_types
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.cuda.oom import fitting
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_deploy.sessions.protocol import Closing, Description, Device
from spd_deploy.sessions.torch_threads import threads_in_torch
from spd_deploy.sessions.transformers_model import load_classifier


class TorchSession(Closing):
    """A Hugging Face sequence classifier in PyTorch, in fp32."""

    def __init__(self, folder: Path, *, device: Device = "cpu", threads: int | None = None) -> None:
        """Load the model of ``folder`` on ``device``.

        On the CPU it runs with ``threads``; None takes as many as this process may use cores.

        Raises:
            Unavailable: CUDA was asked for and is not there, or has no room for the model.
            BadModel: the folder holds no safetensors model that transformers can load,
                or one without its classifier.
        """
        import torch

        if device == "cuda":
            refuse_without_cuda()
        refuse_unsafe_weights(folder)
        model = load_classifier(folder, fix="use a fine-tuned classifier", local_files_only=True)
        with fitting(folder, device):
            self.model = model.to(device).eval()
        self._threads = threads or default_threads() if device == "cpu" else None
        self.description = Description(
            runtime="torch",
            version=torch.__version__,
            device=device,
            precision="fp32",
            threads=self._threads,
        )

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]``, in fp32."""
        import torch

        inputs = {"input_ids": batch.ids_BS, "attention_mask": batch.mask_BS}
        if has_token_types(self.model.config):
            inputs["token_type_ids"] = batch.types_BS
        on_device = {k: torch.from_numpy(v).to(self.model.device) for k, v in inputs.items()}
        with torch.inference_mode(), threads_in_torch(self._threads):
            logits_BC = self.model(**on_device).logits
        return np.asarray(logits_BC.float().cpu().numpy())

    def close(self) -> None:
        """Drop the model, whose memory is freed with it; closing twice is fine."""
        with contextlib.suppress(AttributeError):
            del self.model
