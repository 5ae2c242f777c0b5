"""ZiCo: Li, Yang, Bhardwaj and Marculescu, ZiCo: Zero-Shot NAS via Inverse Coefficient of Variation on Gradients,
ICLR 2023."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field

from nasbench import Arch, Run
from nasbench_zerocost.proxy import ImageProxy, gradients, loss, weights


class ZiCo(ImageProxy):
    """sum over layers of log(sum over weights of mean |g| / std |g|), mean and deviation over batches (Eq. 15)."""

    batches_compared: int = Field(2, ge=2)
    """Batches whose gradients are compared."""
    deviation: Literal["absolute", "signed"] = "absolute"
    """Of what the standard deviation is: |g|, as the paper writes, or g, as its code computes."""

    @property
    def count(self) -> int:
        return self.batches_compared

    def measure(self, run: Run, arch: Arch) -> float:
        net = self.network(run, arch)
        parts = weights(net)
        slopes = [gradients(loss(net, batch), parts) for batch in self.batches(run)]
        total = 0.0
        for of_layer in zip(*slopes, strict=True):
            g = torch.stack(of_layer).double()
            spread = (g.abs() if self.deviation == "absolute" else g).std(0, correction=0)
            moving = spread > 0  # the others say nothing
            ratio = float((g.abs().mean(0)[moving] / spread[moving]).sum())
            total += math.log(ratio) if ratio else 0.0
        return total
