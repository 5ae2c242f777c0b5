"""The architecture generator of EAS, section 3.2: from a budget and a superclass to the probabilities of gates.

Each decision has two nested gates: the first leaves its smallest option, the second its middle one. So every setting of
gates is an architecture, and the options have the weights (1 - g1, g1 (1 - g2), g1 g2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench import Arch, BadInput
from nasbench_eas.elastic import madds

Encoding = Literal["single_path", "multi_path"]


class Generator(nn.Module):
    """An LSTM over the blocks, and three linear layers that read kernel, width and depth from its outputs.

    Single path: two logits a decision, of its gates, 90 in all. Multi path: three, of its options. The depth of a unit
    is read from its last two or three blocks.
    """

    anchors: Tensor

    def __init__(
        self,
        superclasses: int,
        low: float,
        high: float,
        *,
        encoding: Encoding = "single_path",
        blocks: int = 20,
        units: int = 5,
        anchors: int = 10,
        embedding: int = 32,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.linspace(low, high, anchors, dtype=torch.float64), persistent=False)
        self.blocks, self.units, self.each = blocks, units, 2 if encoding == "single_path" else 3
        self.budget = nn.Embedding(anchors, embedding)
        self.superclass = nn.Embedding(superclasses, embedding)
        self.lstm = nn.LSTM(2 * embedding, hidden, batch_first=True)
        self.kernel, self.width = nn.Linear(hidden, self.each), nn.Linear(hidden, self.each)
        self.depth = nn.Linear(hidden, 1)

    def embed_budget(self, budgets: Tensor) -> Tensor:
        """Embeddings [M,E] of budgets [M], float64: interpolated between the nearest two anchors, clamped outside."""
        b = budgets.clamp(self.anchors[0], self.anchors[-1])
        k = (torch.bucketize(b, self.anchors, right=True) - 1).clamp(max=len(self.anchors) - 2)
        w = ((b - self.anchors[k]) / (self.anchors[k + 1] - self.anchors[k])).to(self.budget.weight.dtype)[:, None]
        return (1 - w) * self.budget(k) + w * self.budget(k + 1)

    def forward(self, budgets: Tensor, superclasses: Tensor) -> Tensor:
        """Logits [M, decisions, 2 or 3] for budgets [M], float64 in MAdds, and superclasses [M], int64."""
        scenario = torch.cat([self.embed_budget(budgets), self.superclass(superclasses)], 1)
        steps, _ = self.lstm(scenario[:, None].expand(-1, self.blocks, -1))
        depth = self.depth(steps).unflatten(1, (self.units, -1))[:, :, -self.each :, 0]
        return torch.cat([self.kernel(steps), self.width(steps), depth], 1)


# ---------------------------------------------------------------------- logits -> mixture or architecture


def nest(gates: Tensor) -> Tensor:
    """Weights [..., m] of a decision's options from its nested gates [..., m-1].

    >>> nest(torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    reached = F.pad(gates.cumprod(-1), (1, 0), value=1.0)
    return reached - F.pad(reached[..., 1:], (0, 1))


def gate_probabilities(z: Tensor) -> Tensor:
    """Probabilities [..., 2] of the gates (Eq. 8); those that draw options as a softmax of three logits would.

    >>> gate_probabilities(torch.tensor([0.5, 0.2, 0.3]).log()).tolist()
    [0.5, 0.6000000238418579]
    """
    if z.shape[-1] == 2:
        return z.sigmoid()
    return torch.stack([(z[..., 1:].logsumexp(-1) - z[..., 0]).sigmoid(), (z[..., 2] - z[..., 1]).sigmoid()], -1)


def relaxed_gates(z: Tensor, u: Tensor, tau: float) -> Tensor:
    """Hard gates with the gradient of soft ones (Eq. 9, 10), for logits z of their probabilities and u from U(0, 1)."""
    u = u.clamp(1e-6, 1 - 1e-6)
    h = ((z + u.log() - (-u).log1p()) / tau).sigmoid()
    return (h > 0.5).to(h) + (h - h.detach())


def relax(z: Tensor, u: Tensor, tau: float) -> Tensor:
    """A mixture [..., 3] drawn from logits [..., 2 or 3] with u of the same shape: one-hot, or Gumbel-softmax."""
    if z.shape[-1] == 2:
        return nest(relaxed_gates(z, u, tau))
    gumbel = -(-u.clamp(1e-6, 1 - 1e-6).log()).log()
    return ((z + gumbel) / tau).softmax(-1)


# ---------------------------------------------------------------------- architectures inside a budget


def draw_legal(
    space: object, p: Tensor, budgets: Sequence[float], wanted: int, limit: int, rng: torch.Generator
) -> list[list[Arch]]:
    """For each scenario up to `wanted` architectures drawn from gates with probabilities p [M,decisions,2], R <= B.

    At most `limit` draws each, rounded up to hundreds; where fewer than one is legal, the one that `round_down` gives.
    """
    together = min(100, limit)
    found: list[list[Arch]] = [[] for _ in budgets]
    limits = torch.tensor(budgets, dtype=torch.float64)
    for _ in range(-(-limit // together)):
        open_ = [i for i, archs in enumerate(found) if len(archs) < wanted]
        if not open_:
            break
        u = torch.rand(len(open_), together, *p.shape[1:], generator=rng)
        options = (u < p[open_, None]).long().cumprod(-1).sum(-1)
        legal = madds(space, options) <= limits[open_, None]
        for row, i in enumerate(open_):
            found[i] += map(tuple, options[row][legal[row]][: wanted - len(found[i])].tolist())
    return [archs or [round_down(space, p[i], budgets[i])] for i, archs in enumerate(found)]


def round_down(space: object, p: Tensor, budget: float) -> Arch:
    """The gates that are rather open than closed; then those with the smallest probability closed until R <= B.

    p is [decisions,2]. Raises BadInput if not even the smallest architecture is inside the budget.
    """
    gates = p > 0.5
    for i in [-1, *p.flatten().argsort(stable=True).tolist()]:
        if i >= 0:
            gates.view(-1)[i] = False
        options = gates.long().cumprod(-1).sum(-1)
        if madds(space, options) <= budget:
            return tuple(options.tolist())
    smallest = int(madds(space, torch.zeros(len(p), dtype=torch.int64)))
    raise BadInput(f"A budget of {budget:,.0f} MAdds is below the smallest architecture's {smallest:,}.")
