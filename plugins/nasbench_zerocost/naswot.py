"""NASWOT: Mellor, Turner, Storkey and Crowley, Neural Architecture Search without Training, ICML 2021."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nasbench import Arch, Run
from nasbench_zerocost.proxy import ImageProxy

#: On where the input is positive. `nn.ReLU6` calls `hardtanh`.
RECTIFIERS = {torch.relu, torch.Tensor.relu, F.relu, F.relu6, F.hardtanh, F.leaky_relu, F.hardswish}


class NASWOT(ImageProxy):
    """log |det K|, where K[i,j] counts the rectifiers that are on for both images i and j, or off for both."""

    def measure(self, run: Run, arch: Arch) -> float:
        net, (batch,) = self.network(run, arch), self.batches(run)
        return naswot(net, batch.images)


class Codes(TorchFunctionMode):
    """Inside, counts for each pair of images how many rectifiers agree: `kernel` [B,B], float64."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = torch.zeros((), dtype=torch.float64)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RECTIFIERS:
            on = (args[0] > 0).flatten(1).float()
            off = 1 - on
            agree = on @ on.T + off @ off.T  # counts below 2^24: exact
            self.kernel = self.kernel.to(on.device) + agree.double()
        return func(*args, **(kwargs or {}))


def naswot(forward: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """The score of whatever computes logits from images [B,C,H,W]; -inf where two images look the same to it."""
    codes = Codes()
    with torch.no_grad(), codes:
        forward(images)
    return float(torch.linalg.slogdet(codes.kernel).logabsdet) if codes.kernel.ndim else float("-inf")
