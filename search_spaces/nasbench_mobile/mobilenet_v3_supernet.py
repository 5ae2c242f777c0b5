"""The elastic supernet of the MobileNetV3 space: every architecture in the weights of the largest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_mobile.mobilenet_v3 import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, UNITS
from nasbench_mobile.mobilenet_v3_networks import Block, Network, Squeeze

if TYPE_CHECKING:
    from nasbench import Arch, Mixture
    from nasbench_mobile.inverted_residual import Place
    from nasbench_mobile.mobilenet_v3 import MobileNetV3

#: The option of a decision, or weights [3] over its options.
Choice: TypeAlias = "int | Tensor"
N = UNITS * BLOCKS


class Nested(list[Tensor]):
    """A mixture whose options are parts of each other: 45 tensors [3].

    The subnet's own weights are masked: the outer ring of a kernel counts as much as the larger kernels weigh, the
    last channels as much as the larger widths, a block as much as the depths that have it. An ordinary mixture
    instead computes every option and adds up the results.
    """


def part(whole: Tensor, shape: Sequence[int]) -> Tensor:
    """The view of a shared weight that a smaller one uses: the first channels, the centre of the kernel."""
    views = [slice(n) for n in shape[:2]]
    views += [slice((big - n) // 2, (big + n) // 2) for big, n in zip(whole.shape[2:], shape[2:], strict=True)]
    return whole[tuple(views)]


@lru_cache
def rings(device: torch.device) -> Tensor:
    """For each kernel size, which of the largest kernel's pixels it has, shape [3,7,7]."""
    away = (torch.arange(KERNELS[-1]) - KERNELS[-1] // 2).abs()
    radii = torch.tensor(KERNELS).view(-1, 1, 1) // 2
    return (torch.maximum(away[:, None], away) <= radii).float().to(device)


@lru_cache
def leading(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """For each width, which channels it has: the first, shape [3,channels]."""
    return (torch.arange(sizes[-1]) < torch.tensor(sizes)[:, None]).float().to(device)


def weighted(choice: Tensor, masks: Tensor) -> Tensor:
    """The sum of masks [3,...], each with its option's weight."""
    return torch.tensordot(choice, masks.to(choice.dtype), 1)


def batch_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Batch statistics always, so each subnet is normalised by its own; the first channels' scale and shift."""
    norm, count = cast(nn.BatchNorm2d, norm), x.shape[1]
    return F.batch_norm(x, None, None, norm.weight[:count], norm.bias[:count], training=True, eps=norm.eps)


class ElasticBlock(Block):
    """The largest block of a place, of which smaller ones use a part."""

    def __init__(self, place: Place, kernel: int, expansion: int) -> None:
        super().__init__(place, kernel, expansion)
        self.middles = tuple(place.middle(e) for e in EXPANSIONS)
        self.squeezes = tuple(place.squeezed(e) for e in EXPANSIONS)
        self.stride = place.stride

    def forward(self, x: Tensor, kernel: Choice = 2, width: Choice = 2) -> Tensor:
        """With options, a subnet's block; with weights [3] over options, the nested mixture of all.

        Channels are masked after batch norm and activation, whose shift would bring them back.
        """
        soft = isinstance(width, Tensor)
        m = self.middles[2 if isinstance(width, Tensor) else width]
        mask = weighted(width, leading(self.middles, x.device)).view(-1, 1, 1) if isinstance(width, Tensor) else None
        y = self.act(batch_norm(F.conv2d(x, self.expand.weight[:m]), self.norm1))
        y = y * mask if soft else y
        weight = self.kernel(kernel)[:m]
        y = F.conv2d(y, weight, None, self.stride, weight.shape[-1] // 2, groups=m)
        y = self.act(batch_norm(y, self.norm2))
        y = y * mask if soft else y
        if isinstance(self.squeeze, Squeeze):
            y = y * self.excitation(y, self.squeeze, width)
        y = batch_norm(F.conv2d(y, self.project.weight[:, :m]), self.norm3)
        return x + y if self.residual else y

    def kernel(self, choice: Choice) -> Tensor:
        """The depthwise weights: a view of the largest kernel's centre, or its rings weighted."""
        whole = self.depthwise.weight
        if isinstance(choice, Tensor):
            return whole * weighted(choice, rings(whole.device))
        return part(whole, (*whole.shape[:2], KERNELS[choice], KERNELS[choice]))

    def excitation(self, x: Tensor, squeeze: Squeeze, width: Choice) -> Tensor:
        """The gates [B,C,1,1] of squeeze-and-excitation, with as many inner channels as the width has."""
        m, s = x.shape[1], self.squeezes[2 if isinstance(width, Tensor) else width]
        bias = cast(Tensor, squeeze.reduce.bias)[:s]
        inner = F.relu(F.conv2d(x.mean((2, 3), keepdim=True), squeeze.reduce.weight[:s, :m], bias))
        if isinstance(width, Tensor):
            inner = inner * weighted(width, leading(self.squeezes, x.device)).view(-1, 1, 1)
        return F.hardsigmoid(F.conv2d(inner, squeeze.expand.weight[:m, :s], cast(Tensor, squeeze.expand.bias)[:m]))

    def mix(self, x: Tensor, kernels: Tensor, widths: Tensor) -> Tensor:
        """The weighted sum of every pair of kernel size and width; exact zeros are not computed."""
        pairs = [(k, e) for k, p in enumerate(kernels.tolist()) if p for e, q in enumerate(widths.tolist()) if q]
        return cast(Tensor, sum(kernels[k] * widths[e] * self(x, k, e) for k, e in pairs))

    @torch.no_grad()
    def sort_channels(self, kept: Sequence[int]) -> None:
        """Put the channels that the projection weighs most first, in each range that the kept widths bound."""
        order = by_importance(self.project.weight.abs().sum((0, 2, 3)), [self.middles[e] for e in kept])
        rows: list[Tensor] = [
            self.expand.weight,
            self.depthwise.weight,
            *self.norm1.parameters(),
            *self.norm2.parameters(),
        ]
        columns: list[Tensor] = [self.project.weight]
        if isinstance(self.squeeze, Squeeze):
            reduce, expand = self.squeeze.reduce, self.squeeze.expand
            rows, columns = [*rows, *expand.parameters()], [*columns, reduce.weight]
            inner = by_importance(expand.weight.abs().sum((0, 2, 3)), [self.squeezes[e] for e in kept])
            reduce.weight.copy_(reduce.weight[inner])
            cast(Tensor, reduce.bias).copy_(cast(Tensor, reduce.bias)[inner])
            expand.weight.copy_(expand.weight[:, inner])
        for p in rows:
            p.copy_(p[order])
        for p in columns:
            p.copy_(p[:, order])


def by_importance(importance: Tensor, bounds: Sequence[int]) -> Tensor:
    """An order that is descending inside each of the ranges that end at the bounds."""
    ranges = zip([0, *bounds], bounds, strict=False)
    return torch.cat([a + importance[a:b].argsort(descending=True, stable=True) for a, b in ranges])


class Supernet(Network):
    """Every architecture in the weights of the largest: `net(images [B,C,H,W], archs) -> logits [n,B,K]`.

    `archs` are architectures, mixtures or `Nested` mixtures. Kernels are centre crops, widths the first channels,
    depths the first blocks. Batch norm takes batch statistics always and keeps none.
    """

    Block: ClassVar[type[Block]] = ElasticBlock

    def __init__(self, space: MobileNetV3) -> None:
        super().__init__(space, (2,) * len(space.choices))
        self.space = space
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None

    def forward(self, images: Tensor, archs: Sequence[Arch | Mixture]) -> Tensor:  # type: ignore[override]
        x = self.open(images)
        return torch.stack([self.close(self.through(x, arch)) for arch in archs])

    def through(self, x: Tensor, arch: Arch | Mixture) -> Tensor:
        """The units of one subnet or mixture."""
        for u, unit in enumerate(self.units):
            depth, total = arch[2 * N + u], None
            for b, module in enumerate(cast(nn.ModuleList, unit)):
                block, kernel, width = cast(ElasticBlock, module), arch[4 * u + b], arch[N + 4 * u + b]
                if not isinstance(depth, Tensor):
                    x = block(x, kernel, width) if b < DEPTHS[depth] else x
                elif isinstance(arch, Nested):
                    gate = depth[[d > b for d in DEPTHS]].sum()  # what the depths with this block weigh
                    x = block(x, kernel, width) if b < DEPTHS[0] else x * (1 - gate) + block(x, kernel, width) * gate
                elif depth[[d > b for d in DEPTHS]].any():
                    x = block.mix(x, cast(Tensor, kernel), cast(Tensor, width))
                    if b + 1 in DEPTHS:
                        ended = depth[DEPTHS.index(b + 1)] * x
                        total = ended if total is None else total + ended
            x = x if total is None else total
        return x

    def subnet(self, arch: Arch) -> Network:
        """The plain network of an architecture with a copy of its weights; its batch norms have seen nothing yet."""
        with torch.device("meta"):
            network = Network(self.space, arch).to(self.classifier.weight.dtype)
        network = network.to_empty(device=self.classifier.weight.device)
        mine = dict(self.named_parameters())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(part(mine[name], parameter.shape))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        return network

    def sort_channels(self, kept: Sequence[int]) -> None:
        """Reorder every block's middle channels by importance; subnets of the kept widths compute the same.

        `kept` are width options in rising order, the largest included. Once-for-all does so before it makes
        widths elastic: a channel counts as much as the absolute weights of the projection that reads it.
        """
        for module in self.modules():
            if isinstance(module, ElasticBlock):
                module.sort_channels(kept)


def expected_madds(space: MobileNetV3, mixture: Tensor) -> Tensor:
    """See `MobileNetV3.expected_madds`."""

    def each(values: list[float] | list[list[float]]) -> Tensor:
        return mixture.new_tensor(values)

    places, kernels, widths, depths = (
        space.places,
        mixture[..., :N, :],
        mixture[..., N:-UNITS, :],
        mixture[..., -UNITS:, :],
    )
    area = kernels @ each([float(k * k) for k in KERNELS])
    middle = (widths * each([[float(p.middle(e)) for e in EXPANSIONS] for p in places])).sum(-1)
    squeeze = each([[2.0 * p.middle(e) * p.squeezed(e) * p.squeeze for e in EXPANSIONS] for p in places])
    pointwise = each([float(p.in_channels * p.in_area + p.out_channels * p.out_area) for p in places])
    blocks = middle * (pointwise + area * each([float(p.out_area) for p in places])) + (widths * squeeze).sum(-1)
    there = [depths[..., [d > b for d in DEPTHS]].sum(-1) if b >= DEPTHS[0] else 1.0 for b in range(BLOCKS)]
    units = blocks.unflatten(-1, (UNITS, BLOCKS))
    return space.fixed_cost["madds"] + sum((units[..., b] * there[b]).sum(-1) for b in range(BLOCKS))
