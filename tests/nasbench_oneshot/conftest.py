"""A short real run, watched from outside: what was sampled, at which rates, what each step did."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from nasbench import Arch, Run, hookimpl
from nasbench.data import Batch
from nasbench.harness import prepare
from nasbench.recipe import resolve

Tensors = dict[str, torch.Tensor]


@dataclass
class Step:
    """One training step as an observer sees it."""

    batch: Batch
    progress: float
    archs: list[Arch] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    grads: Tensors = field(default_factory=dict)
    """Gradients before clipping, of the parameters that have one."""
    before: Tensors = field(default_factory=dict)
    after: Tensors = field(default_factory=dict)
    group: dict[str, Any] = field(default_factory=dict)
    """The optimizer's settings at the step."""
    bank: Any = None
    """The optimizer state that the step used, alive."""
    clones: list[tuple[Any, Tensors]] = field(default_factory=list)
    """After the step, every state seen so far and a copy of its buffers."""


def buffers(bank: Any, run: Run) -> Tensors:
    """The momentum buffers of an optimizer state, by parameter name."""
    return {n: bank[p]["momentum_buffer"] for n, p in run.net.named_parameters() if p in bank}


def same(a: Tensors, b: Tensors) -> bool:
    """Whether two sets of tensors are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def close(a: Tensors, b: Tensors) -> bool:
    """Whether two sets of float64 tensors are equal but for rounding."""
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], rtol=1e-10, atol=1e-12) for name in a)


def clone(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


class Watch:
    """Outermost around every hook: sees what all other plugins made of the sample."""

    priority = 100

    def __init__(self, force: Callable[[Run, list[Arch]], list[Arch]] | None = None) -> None:
        self.steps: list[Step] = []
        self.start: torch.nn.Module | None = None
        self.inside = Inside(self, force)

    @hookimpl(wrapper=True)
    def train_step(self, run: Run, batch: Batch) -> Generator[None, bool, bool]:
        self.start = self.start or copy.deepcopy(run.net)
        self.steps.append(Step(batch, run.progress))
        return (yield)

    @hookimpl(wrapper=True)
    def sample_archs(self, run: Run) -> Generator[None, list[Arch], list[Arch]]:
        self.steps[-1].archs = yield
        return self.steps[-1].archs

    @hookimpl(wrapper=True)
    def learning_rates(self, run: Run, archs: list[Arch]) -> Generator[None, list[float], list[float]]:
        self.steps[-1].rates = yield
        return self.steps[-1].rates


class Inside:
    """Innermost, next to the method: may force a sample, sees the optimizer as it is when it steps."""

    priority = -100

    def __init__(self, watch: Watch, force: Callable[[Run, list[Arch]], list[Arch]] | None) -> None:
        self.watch, self.force = watch, force

    @hookimpl(wrapper=True)
    def sample_archs(self, run: Run) -> Generator[None, list[Arch], list[Arch]]:
        archs = yield
        return self.force(run, archs) if self.force else archs

    @hookimpl(wrapper=True)
    def update(self, run: Run, archs: list[Arch]) -> Generator[None, bool, bool]:
        assert run.optimizer is not None
        step, parameters = self.watch.steps[-1], dict(run.net.named_parameters())
        step.grads = clone({n: p.grad for n, p in parameters.items() if p.grad is not None})
        step.before, step.bank = clone(parameters), run.optimizer.state
        step.group = {k: v for k, v in run.optimizer.param_groups[0].items() if k != "params"}
        answer = yield
        step.after = clone(parameters)
        banks = {id(s.bank): s.bank for s in self.watch.steps}
        step.clones = [(bank, clone(buffers(bank, run))) for bank in banks.values()]
        return answer


@dataclass
class Trained:
    """What a short run left."""

    run: Run
    steps: list[Step]
    start: Any
    """A copy of the supernet before the first step."""

    @property
    def weights(self) -> Tensors:
        return clone(dict(self.run.net.named_parameters()))

    def buffers(self, bank: Any) -> Tensors:
        return buffers(bank, self.run)


Train: TypeAlias = "Callable[..., Trained]"


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Train a supernet with the preset `test` and say what happened: `train("spos", train={"epochs": 1})`.

    Float64, no clipping and no Nesterov momentum unless asked for, so that steps can be checked by hand.
    """

    def start(
        method: str,
        space: str = "tiny",
        *,
        seed: int = 0,
        device: str = "cpu",
        force: Callable[[Run, list[Arch]], list[Arch]] | None = None,
        observers: Sequence[object] = (),
        **sets: dict[str, Any],
    ) -> Trained:
        sets["train"] = {"clip": None, "nesterov": False, **sets.get("train", {})}
        sets["engine"] = {"precision": "float64", **sets.get("engine", {})}
        # Nothing is ranked here: nb201 does without a table.
        target = "digits" if space == "tiny" else "cifar10"
        recipe = resolve(method, space, preset="test", target=target, seed=seed, device=device, sets=sets)
        watch = Watch(force)
        run, _ = prepare(recipe, tmp_path / "runs", [watch, *observers, watch.inside])
        run.hook.train(run=run)
        return Trained(run, watch.steps, watch.start)

    return start


# ---------------------------------------------------------------------- the same in plain torch


def algorithm(
    trained: Trained,
    rate: Callable[[Arch, float], float],
    *,
    inside: bool = False,
    cluster: Callable[[list[Arch]], int] = lambda archs: 0,
    beta: float = 0.9,
    nesterov: bool = False,
    decay: float = 5e-4,
    decay_rate: float | None = None,
) -> Tensors:
    """The weights after the sampled steps, by Algorithms 1 (rate outside the momentum) and 2 (inside), by hand."""
    net, buffer = copy.deepcopy(trained.start), dict[tuple[int, str], torch.Tensor]()
    for step in trained.steps:
        rates, total = [rate(arch, step.progress) for arch in step.archs], dict[str, Any]()
        mean, i = sum(rates) / len(rates), cluster(step.archs)
        for arch, eta in zip(step.archs, rates, strict=True):
            net.zero_grad()
            logits = net(step.batch.images.double(), [arch])[0]
            torch.nn.functional.cross_entropy(logits, step.batch.labels).backward()
            for name, p in net.named_parameters():
                if p.grad is not None:
                    total[name] = total.get(name, 0) + (eta if inside else 1) * p.grad
        with torch.no_grad():
            for name, p in net.named_parameters():
                if name in total:
                    g = total[name] + (decay_rate or (mean if inside else 1)) * decay * p
                    buffer[i, name] = beta * buffer.get((i, name), 0) + g
                    p -= (1 if inside else mean) * (g + beta * buffer[i, name] if nesterov else buffer[i, name])
    return clone(dict(net.named_parameters()))


def cosine(arch: Arch, t: float, lr: float = 0.05) -> float:
    """The rate of the baselines: cosine to 0, step by step."""
    return lr * (1 + math.cos(math.pi * t)) / 2
