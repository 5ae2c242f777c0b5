"""The SelectGates: what batch and activations say of each channel, the Score kept of it, and the mask drawn from both.

DANCE, section 2.2 and appendix A; sizes after the official code. Layers that write into one residual stream share a
gate: the mask is drawn at the first of them, statistics are kept of each, and the Score is their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from nasbench_dance import losses, sampling, scores

if TYPE_CHECKING:
    from nasbench_backbones.channels import ChannelSpace

    from nasbench_dance.scored import Scored

Scope = Literal["batch", "sample"]
EMBEDDING = 64
#: Gate means that L_cons looks back on.
REMEMBERED = 100


class BatchRepr(nn.Sequential):
    """The embedding of each image of a batch: [B,C,H,W] -> [B,64]."""

    def __init__(self, colours: int) -> None:
        super().__init__(
            *(nn.Conv2d(colours, 32, 3, padding=1), nn.BatchNorm2d(32), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.LeakyReLU(0.1)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 128), nn.BatchNorm1d(128), nn.LeakyReLU(0.1)),
            nn.Linear(128, EMBEDDING),
        )


class SelectGate(nn.Module):
    """The gate of c channels, behind one layer or the layers of a stream (its members).

    A gate over batch averages sees one row, so a layer norm stands where the code has a batch norm over samples.
    """

    def __init__(self, channels: int, members: int, network: bool, scope: Scope, relu: bool) -> None:
        super().__init__()
        c, inner = channels, max(1, channels // 16)
        self.features = nn.Sequential(  # 1x1 convolutions of what is averaged over space
            nn.Linear(c, inner), nn.BatchNorm1d(inner), nn.LeakyReLU(0.1), nn.Linear(inner, c)
        )
        norm = nn.LayerNorm(c) if scope == "batch" else nn.BatchNorm1d(c)
        between = nn.ReLU() if relu else nn.LeakyReLU(0.1)
        layers = (nn.Linear(EMBEDDING + c, c), norm, between, nn.Linear(c, c)) if network else ()
        self.fusion = nn.Sequential(*layers)
        self.theta = nn.Parameter(0.01 * torch.randn(c))
        for term in ("dynamic", "feature", "correlation"):
            self.register_buffer(term, torch.ones(members, c))
        self.register_buffer("usual", torch.full((c,), 0.7))
        self.register_buffer("past", torch.zeros(REMEMBERED, c))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def logits(self, embedding: Tensor | None, features: Tensor) -> Tensor:
        """g = MLP(D, F) + theta, [c] or [B,c]; without embedding and network, F + theta."""
        seen = features if embedding is None else torch.cat([embedding, features], -1)
        return cast(Tensor, self.fusion(seen) + self.theta)

    def score(self, weights: list[float]) -> Tensor:
        """Score [c], the mean over the members."""
        static = torch.sigmoid(self.theta).expand_as(cast(Tensor, self.dynamic))
        kept = [cast(Tensor, getattr(self, term)) for term in ("dynamic", "feature", "correlation")]
        return scores.score([static, *kept], weights).mean(0)

    @torch.no_grad()
    def remember(self, member: int, term: str, value: Tensor, alpha: float) -> None:
        """Let one term of a member's Score follow what was just seen."""
        buffer = cast(Tensor, getattr(self, term))
        buffer[member] = scores.moving_average(buffer[member], value, alpha)

    def penalty(self, mask: Tensor, soft: Tensor, ratio: float) -> Tensor:
        """The terms of the second stage's loss that look at the mask ([c] or [B,c]), and what they remember."""
        mean = mask if mask.dim() == 1 else mask.mean(0)
        loss = losses.sparsity(mask, ratio) + 0.1 * losses.diversity(soft)
        usual, past, count = (cast(Tensor, b) for b in (self.usual, self.past, self.count))
        loss = loss + 0.1 * losses.distance(mean, usual.clone())
        if int(count):
            loss = loss + 0.1 * losses.distance(mean, past[: min(int(count), REMEMBERED)].mean(0))
        with torch.no_grad():
            usual.copy_(scores.moving_average(usual, mean, 0.1))
            past[int(count) % REMEMBERED] = mean
            count += 1
        return loss


class Gates(nn.Module):
    """BatchRepr and a SelectGate for every gate of a space; without `network`, gates that keep a Score alone."""

    def __init__(
        self,
        space: ChannelSpace,
        method: Scored,
        *,
        network: bool = True,
        scope: Scope = "batch",
        relu: bool = False,
        tied: bool = True,
    ) -> None:
        super().__init__()
        self.method, self.scope = method, scope
        home = {member: gate for gate, of in space.members.items() for member in of}
        names: dict[str, tuple[str, ...]] = {}
        for gate, of in space.members.items():
            names |= {gate: of} if tied or len(of) == 1 else {member: (member,) for member in of}
        #: For each gate the space's own, which decides its width.
        self.home = {gate: home[of[0]] for gate, of in names.items()}
        #: For each layer its gate, and its place among the gate's.
        self.place = {member: (gate, i) for gate, of in names.items() for i, member in enumerate(of)}
        self.embed = BatchRepr(space.image[0]) if network else None
        gates = {
            gate: SelectGate(space.channels[self.home[gate]], len(of), network, scope, relu)
            for gate, of in names.items()
        }
        self.all = nn.ModuleDict({name.replace(".", "_"): gate for name, gate in gates.items()})

    def __getitem__(self, gate: str) -> SelectGate:
        return cast(SelectGate, self.all[gate.replace(".", "_")])

    def best(self, widths: Mapping[str, int]) -> dict[str, Tensor]:
        """For each gate the mask [c] of the channels with the highest Score."""
        with torch.no_grad():
            weights = self.method.score_weights
            return {g: sampling.top(self[g].score(weights), widths[own]) for g, own in self.home.items()}


class Gating:
    """One pass of a batch through the gates: masks are drawn on the way, and the gates' losses add up."""

    def __init__(
        self,
        gates: Gates,
        images: Tensor,
        widths: Mapping[str, int],
        generator: torch.Generator,
        ratio: float = 0.0,
        lambda2: float = 1.0,
    ) -> None:
        self.gates, self.widths, self.generator = gates, widths, generator
        self.ratio, self.lambda2 = ratio, lambda2
        self.dtype = next(gates.parameters()).dtype
        self.embedding = None
        if gates.embed is not None:
            embedding = gates.embed(images.to(self.dtype))
            self.embedding = embedding.mean(0) if gates.scope == "batch" else embedding
        self.masks: dict[str, Tensor] = {}
        self.soft: dict[str, Tensor] = {}
        self.losses: list[Tensor] = []

    @property
    def penalty(self) -> Tensor:
        """The weighted sum of the gates' losses."""
        return self.gates.method.penalty * torch.stack(self.losses).sum()

    def __call__(self, name: str, x: Tensor) -> Tensor:
        gate_name, member = self.gates.place[name]
        with torch.autocast(x.device.type, enabled=False):
            self.look(gate_name, member, x.mean((2, 3)).to(self.dtype))
        mask = self.masks[gate_name].to(x.dtype)
        return x * (mask[:, None, None] if mask.dim() == 1 else mask[:, :, None, None])

    def look(self, gate_name: str, member: int, activations: Tensor) -> None:
        """Take in a layer's activations [B,c], averaged over space; at a gate's first layer draw its mask."""
        gate, method = self.gates[gate_name], self.gates.method
        each = gate.features(activations)
        logits = gate.logits(self.embedding, each.mean(0) if self.gates.scope == "batch" else each)
        alone = self.gates.embed is None
        noise = torch.zeros_like(logits) if alone else sampling.gumbel(logits, self.generator)
        if gate.training:
            dynamic = torch.sigmoid(logits + method.dynamic_noise * noise)
            gate.remember(member, "dynamic", dynamic if dynamic.dim() == 1 else dynamic.mean(0), method.alpha)
            gate.remember(member, "feature", torch.softmax(each.mean(0), -1), method.alpha)
            unlike = scores.correlation_importance(activations, self.lambda2)
            gate.remember(member, "correlation", unlike, method.alpha)
            self.losses.append(0.1 * losses.correlation(each) / len(cast(Tensor, gate.dynamic)))
        if member == 0:
            k = self.widths[self.gates.home[gate_name]]
            hard, soft = method.draw(logits, noise, gate.score(method.score_weights), k, self.generator)
            self.masks[gate_name], self.soft[gate_name] = sampling.straight_through(hard, soft), soft
            if gate.training:
                self.losses.append(gate.penalty(self.masks[gate_name], soft, self.ratio))
