"""From a trained supernet to networks for budgets and superclasses: what EAS and its baselines have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PrivateAttr
from torch import nn

from nasbench import Arch, BadInput, Choice, Run, hookimpl
from nasbench.budget import Budget
from nasbench.data import stratified_order
from nasbench_eas.elastic import is_elastic
from nasbench_eas.ofa import OFA
from nasbench_eas.superclass import Name, Superclasses, accuracies, superclasses_of


class Scenario(NamedTuple):
    """What a network is wanted for: a budget in MAdds, and a superclass by its place, or None for all of them."""

    budget: float
    superclass: int | None


class Deployment(OFA):
    """A once-for-all supernet and, for each budget and superclass, a network cut out of it.

    A subclass proposes architectures; of several the one that is best on held-out validation images is taken. Its batch
    norms are recalibrated on training images.
    """

    #: Whether each superclass gets an architecture of its own, or one serves all.
    per_superclass: ClassVar[bool] = True
    #: Whether all scenarios are proposed for in one go.
    at_once: ClassVar[bool] = False

    superclasses: Name = "auto"
    """The superclasses' file or its name; auto is the one named like the dataset's target."""
    budgets: list[float] = Field([0.4, 0.5, 0.6, 0.7], min_length=1)
    """Budgets to search for: MAdds, or, up to 1, the share of the largest architecture's."""
    recalibration_images: int = Field(2000, ge=2)
    """Training images that each chosen network's batch norms take their averages from, in batches of 200."""
    recalibration: Literal["all", "superclass"] = "all"
    """Whether they are of all superclasses or of the one the network is for."""
    pick_share: float = Field(0.2, gt=0, lt=1)
    """Share of the validation images that decides among proposals; nothing else is learnt from them."""
    _superclasses: Superclasses | None = PrivateAttr(None)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if reason := super().refuse(run):
            return reason
        if not is_elastic(run.space):
            return f"{self.called(run)} needs options that are parts of larger ones; {run.space.name} has no such."
        for budget in map(float, self.budgets):
            self.check(run, self.in_madds(run, budget))
        if self.recalibration_images > len(run.data.train):
            return (
                f"recalibration_images = {self.recalibration_images} is more than the {len(run.data.train)} there are."
            )
        of = self.of(run).of_classes().to(run.device)
        for t, name in enumerate(self.of(run).names):
            if any(not (of[run.data.valid.labels[rows]] == t).any() for rows in self.validation(run)):
                return f"The superclass {name!r} has too few of the {len(run.data.valid)} validation images; take more."
        return None

    def of(self, run: Run) -> Superclasses:
        """The superclasses of the run's dataset."""
        self._superclasses = self._superclasses or superclasses_of(run, self.superclasses)
        return self._superclasses

    # ------------------------------------------------------------------ budgets

    def in_madds(self, run: Run, budget: float) -> float:
        """MAdds of a budget that may be a share of the largest architecture's, then to three digits."""
        return float(f"{budget * run.space.cost_range('madds')[1]:.3g}") if budget <= 1 else budget

    def check(self, run: Run, budget: float) -> None:
        """Raise BadInput for a budget that no architecture keeps to."""
        low, _ = run.space.cost_range("madds")
        if budget < low:
            nearest = Budget("madds", math.ceil(low))
            raise BadInput(f"A budget of madds={budget:.15g} is below the smallest architecture's; take {nearest}.")

    # ------------------------------------------------------------------ what a subclass gives

    @abstractmethod
    def propose(self, run: Run, scenarios: list[Scenario], rng: torch.Generator) -> list[list[Arch]]:
        """For each scenario one or more architectures inside its budget."""

    # ------------------------------------------------------------------ choosing

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        budgets = [self.in_madds(run, b) for b in self.budgets]
        superclasses = [*range(len(self.of(run)))] if self.per_superclass else [None]
        scenarios = [Scenario(b, t) for b in budgets for t in superclasses]

        def propose() -> list[list[list[int]]]:
            parts = [scenarios] if self.at_once else [[s] for s in scenarios]
            for step in run.steps(len(parts)):
                proposed = self.propose(run, parts[step], run.generator("propose"))
                run.state.setdefault("proposals", []).extend(proposed)
            return run.state["proposals"]

        def pick() -> list[list[int]]:
            for step in run.steps(len(scenarios)):
                run.state.setdefault("picks", []).append(self.pick(run, scenarios[step], proposals[step]))
            return run.state["picks"]

        proposals = [[tuple(arch) for arch in archs] for archs in run.stage("propose", propose)]
        picks = zip(scenarios, map(tuple, run.stage("pick", pick)), strict=True)
        return [
            self.choice(run, Scenario(s.budget, t), arch)
            for s, arch in picks
            for t in (range(len(self.of(run))) if s.superclass is None else [s.superclass])
        ]

    @hookimpl
    def specialize(self, run: Run, scenario: dict[str, str]) -> Choice:
        if unknown_keys := scenario.keys() - {"budget", "superclass"}:
            raise BadInput(f"{self.called(run)} knows no {min(unknown_keys)!r}; give --budget and --superclass.")
        if "budget" not in scenario or "superclass" not in scenario:
            names = ", ".join(self.of(run).names)
            raise BadInput(f"{self.called(run)} needs --budget madds=... and --superclass, one of {names}.")
        budget, t = Budget.parse(scenario["budget"]), self.of(run).index(scenario["superclass"])
        if budget.name != "madds":
            raise BadInput(f"{self.called(run)} takes budgets of multiply-adds, like madds=300M, not {budget}.")
        self.check(run, budget.value)
        asked = Scenario(budget.value, t if self.per_superclass else None)
        rng = run.generator(f"specialize {asked}")
        (proposals,) = self.propose(run, [asked], rng)
        return self.choice(run, Scenario(budget.value, t), self.pick(run, asked, proposals))

    def pick(self, run: Run, scenario: Scenario, proposals: list[Arch]) -> Arch:
        """The proposal that is best on the held-out validation images of the superclass, or of all on average."""
        distinct = list(dict.fromkeys(run.space.canonical(arch) for arch in proposals))
        if len(distinct) == 1:
            return distinct[0]  # type: ignore[return-value]
        rows = self.validation(run)[1]
        if scenario.superclass is not None:
            of = self.of(run).of_classes().to(run.device)
            rows = rows[of[run.data.valid.labels[rows]] == scenario.superclass]

        def score(arch: Arch) -> float:
            network = self.network(run, arch, scenario.superclass)
            found = accuracies(run, network, self.of(run), "valid", rows)
            return mean([a for a in found if not math.isnan(a)])

        return max(distinct, key=score)  # type: ignore[arg-type]

    def choice(self, run: Run, scenario: Scenario, arch: Arch) -> Choice:
        """The choice for a scenario, with its network."""
        assert scenario.superclass is not None
        about = {"budget": str(Budget("madds", scenario.budget)), "superclass": self.of(run).names[scenario.superclass]}
        network = self.network(run, arch, scenario.superclass)
        return Choice(arch, about, selected_on=self.selected_on(), network=network)

    def selected_on(self) -> str:
        """What choices are made by."""
        return "supernet validation top-1"

    # ------------------------------------------------------------------ images and networks

    def validation(self, run: Run) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the validation images in two parts, to learn from and to pick by, every class in its share."""
        seed = run.fixed_rng("validation").getrandbits(31)
        orders = [torch.from_numpy(rows) for rows in stratified_order(run.data.valid.labels.cpu().numpy(), seed)]
        held = [max(1, round(self.pick_share * len(rows))) for rows in orders]
        pairs = list(zip(orders, held, strict=True))
        learn, pick = torch.cat([rows[n:] for rows, n in pairs]), torch.cat([rows[:n] for rows, n in pairs])
        return learn.to(run.device), pick.to(run.device)

    def network(self, run: Run, arch: Arch, superclass: int | None = None) -> nn.Module:
        """The plain network of an architecture with the supernet's weights, recalibrated."""
        assert run.net is not None
        rows = shuffled(run, len(run.data.train), "recalibration")
        if self.recalibration == "superclass" and superclass is not None:
            of = self.of(run).of_classes().to(run.device)
            rows = rows[of[run.data.train.labels[rows]] == superclass]
        return recalibrate(run, run.net.subnet(arch), rows[: self.recalibration_images])


def shuffled(run: Run, count: int, purpose: str) -> torch.Tensor:
    """The numbers below `count` in an order drawn once a run, int64 on its device."""
    seed = run.fixed_rng(purpose).getrandbits(62)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(run.device)


def recalibrate(run: Run, network: nn.Module, rows: torch.Tensor, batch_size: int = 200) -> nn.Module:
    """Give a network's batch norms the averages of these training images, unaugmented; it comes back in eval mode.

    Each image counts once: a last batch that is smaller is left out unless it is the only one.
    """
    network = run.to_device(network).eval()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over batches
        norm.train()
    with torch.no_grad():
        for part in rows.split(batch_size):
            if len(part) in (batch_size, len(rows)):
                run.predict(network, run.data.batch("train", part).images)
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def mean(values: list[float]) -> float:
    """The mean; of nothing it is 0."""
    return math.fsum(values) / len(values) if values else 0.0
