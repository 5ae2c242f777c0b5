"""Masks of channels that are given, and networks under them or cut down to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from nasbench_backbones.channels import ChannelSpace
from torch import Tensor, nn

from nasbench import Arch, Run
from nasbench.batch_norm import recalibration_batches
from nasbench_dance.sampling import top

#: For each gate the mask [c] of the channels kept, 1 or 0.
Selection = dict[str, Tensor]


def space_of(run: Run) -> ChannelSpace:
    """The channel space of a run that was not refused."""
    return cast(ChannelSpace, run.space)


def random_masks(run: Run, purpose: str, arch: Arch) -> Selection:
    """As many channels behind each gate as the architecture says, every choice of them equally likely."""
    rng, space = run.generator(purpose), space_of(run)
    widths = space.widths(arch)
    return {gate: top(torch.rand(c, generator=rng), widths[gate]).to(run.device) for gate, c in space.channels.items()}


class Masks:
    """Masks [c] that are given, by gate or by layer: `gate(name, x [B,c,H,W])` multiplies x by its own."""

    def __init__(self, space: ChannelSpace, masks: Mapping[str, Tensor]) -> None:
        self.masks = {m: masks[m if m in masks else gate] for gate, of in space.members.items() for m in of}

    def __call__(self, name: str, x: Tensor) -> Tensor:
        return x * self.masks[name].to(x.dtype)[:, None, None]


class Masked(nn.Module):
    """A network with a gate in place: images [B,C,H,W] -> logits [B,K]."""

    def __init__(self, net: nn.Module, gate: Callable[[str, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.gate = net, gate

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images, self.gate)
        return logits


@torch.no_grad()
def recalibrate(run: Run, network: nn.Module) -> None:
    """Replace running statistics by the averages over training batches."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then keeps the plain average
    network.train()
    for batch in recalibration_batches(run):
        run.predict(network, batch.images)
    network.eval()
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
