"""Short real runs in float64, with a look at what was trained on and at every value of alpha."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from nasbench import Run, hookimpl
from nasbench.data import Batch
from nasbench.harness import prepare
from nasbench.recipe import resolve


@dataclass
class Seen:
    """One training step: what it was given, what the weights were trained on, alpha before it and after it."""

    batch: Batch
    epoch: int
    progress: float
    before: list[torch.Tensor]
    archs: list[Any] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    after: list[torch.Tensor] = field(default_factory=list)


class Watch:
    """Outermost around every hook."""

    priority = 100

    def __init__(self, plugin: Callable[[], Any]) -> None:
        self.plugin, self.steps = plugin, list[Seen]()

    def alphas(self) -> list[torch.Tensor]:
        return [a.detach().clone() for a in getattr(self.plugin(), "_alphas", ())]

    @hookimpl(wrapper=True)
    def train_step(self, run: Run, batch: Batch) -> Generator[None, bool, bool]:
        self.steps.append(Seen(batch, run.epoch, run.progress, self.alphas()))
        answer = yield
        self.steps[-1].after = self.alphas()
        return answer

    @hookimpl(wrapper=True)
    def sample_archs(self) -> Generator[None, Any, Any]:
        archs = yield
        if self.steps:
            self.steps[-1].archs = archs
        return archs

    @hookimpl(wrapper=True)
    def learning_rates(self) -> Generator[None, list[float], list[float]]:
        rates = yield
        if self.steps:
            self.steps[-1].rates = rates
        return rates


@dataclass
class Trained:
    """What a short run left."""

    run: Run
    method: Any
    steps: list[Seen]


Train: TypeAlias = "Callable[..., Trained]"


@pytest.fixture
def begin(tmp_path: Path) -> Train:
    """`begin("gdas", "tiny", train={"epochs": 1})`: a run that is composed, its supernet built, and not yet trained."""

    def start(method: str, space: str = "tiny", *, seed: int = 0, **sets: dict[str, Any]) -> Trained:
        sets["train"] = {"clip": None, "nesterov": False, **sets.get("train", {})}
        sets["engine"] = {"precision": "float64", **sets.get("engine", {})}
        recipe = resolve(method, space, preset="test", seed=seed, sets=sets)
        found: dict[str, Any] = {}
        watch = Watch(lambda: found["method"])
        run, _ = prepare(recipe, tmp_path / "runs", [watch])
        found["method"] = next(iter(run.plugins.values()))
        return Trained(run, found["method"], watch.steps)

    return start


@pytest.fixture
def train(begin: Train) -> Train:
    """The same, trained."""

    def start(*args: Any, **more: Any) -> Trained:
        trained = begin(*args, **more)
        trained.run.hook.train(run=trained.run)
        return trained

    return start


@pytest.fixture
def inside(begin: Train) -> Callable[..., Any]:
    """`inside("darts-v2", lambda trained: ..., ...)`: call something at the first step, inside the stage."""

    def start(method: str, look: Callable[[Trained], Any], *args: Any, **more: Any) -> Any:
        trained = begin(method, *args, **more)
        run = trained.run

        def work() -> None:
            run.net = run.hook.build_supernet(run=run)
            run.optimizer = run.hook.make_optimizer(run=run)
            for _ in run.steps(run.recipe.train.epochs * run.steps_per_epoch):
                found.append(look(trained))
                break

        found: list[Any] = []
        run.stage("train", work)
        return found[0]

    return start
