"""Ten-line methods on tiny, one for each shape that a method may have."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from nasbench_tiny.tiny import Tiny
from nasbench_tiny.tiny_networks import Supernet
from pydantic import PrivateAttr

from nasbench import Arch, Choice, Method, Mixture, Modifier, Run, hookimpl
from nasbench.budget import Budget
from nasbench.hookspecs import CALLS
from nasbench.oneshot import score_subset


class Uniform(Method):
    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]


class ThreeStages(Uniform):
    """Three stages on one supernet, each ended early when the loss has not fallen for some steps; best of a few."""

    calls: ClassVar[frozenset[str]] = CALLS["train"] - {"prepare_batch", "after_epoch"} | CALLS["select"]

    patience: int = 2
    """Steps without a better loss after which a stage ends."""

    @hookimpl
    def train(self, run: Run) -> bool:
        for i in range(3):
            run.stage(f"train{i}", lambda: self.phase(run))
        return True

    def phase(self, run: Run) -> int:
        run.net = run.net or run.hook.build_supernet(run=run)
        run.optimizer = run.hook.make_optimizer(run=run)
        for _ in run.steps(12):
            run.hook.train_step(run=run, batch=run.hook.next_batch(run=run))
            loss, best = float(run.info["loss"]), run.state.get("best", math.inf)
            run.state.update(best=min(loss, best), waited=0 if loss < best else run.state["waited"] + 1)
            if run.state["waited"] == self.patience:
                break
        return run.step

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        few = run.rng("candidates").sample(list(run.space.architectures()), 5)
        return [Choice(max(zip(run.hook.score(run=run, archs=few), few, strict=True))[1])]


class Prunable(Supernet):
    """The supernet of tiny, which can be built again narrower."""

    def __init__(self, space: Tiny) -> None:
        super().__init__(space)
        self.space = space

    def structure(self) -> dict[str, int]:
        return {"width": self.space.width}

    def rebuild(self, structure: dict[str, int]) -> Prunable:
        return Prunable(self.space.with_(**structure))


class Dropout(Uniform):
    """A net that draws from torch's global generator, while it is trained and while it is scored."""

    @hookimpl
    def build_supernet(self, run: Run) -> torch.nn.Module:
        net = run.space.supernet()
        net.head = torch.nn.Sequential(torch.nn.Dropout(0.2), net.head)
        return run.to_device(net)


class Shrinking(Uniform):
    """The net loses units after each epoch; what is left keeps its weights and its momentum."""

    @hookimpl
    def build_supernet(self, run: Run) -> torch.nn.Module:
        with run.seeded("init"):
            return run.to_device(Prunable(run.space))

    @hookimpl
    def after_epoch(self, run: Run) -> None:
        narrow = run.net.rebuild({"width": run.net.structure()["width"] - 4})
        old, mapping = run.net.state_dict(), {}
        for name, parameter in narrow.named_parameters():
            mapping[name] = (name, index := tuple(map(slice, parameter.shape)))
            parameter.data.copy_(old[name][index])
        run.replace_net(narrow, mapping)


class Bilevel(Method):
    """Mixture weights with an optimizer of their own, stepped on validation images before each step."""

    _alphas: list[torch.Tensor] = PrivateAttr(default_factory=list)
    _optimizer: Any = PrivateAttr(None)

    @hookimpl(wrapper=True)
    def build_supernet(self, run: Run) -> Generator[None, Any, Any]:
        self._alphas = [torch.zeros(len(o), device=run.device, requires_grad=True) for o in run.space.options]
        return (yield)

    @hookimpl(wrapper=True)
    def make_optimizer(self, run: Run) -> Generator[None, Any, Any]:
        self._optimizer = run.track("alphas", torch.optim.Adam(self._alphas, lr=0.05))
        return (yield)

    @hookimpl
    def sample_archs(self, run: Run) -> list[Mixture]:
        return [[alpha.softmax(0) for alpha in self._alphas]]

    @hookimpl(wrapper=True)
    def train_step(self, run: Run) -> Generator[None, bool, bool]:
        batches = run.data.batches("valid", 25)
        batch = batches[run.step % len(batches)]
        self._optimizer.zero_grad()
        F.cross_entropy(run.forward(batch.images, self.sample_archs(run))[0], batch.labels).backward()
        self._optimizer.step()
        return (yield)

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        weights = " ".join(f"{w:.17g}" for alpha in self._alphas for w in alpha.tolist())
        return [Choice(tuple(int(alpha.argmax()) for alpha in self._alphas), scenario={"alphas": weights})]

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"alphas": self._alphas}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        for alpha, saved in zip(self._alphas, state["alphas"], strict=True):
            alpha.data.copy_(saved)


class Scenarios(Uniform):
    """One training, a choice for each budget."""

    calls: ClassVar[frozenset[str]] = CALLS["select"]

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        scores, params = score_subset(run), lambda arch: run.space.cost(arch)["params"]
        budgets = [1300, 1600, 2100]
        best = [max((a for a in scores if params(a) <= budget), key=scores.__getitem__) for budget in budgets]
        return [Choice(arch, scenario={"params": budget}) for budget, arch in zip(budgets, best, strict=True)]


class Backbone(Uniform):
    """One network trained in a stage that other methods share, cut out of it for each budget, or for another later."""

    calls: ClassVar[frozenset[str]] = CALLS["train"] - {"prepare_batch", "after_epoch"}

    tune: int = 3
    """Steps of fine-tuning, which are the method's own."""

    @hookimpl
    def train(self, run: Run) -> bool:
        run.stage("backbone", lambda: self.fit(run, 6), shared={"train": run.recipe.train.model_dump(mode="json")})
        run.stage("tune", lambda: self.fit(run, self.tune))
        return True

    def fit(self, run: Run, steps: int) -> None:
        run.net = run.net or run.hook.build_supernet(run=run)
        run.optimizer = run.hook.make_optimizer(run=run)
        for _ in run.steps(steps):
            run.hook.train_step(run=run, batch=run.hook.next_batch(run=run))

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        return [self.specialize(run, {"budget": f"params={budget}K"}) for budget in (1.3, 1.6, 2.1)]

    @hookimpl
    def specialize(self, run: Run, scenario: dict[str, str]) -> Choice:
        limit = Budget.parse(scenario["budget"]).value
        fitting = [arch for arch in run.space.architectures() if run.space.cost(arch)["params"] <= limit]
        arch = max(fitting, key=lambda arch: run.space.cost(arch)["params"])
        with run.seeded(f"network {arch}"):
            network = run.space.build(arch)
        return Choice(arch, scenario, network=network, artefact={"decisions": list(arch)})


class TrainingFree(Method):
    """Scores freshly initialised networks by the norm of their gradient."""

    @hookimpl
    def train(self) -> bool:
        return True

    @hookimpl
    def score(self, run: Run, archs: list[Arch]) -> list[float]:
        return [self.gradient_norm(run, arch) for arch in archs]

    def gradient_norm(self, run: Run, arch: Arch) -> float:
        with run.seeded(f"init {arch}"):
            net = run.to_device(run.space.build(arch))
        batch = run.data.training_batch(torch.arange(20), run.generator("augment"))
        F.cross_entropy(net(batch.images), batch.labels).backward()
        return sum(float(p.grad.norm()) for p in net.parameters() if p.grad is not None)


class TableOnly(Method):
    """Ageing evolution on the table: the population is the state."""

    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        return [Choice(run.stage("search", lambda: self.evolve(run)))]

    def evolve(self, run: Run) -> Arch:
        assert run.truth is not None
        for step in run.steps(25):
            population = deque(run.state.get("population", []), maxlen=6)
            parents = run.rng("tournament").sample(population, min(3, len(population)))
            arch = (
                run.space.mutate(max(parents)[1], run.rng("mutation"))
                if step >= 6
                else run.space.sample(run.rng("start"))
            )
            population.append((run.truth.query([arch], "valid", run.recipe.target)[0], arch))
            run.state["population"] = list(population)
        return max(run.state["population"])[1]


class Parts(Uniform):
    """A supernet for each option of the first decision; an architecture is scored by its own."""

    calls: ClassVar[frozenset[str]] = CALLS["train"]

    @hookimpl
    def train(self, run: Run) -> bool | None:
        if run.parent is not None:
            return None  # a part is trained as usual
        for option in run.space.options[0]:
            part = run.child(f"part{option}", run.space.restrict({run.space.decisions[0]: [option]}))
            part.hook.train(run=part)
        return True

    @hookimpl
    def score(self, run: Run, archs: list[Arch]) -> list[float] | None:
        if run.parent is not None:
            return None
        parts = [run.parts[f"part{arch[0]}"] for arch in archs]
        return [part.hook.score(run=part, archs=[arch])[0] for part, arch in zip(parts, archs, strict=True)]


class AdamW(Modifier):
    """Another optimizer, whose state has a counter and two moments."""

    @hookimpl
    def make_optimizer(self, run: Run) -> torch.optim.Optimizer:
        return torch.optim.AdamW(run.net.parameters(), lr=run.recipe.train.lr)


METHODS = {
    "uniform": Uniform,
    "three-stages": ThreeStages,
    "dropout": Dropout,
    "shrinking": Shrinking,
    "bilevel": Bilevel,
    "scenarios": Scenarios,
    "backbone": Backbone,
    "training-free": TrainingFree,
    "table-only": TableOnly,
    "parts": Parts,
}
MODIFIERS = {"adamw": AdamW}
