"""SNIP: Lee, Ajanthan and Torr, SNIP: Single-Shot Network Pruning Based on Connection Sensitivity, ICLR 2019."""

from __future__ import annotations

from nasbench import Arch, Run
from nasbench_zerocost.proxy import ImageProxy, gradients, loss, weights


class SNIP(ImageProxy):
    """sum of |theta * dL/dtheta| over weights: how much the loss of a batch would change without each of them."""

    def measure(self, run: Run, arch: Arch) -> float:
        net, (batch,) = self.network(run, arch), self.batches(run)
        parts = weights(net)
        slopes = gradients(loss(net, batch), parts)
        return sum(float((w.detach() * g).abs().sum()) for w, g in zip(parts, slopes, strict=True))
