"""The number format of the forward and backward passes."""

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch

from spd_deploy.domain.errors import Unavailable
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_train.config import PrecisionChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedPrecision:
    """A number format of the passes; weights and updates stay in fp32.

    Attributes:
        name: ``fp32`` or ``bf16``.
        reason: why it was chosen, in words.
    """

    name: Literal["fp32", "bf16"]
    reason: str

    def autocast(self, device: str) -> contextlib.AbstractContextManager[object]:
        """The autocast context for passes on ``device``."""
        return torch.autocast(device, torch.bfloat16, enabled=self.name == "bf16")


def choose_precision(choice: PrecisionChoice, device: str) -> MixedPrecision:
    """The number format that was asked for; for ``auto`` bf16 if the hardware multiplies it.

    Args:
        choice: ``auto``, ``fp32`` or ``bf16``.
        device: ``cpu`` or ``cuda``.

    Raises:
        Unavailable: there is no such device, or it does not multiply bf16.
    """
    if device == "cuda":
        refuse_without_cuda()
    has_bf16, reason = _bf16_hardware(device)
    match choice:
        case "fp32":
            return MixedPrecision(name="fp32", reason="as asked")
        case "bf16" if not has_bf16:
            raise Unavailable(f"no bf16 on this {device}", got=reason, fix="use --precision fp32")
        case "bf16":
            return MixedPrecision(name="bf16", reason="as asked")
        case "auto":
            return MixedPrecision(name="bf16" if has_bf16 else "fp32", reason=reason)


def _bf16_hardware(device: str) -> tuple[bool, str]:
    """Whether the device multiplies bf16 matrices in hardware, and how that is known."""
    if device == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return supported, f"the GPU has {'' if supported else 'no '}bf16"
    capabilities = torch.cpu.get_capabilities()
    features = [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
    named = features[0] if features else "neither amx_bf16 nor avx512_bf16"
    return bool(features), f"the CPU has {named}"
