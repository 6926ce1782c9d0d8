"""Which number format the forward and backward passes use, and why."""

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch

from spd_deploy.domain.errors import Unavailable
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_train.config import PrecisionWish


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedPrecision:
    """A number format with the reason for it; weights and updates stay in fp32."""

    name: Literal["fp32", "bf16"]
    reason: str

    def autocast(self, device: str) -> contextlib.AbstractContextManager[object]:
        """The context in which the passes run."""
        return torch.autocast(device, torch.bfloat16, enabled=self.name == "bf16")


def choose_precision(wish: PrecisionWish, device: str) -> MixedPrecision:
    """What the user asked for, or for ``auto`` bf16 where the hardware computes in it.

    Raises:
        Unavailable: there is no such device, or bf16 was asked for and the hardware has none.
    """
    if device == "cuda":
        refuse_without_cuda()
    has_bf16, reason = _bf16_hardware(device)
    match wish:
        case "fp32":
            return MixedPrecision(name="fp32", reason="as asked")
        case "bf16" if not has_bf16:
            raise Unavailable(f"no bf16 on this {device}", got=reason, fix="use --precision fp32")
        case "bf16":
            return MixedPrecision(name="bf16", reason="as asked")
        case "auto":
            return MixedPrecision(name="bf16" if has_bf16 else "fp32", reason=reason)


def _bf16_hardware(device: str) -> tuple[bool, str]:
    """Whether the device multiplies bf16 matrices itself, and how that is known."""
    if device == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return has, f"the GPU has {'' if has else 'no '}bf16"
    capable = torch.cpu.get_capabilities()
    found = [name for name in ("amx_bf16", "avx512_bf16") if capable.get(name)]
    return bool(found), f"the CPU has {found[0] if found else 'neither amx_bf16 nor avx512_bf16'}"
