"""The networks of AutoFormer's space: one architecture alone, and all of them in the weights of the largest."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nasbench_transformers.autoformer import DEPTHS, HEADS, LAYERS, PLACES, RATIOS, REACH

if TYPE_CHECKING:
    from nasbench import Arch
    from nasbench_transformers.autoformer import AutoFormerTiny


class Nested(list[Tensor]):
    """A mixture whose options are parts of each other: 30 tensors [2] or [3], which weigh the supernet's weights.

    A weight counts as much as the options weigh that have it. Only depths weigh what comes out of a layer.
    """


def part(layer: nn.Linear, x: Tensor, outputs: int) -> Tensor:
    """What the first inputs and outputs of a linear layer make of x [...,inputs]; its weights are views."""
    return F.linear(x, layer.weight[:outputs, : x.shape[-1]], layer.bias[:outputs])


class Norm(nn.LayerNorm):
    """Layer norm over as many of its dimensions as x has; with shares [dimensions], by their weighted moments."""

    def forward(self, x: Tensor, share: Tensor | None = None) -> Tensor:
        n = x.shape[-1]
        if share is None:
            return F.layer_norm(x, (n,), self.weight[:n], self.bias[:n], self.eps)
        centred = x - (x @ share / share.sum()).unsqueeze(-1)
        variance = (centred.square() @ share / share.sum()).unsqueeze(-1)
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias


class Relative(nn.Module):
    """A vector [T,T,head] for where one token stands relative to another, of two tables, down and across."""

    index: Tensor

    def __init__(self, head: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.down, self.across = (nn.Parameter(torch.empty(PLACES, head)) for _ in range(2))
        height, width = grid
        rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
        away = torch.stack([axis - axis[:, None] for axis in (rows, columns)]).clamp(-REACH, REACH)
        # Row 0 is for the class token, which is nowhere.
        self.register_buffer("index", F.pad(away + REACH + 1, (1, 0, 1, 0)), persistent=False)

    def forward(self) -> Tensor:
        return F.embedding(self.index[0], self.down) + F.embedding(self.index[1], self.across)


class Layer(nn.Module):
    """A transformer layer, normalised first: attention with relative positions (Shaw et al., 2018), then the MLP."""

    def __init__(self, space: AutoFormerTiny, embed: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.head, inner = space.head, heads * space.head
        self.norm1, self.norm2 = Norm(embed), Norm(embed)
        self.query, self.key, self.value = (nn.Linear(embed, inner) for _ in range(3))
        self.near_key, self.near_value = (Relative(space.head, space.grid) for _ in range(2))
        self.project = nn.Linear(inner, embed)
        self.up, self.down = nn.Linear(embed, hidden), nn.Linear(hidden, embed)

    def forward(self, x: Tensor, heads: int, hidden: int, share: Tensor | None = None) -> Tensor:
        """x [B,T,embed] of the first heads, hidden units and, as x has them, embedding dimensions."""
        x = x + self.attention(self.norm1(x, share), heads)
        return x + part(self.down, F.gelu(part(self.up, self.norm2(x, share), hidden)), x.shape[-1])

    def attention(self, x: Tensor, heads: int) -> Tensor:
        """Multi-head self-attention of x [B,T,embed]."""
        q, k, v = (
            part(layer, x, heads * self.head).unflatten(-1, (heads, self.head)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) + torch.einsum("bhqd,qkd->bhqk", q, self.near_key())
        weights = (scores * self.head**-0.5).softmax(-1)
        y = weights @ v + torch.einsum("bhqk,qkd->bhqd", weights, self.near_value())
        return part(self.project, y.transpose(1, 2).flatten(2), x.shape[-1])


class Network(nn.Module):
    """The plain network of an architecture: images [B,C,H,W] -> logits [B,K]."""

    def __init__(self, space: AutoFormerTiny, arch: Arch) -> None:
        super().__init__()
        embed = space.embeds[arch[0]]
        self.pool = space.pool
        self.sizes = [(HEADS[h], int(embed * RATIOS[r])) for r, h in space.layers(arch)]
        self.patches = nn.Conv2d(space.image[0], embed, space.patch, space.patch)
        self.token = nn.Parameter(torch.empty(embed))
        self.positions = nn.Parameter(torch.empty(1 + prod(space.grid), embed))
        self.layers = nn.ModuleList(Layer(space, embed, *sizes) for sizes in self.sizes)
        self.norm = Norm(embed)
        self.classifier = nn.Linear(embed, space.classes)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 or name == "token":
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias") and "patches" not in name:
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        x = self.open(images)
        for layer, (heads, hidden) in zip(self.layers, self.sizes, strict=True):
            x = layer(x, heads, hidden)
        return self.close(x)

    def open(self, images: Tensor) -> Tensor:
        """Tokens [B,T,embed]: the class token and the patches, row by row, with their positions."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(x), 1, -1), x], 1) + self.positions

    def close(self, x: Tensor, share: Tensor | None = None) -> Tensor:
        """Logits [B,K] of the last layer's tokens."""
        x = self.norm(x, share)
        return part(self.classifier, x[:, 1:].mean(1) if self.pool == "mean" else x[:, 0], len(self.classifier.bias))


class Supernet(Network):
    """Every architecture in the weights of the largest: `net(images [B,C,H,W], archs) -> logits [n,B,K]`.

    A subnet takes the first layers and, of every weight, the first rows and columns. `archs` may hold `Nested`
    mixtures.
    """

    def __init__(self, space: AutoFormerTiny) -> None:
        super().__init__(space, tuple(o[-1] for o in space.root.options))
        self.space = space

    def forward(self, images: Tensor, archs: Sequence[Arch | Nested] | Nested) -> Tensor:  # type: ignore[override]
        if isinstance(archs, Nested):  # called by `logits`, inside which the weights are weighted
            return self.mixed(images, archs)
        return torch.stack([self.logits(images, arch) for arch in archs])

    def logits(self, images: Tensor, arch: Arch | Nested) -> Tensor:
        """Logits [B,K] of one subnet or mixture."""
        if isinstance(arch, Nested):
            return cast(Tensor, functional_call(self, self.weighted(arch), (images, arch)))
        embed = self.space.embeds[arch[0]]
        x = self.open(images)[..., :embed]
        for layer, (r, h) in zip(self.layers, self.space.layers(arch), strict=False):
            x = layer(x, HEADS[h], int(embed * RATIOS[r]))
        return self.close(x)

    # ------------------------------------------------------------------ mixing weights

    def mixed(self, images: Tensor, mixture: Nested) -> Tensor:
        """Logits [B,K] of the whole network at the present, weighted weights; depths weigh their layer's output."""
        x, share = self.open(images), mixture[0] @ self.leading(self.space.embeds)
        outputs = []
        for i, (layer, (heads, hidden)) in enumerate(zip(self.layers, self.sizes, strict=True), start=1):
            x = layer(x, heads, hidden, share)
            outputs += [mixture[1][DEPTHS.index(i)] * x] if i in DEPTHS else []
        return self.close(torch.stack(outputs).sum(0), share)

    def leading(self, sizes: Sequence[int]) -> Tensor:
        """For each option, which places it has: the first, [options,largest]."""
        places = torch.arange(max(sizes), device=self.token.device)
        return (places < torch.tensor(sizes, device=places.device)[:, None]).to(self.token.dtype)

    def weighted(self, mixture: Nested) -> dict[str, Tensor]:
        """Every parameter that options share, each entry times the weight of the options that have it."""
        embeds, inners = self.leading(self.space.embeds), self.leading([h * self.space.head for h in HEADS])
        options, parameters = mixture[0], dict(self.named_parameters())
        embed = options @ embeds
        found = {"patches.weight": embed.view(-1, 1, 1, 1), "classifier.weight": embed}
        found |= dict.fromkeys(("patches.bias", "token", "positions", "norm.weight", "norm.bias"), embed)
        for i in range(LAYERS):
            ratios, inner = mixture[2 + i], mixture[2 + LAYERS + i] @ inners
            size = self.sizes[i][1]
            # How many hidden units a ratio has depends on the embedding dimension: [embeds,hidden].
            hidden = torch.stack(
                [
                    F.pad(ratios @ (m := self.leading([int(e * r) for r in RATIOS])), (0, size - m.shape[1]))
                    for e in self.space.embeds
                ]
            )
            both = (hidden.T * options) @ embeds
            mine = {"up.weight": both, "up.bias": options @ hidden, "down.weight": both.T, "down.bias": embed}
            mine |= {f"{name}.weight": inner[:, None] * embed for name in ("query", "key", "value")}
            mine |= {f"{name}.bias": inner for name in ("query", "key", "value")}
            mine |= {"project.weight": embed[:, None] * inner, "project.bias": embed}
            mine |= {f"norm{n}.{kind}": embed for n in (1, 2) for kind in ("weight", "bias")}
            found |= {f"layers.{i}.{name}": weights for name, weights in mine.items()}
        return {name: parameters[name] * weights for name, weights in found.items()}
