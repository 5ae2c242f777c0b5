"""SynFlow: Tanaka, Kunin, Yamins and Ganguli, Pruning Neural Networks without Any Data, NeurIPS 2020; as a proxy:
Abdelfattah, Mehrotra, Dudziak and Lane, Zero-Cost Proxies for Lightweight NAS, ICLR 2021."""

from __future__ import annotations

import torch
from torch import nn

from nasbench import Arch, Run
from nasbench_zerocost.proxy import Proxy, gradients, weights


class SynFlow(Proxy):
    """sum of theta * dR/dtheta over weights, where R is the sum of the logits of an image of ones, every parameter is
    replaced by its absolute value, and there is no batch norm. It needs no data."""

    def measure(self, run: Run, arch: Arch) -> float:
        net = without_signs(self.network(run, arch))
        ones = torch.ones(1, *run.space.image, dtype=torch.float64, device=run.device)
        parts = weights(net)
        slopes = gradients(net(ones).sum(), parts)
        return sum(float((w.detach() * g).sum()) for w, g in zip(parts, slopes, strict=True))


def without_signs(net: nn.Module) -> nn.Module:
    """The network with absolute values for parameters and nothing for batch norms, in float64: deep ones overflow."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    net = net.double().eval()  # without dropout
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    return net
