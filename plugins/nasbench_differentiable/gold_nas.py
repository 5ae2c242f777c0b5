"""GOLD-NAS: Bi, Xie, Chen, Wei and Tian, GOLD-NAS: Gradual, One-Level, Differentiable, arXiv:2007.03331, 2020."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from nasbench import Arch, Choice, Method, Mixture, Run, hookimpl
from nasbench.budget import Budget
from nasbench.data import Batch
from nasbench.errors import unknown
from nasbench.hookspecs import CALLS
from nasbench_differentiable.pc_darts import edges_by_node
from nasbench_differentiable.relaxation import Mixed

NONE = "none"


class GoldNAS(Mixed, Method):
    """Operations do not compete: each has a sigmoid of its own. Weights and alpha follow the training loss together,
    with a cost on every operation that grows until weak ones are pruned, a few an epoch, down to a budget."""

    calls: ClassVar[frozenset[str]] = CALLS["train_step"]  # until the last budget is met

    budgets: list[str] = Field(["madds=240M"], min_length=1)
    """The final networks' limits, madds or params; one search passes them all, the largest first."""
    operations: list[str] | None = None
    """Names of the operations that take part; null takes all but none."""
    arch_lr: float = Field(1.0, gt=0)
    """SGD's rate for alpha."""
    arch_momentum: float = Field(0.9, ge=0, lt=1)
    """SGD's momentum for alpha."""
    uniform: float = Field(1.0, ge=0)
    """What every operation costs."""
    mu: float = Field(0.0, ge=0)
    """What a million multiply-adds cost."""
    pace: int = Field(4, ge=1)
    """n_0: how many operations are to be pruned each epoch."""
    xi_max: float = Field(0.05, gt=0, lt=1)
    """One of the n_0 weakest operations is pruned if its share of its node is below this."""
    xi_min: float = Field(0.01, ge=0, lt=1)
    """Any operation is pruned if its share of its node is below this."""
    lambda_0: float = Field(1e-5, gt=0)
    """The first increase of lambda."""
    c_0: float = Field(2.0, gt=1)
    """What the increase of lambda is multiplied by, and lambda divided by."""
    _alive: list[Tensor] = PrivateAttr(default_factory=list)
    _cost: dict[str, list[Tensor]] = PrivateAttr(default_factory=dict)
    _base: dict[str, int] = PrivateAttr(default_factory=dict)
    _control: dict[str, float] = PrivateAttr(default_factory=dict)
    _met: dict[str, list[int]] = PrivateAttr(default_factory=dict)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        space = run.space
        if reason := super().refuse(run):
            return reason
        if not all("<-" in name for name in space.relaxed):
            return f"gold-nas prunes the operations of edges, and the decisions of {space.name} are no edges."
        if not all(NONE in options for options in (*space.relaxed.values(), *space.choices.values())):
            return f"gold-nas may prune all of an edge, and this variant of {space.name} has edges that must stay."
        known = {op for options in space.relaxed.values() for op in options} - {NONE}
        for name in self.operations or ():
            if name not in known:
                raise unknown(f"operation of {space.name}", name, known)
        self.measure(run)
        for budget in map(Budget.parse, self.budgets):
            if budget.name not in self._cost:
                return f"gold-nas meets budgets of madds or params, not {str(budget)!r}."
            if budget.value < (least := self.smallest(run, budget.name)):
                return f"No network of {space.name} has {budget}: the smallest that gold-nas leaves has {least:,.0f}."
        return None

    # ------------------------------------------------------------------ the search network

    def measure(self, run: Run) -> None:
        """Which operations there are, and what each adds to the cost of the final network."""
        names = list(run.space.relaxed.values())
        self._alive = [
            torch.tensor([o != NONE and o in (self.operations or options) for o in options]) for options in names
        ]
        empty = [torch.zeros(len(options)) for options in names]
        base = run.space.cost(run.space.discretize(empty))
        self._base = {name: base[name] for name in ("madds", "params")}
        self._cost = {
            name: [torch.zeros(len(options), dtype=torch.float64) for options in names] for name in self._base
        }
        for e, alive in enumerate(self._alive):
            for op in alive.nonzero()[:, 0].tolist():
                empty[e][op] = 1
                cost = run.space.cost(run.space.discretize(empty))
                empty[e][op] = 0
                for name in self._base:
                    self._cost[name][e][op] = cost[name] - base[name]

    def smallest(self, run: Run, name: str) -> float:
        """The cost with the cheapest operation that is left in each node, and no other; infinite if one has none."""
        nodes = [torch.cat([self._cost[name][e][self._alive[e]] for e in into]) for into in edges_by_node(run)]
        return self._base[name] + sum(float(costs.min()) if len(costs) else math.inf for costs in nodes)

    def start(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.zeros(n)

    @hookimpl
    def build_supernet(self, run: Run) -> torch.nn.Module:
        self.measure(run)
        self._control, self._met = {"lambda": 0.0, "increase": self.lambda_0}, {}
        return super().build_supernet(run)

    def mixture(self, run: Run, purpose: str) -> Mixture:
        """sigmoid(alpha), and exact zeros for what was pruned."""
        return [alpha.sigmoid() * alive.to(alpha) for alpha, alive in zip(self._alphas, self._alive, strict=True)]

    # ------------------------------------------------------------------ training on one level

    @hookimpl(wrapper=True)
    def make_optimizer(self, run: Run) -> Generator[None, Any, Any]:
        self._optimizer = run.track("architecture", torch.optim.SGD(self._alphas, self.arch_lr, self.arch_momentum))
        return (yield)

    @hookimpl
    def train_step(self, run: Run) -> bool | None:
        return True if self.finished else None

    @hookimpl
    def sample_archs(self, run: Run) -> list[Mixture] | list[Arch]:
        self._optimizer.zero_grad()
        return [self.mixture(run, "train")]

    @hookimpl(wrapper=True)
    def compute_loss(
        self, run: Run, logits: Tensor, batch: Batch, archs: list[Arch]
    ) -> Generator[None, Tensor, Tensor]:
        losses = yield
        return losses + self._control["lambda"] * self.regularizer(run)

    @hookimpl(wrapper=True)
    def update(self, run: Run, archs: list[Arch]) -> Generator[None, bool, bool]:
        answer = yield
        self._optimizer.step()
        return answer

    def regularizer(self, run: Run) -> Tensor:
        """sum_o ln(1 + s_o / mean of its node's s) (uniform + mu cost_o) over the operations that are left."""
        total = torch.zeros((), device=run.device)
        for into in edges_by_node(run):
            s = torch.cat([self._alphas[e].sigmoid()[self._alive[e]] for e in into])
            millions = torch.cat([self._cost["madds"][e][self._alive[e]] for e in into]).to(s) / 1e6
            total = total + ((s / s.mean()).log1p() * (self.uniform + self.mu * millions)).sum()
        return total

    # ------------------------------------------------------------------ pruning

    @property
    def finished(self) -> bool:
        """Whether every budget has been met."""
        return len(self._met) == len(set(self.budgets))

    @hookimpl
    def after_epoch(self, run: Run) -> None:
        if self.finished:
            return
        pruned = self.prune(run)
        if pruned >= self.pace:
            self._control = {"lambda": self._control["lambda"] / self.c_0, "increase": self.lambda_0}
        else:
            increase = self._control["increase"] * self.c_0
            self._control = {"lambda": self._control["lambda"] + increase, "increase": increase}
        self.meet(run)
        run.info |= {"operations": sum(int(alive.sum()) for alive in self._alive), "lambda": self._control["lambda"]}

    def shares(self, run: Run, strongest: bool = False) -> list[tuple[float, int, int]]:
        """(share of its node, edge, operation) of every operation, the weakest first; the strongest of each node only
        if asked for."""
        found = []
        for into in edges_by_node(run):
            s = [
                (float(w), e, op)
                for e in into
                for op, w in enumerate(self.strength(run)[e].tolist())
                if self._alive[e][op]
            ]
            total = sum(w for w, _, _ in s)
            found += [(w / total, e, op) for w, e, op in sorted(s)[: None if strongest else -1]]
        return sorted(found)

    def prune(self, run: Run) -> int:
        """Prune the weak operations of this moment; says how many."""
        weak = [
            (e, op)
            for i, (share, e, op) in enumerate(self.shares(run))
            if share < self.xi_min or (i < self.pace and share < self.xi_max)
        ]
        return sum(self.drop(run, e, op) for e, op in weak)

    def drop(self, run: Run, e: int, op: int) -> bool:
        """Prune an operation, unless its node were empty without it, or a budget out of reach: where the cheap
        operations of a node are gone, the last may cost too much."""
        self._alive[e][op] = False
        limits = map(Budget.parse, self.budgets)
        self._alive[e][op] = any(self.smallest(run, limit.name) > limit.value for limit in limits)
        return not self._alive[e][op]

    def cost(self, name: str) -> int:
        """What the network of all operations left would cost at its final size."""
        return self._base[name] + int(
            sum(float(c[alive].sum()) for c, alive in zip(self._cost[name], self._alive, strict=True))
        )

    def meet(self, run: Run) -> None:
        """Keep the architecture of this moment for each budget that it is the first to meet."""
        for text in self.budgets:
            budget = Budget.parse(text)
            if text not in self._met and self.cost(budget.name) <= budget.value:
                self._met[text] = list(run.space.discretize(self.strength(run)))

    # ------------------------------------------------------------------ what is chosen

    def strength(self, run: Run) -> Mixture:
        return [weights.detach() for weights in self.mixture(run, "select")]

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        """The architecture of each budget. Where the epochs were too few, the weakest operations go at once."""
        choices = []
        self.meet(run)
        for text in sorted(self.budgets, key=lambda text: -Budget.parse(text).value):
            how = "architecture parameters" + ("" if text in self._met else ", cut to the budget after the last epoch")
            while text not in self._met:
                weakest = [*self.shares(run), *self.shares(run, strongest=True)]
                next(op for _, e, op in weakest if self.drop(run, e, op))
                self.meet(run)
            choices.append(Choice(tuple(self._met[text]), {"budget": text}, selected_on=how))
        return choices

    def state_dict(self, run: Run) -> dict[str, Any]:
        return super().state_dict(run) | {"alive": self._alive, "control": self._control, "met": self._met}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        super().load_state_dict(run, state)
        self._alive, self._control, self._met = state["alive"], state["control"], state["met"]
