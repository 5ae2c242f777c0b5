"""GraSP: Wang, Zhang and Grosse, Picking Winning Tickets before Training by Preserving Gradient Flow, ICLR 2020."""

from __future__ import annotations

import torch

from nasbench import Arch, Run
from nasbench_zerocost.proxy import ImageProxy, gradients, loss, weights


class GraSP(ImageProxy):
    """sum of -theta * (H g) over weights, H the Hessian and g the gradient of a batch's loss: how much the squared norm
    of the gradient would fall, to first order, without each of them."""

    def measure(self, run: Run, arch: Arch) -> float:
        net, (batch,) = self.network(run, arch), self.batches(run)
        parts = weights(net)
        slopes = gradients(loss(net, batch), parts, create_graph=True)
        product = torch.stack([(g * g.detach()).sum() for g in slopes]).sum()  # its gradient is H g
        curvature = gradients(product, parts)
        return -sum(float((w.detach() * hg).sum()) for w, hg in zip(parts, curvature, strict=True))
