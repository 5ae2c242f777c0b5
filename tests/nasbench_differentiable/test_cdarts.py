"""CDARTS: cycles of an evaluation network, how it and the search network are compared, what alpha follows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_cells.nb201 import NB201
from nasbench_differentiable.cdarts import introspection
from nasbench_differentiable.relaxation import validation_batch

from nasbench import BadInput, Run, hookimpl
from nasbench.harness import prepare
from nasbench.recipe import resolve
from tests.nasbench_differentiable.conftest import Trained

#: Four steps an epoch on tiny: one epoch of pretraining, then cycles of two, the first of which is warm-up.
OPTIONS = "cdarts[pretrain=1,cycle=2,warmup=1]"


class Weights:
    """Keeps both networks' weights, alpha and the architecture as they are after each step."""

    def __init__(self) -> None:
        self.method: Any = None
        self.seen: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor, Any]] = []

    @hookimpl
    def progress(self, run: Run) -> None:
        method = self.method
        nets = [{n: p.detach().clone() for n, p in net.named_parameters()} for net in (run.net, method._evaluation)]
        self.seen.append((nets[0], nets[1], torch.cat(method._alphas).detach().clone(), method._arch))


def trained(tmp_path: Path, method: str = OPTIONS, space: str = "tiny", epochs: int = 5) -> tuple[Weights, Run]:
    """A run in float64, and what each of its steps left."""
    sets = {"train": {"epochs": epochs}, "engine": {"precision": "float64"}}
    watch = Weights()
    run, _ = prepare(resolve(method, space, preset="test", sets=sets), tmp_path, [watch])
    watch.method = run.plugins["cdarts"]
    run.hook.train(run=run)
    return watch, run


@pytest.mark.invariant("cdarts", 1)
def test_networks_are_compared_by_the_divergence_of_their_softened_answers() -> None:
    own = [torch.tensor([[math.log(9.0), 0.0]]), torch.tensor([[0.0, 0.0]])]
    theirs = [torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(9.0), 0.0]])]
    # Softened by T = 2: 3/4 and 1/4 against halves. Sum of p log(p/q), with p the evaluation network's:
    first = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    second = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(introspection(own, theirs, 2.0)) == pytest.approx(4 * (first + second) / 2, rel=1e-6)
    assert float(introspection(own, own, 2.0)) == 0
    a, b = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    assert all(slope.abs().sum() > 0 for slope in torch.autograd.grad(introspection([a], [b], 2.0), [a, b]))


@pytest.mark.invariant("cdarts", 2)
def test_who_is_trained_when(tmp_path: Path) -> None:
    watch, _ = trained(tmp_path)

    def moved(place: int) -> list[bool]:
        """By epoch: whether something changed after its first step."""
        found = []
        for epoch in range(5):
            first, last = watch.seen[4 * epoch][place], watch.seen[4 * epoch + 3][place]
            pairs = ((first[n], last[n]) for n in first) if isinstance(first, dict) else [(first, last)]
            found.append(any(not a.equal(b) for a, b in pairs))
        return found

    assert moved(0) == [True] * 5  # the search network
    assert moved(1) == [False, True, True, True, True]  # the evaluation network
    assert moved(2) == [False, False, True, False, True]  # alpha


@pytest.mark.invariant("cdarts", 3)
@pytest.mark.parametrize("space", ["tiny", "nb201"])
def test_the_evaluation_network_is_that_of_alpha_when_its_cycle_began(tmp_path: Path, space: str) -> None:
    watch, run = trained(tmp_path, space=space)
    per_epoch = run.steps_per_epoch
    archs = [arch for *_, arch in watch.seen]
    assert set(archs[:per_epoch]) == {()}
    for begin in (per_epoch, 3 * per_epoch):
        alphas = watch.seen[begin - 1][2].split(list(map(len, run.space.relaxed.values())))
        assert set(archs[begin : begin + 2 * per_epoch]) == {run.space.discretize([a.softmax(0) for a in alphas])}


@pytest.mark.invariant("cdarts", 3)
def test_operations_that_it_does_not_have_rest(tmp_path: Path) -> None:
    watch, run = trained(tmp_path, space="nb201")
    before, after = (watch.seen[at][1] for at in (run.steps_per_epoch - 1, 3 * run.steps_per_epoch - 1))
    moved = {name for name in before if not before[name].equal(after[name])}
    used = run.net.used([watch.seen[run.steps_per_epoch][3]])
    assert moved == used  # under weight decay and momentum too
    assert len(used) < len(before)


@pytest.mark.invariant("cdarts", 4)
def test_alpha_follows_both_losses_the_difference_and_what_holds_it(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        for i, alpha in enumerate(method._alphas):
            alpha.data.copy_(torch.linspace(-1, 1 + i, len(alpha), dtype=alpha.dtype))
        batch = run.hook.next_batch(run=run)
        copy = {name: p.detach().clone() for name, p in method._evaluation.named_parameters()}
        seen: list[Any] = []
        object.__setattr__(method, "descend", lambda run, weights, slopes: seen.extend(slopes))
        mine = method.architecture_gradient(run, batch)

        valid = validation_batch(run)
        images = valid.images.double()
        alphas = [a.detach().clone().requires_grad_() for a in method._alphas]
        theirs = torch.func.functional_call(method._evaluation, copy, (images, [method._arch]))[0]
        own = run.net(images, [[a.softmax(0) for a in alphas]])[0]
        p, q = (theirs / 2).softmax(1), (own / 2).softmax(1)
        value = F.cross_entropy(own, valid.labels) + 0.7 * 4 * (p * (p / q).log()).sum(1).mean()
        value = value + 5 * torch.stack([a[0].abs() for a in alphas]).sum()  # a skip is tiny's first option
        return mine, torch.autograd.grad(value, alphas), method._arch, seen

    found = inside("cdarts[pretrain=0,cycle=1,warmup=0,distillation=0.7]", look, train={"epochs": 4})
    mine, expected, arch, slopes = found
    for a, b in zip(mine, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert arch == (2, 2, 2)
    assert any(slope is not None and slope.abs().sum() > 0 for slope in slopes)


@pytest.mark.invariant("cdarts", 5)
def test_operations_without_weights_are_held_down_at_first(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        for alpha in method._alphas:
            alpha.data.copy_(torch.tensor([-2.0, 3.0, 4.0]))
        found = []
        for epoch in range(2, 10):
            run.step = epoch * run.steps_per_epoch
            found.append(float(method.held(run).detach()))
        return found

    found = inside("cdarts[pretrain=2,hold=5,hold_share=0.5]", look, train={"epochs": 10})
    assert found == pytest.approx([30, 22.5, 15, 7.5, 0, 0, 0, 0])  # 5 |-2| of three skips, over 4 of 8 epochs


@pytest.mark.invariant("cdarts", 6)
@pytest.mark.parametrize(("space", "cells"), [("nb201", 2), ("darts", 2)])
def test_equal_networks_are_seen_as_equal_behind_every_reduction(inside: Any, space: str, cells: int) -> None:
    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        method._evaluation.load_state_dict(run.net.state_dict())
        images = run.hook.next_batch(run=run).images
        arch = run.space.discretize([torch.arange(len(o)).double() for o in run.space.relaxed.values()])
        own, same = (method.answers(run, net, arch, images) for net in (run.net, method._evaluation))
        mixed = method.answers(run, run.net, method.mixture(run, "valid"), images)
        return own, same, mixed

    method = "cdarts" if space == "nb201" else "cdarts[cells=3]"
    own, same, mixed = inside(method, look, space)
    assert len(own) == cells + 1
    assert introspection(own, same, 2.0).item() == pytest.approx(0, abs=1e-12)
    assert introspection(mixed, same, 2.0).item() > 1e-6


@pytest.mark.invariant("cdarts", 7)
def test_the_evaluation_network_may_be_deeper(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        return len(run.net.cells), len(method._evaluation.cells), len(method._evaluation.reductions)

    assert inside("cdarts[cells=5]", look, "darts") == (3, 5, 2)


@pytest.mark.parametrize(
    ("method", "space", "said"),
    [
        ("cdarts[pretrain=2]", "tiny", r"rest in the first 2 epochs .* which leaves none of 2\."),
        ("cdarts[cycle=1]", "tiny", "which leaves none of 2"),
        ("cdarts[cells=3]", "tiny", r"cdarts\.cells = 3 is for a space made of cells; leave it out on tiny\."),
        ("cdarts", "vgg16", "weighs options against each other; vgg16 does not mix them"),
    ],
)
def test_what_cannot_be_is_refused(method: str, space: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        prepare(resolve(method, space, preset="test"), tmp_path)


def test_a_depth_that_changes_the_decisions_is_refused(tmp_path: Path) -> None:
    sets = {"darts": {"variant": "SS3"}}
    with pytest.raises(BadInput, match="changes the decisions of this variant of darts"):
        prepare(resolve("cdarts[cells=5]", "darts", preset="test", sets=sets), tmp_path)


def test_on_nas_bench_201_it_finds_an_architecture(tmp_path: Path) -> None:
    _, run = trained(tmp_path, "cdarts", "nb201", epochs=2)
    (choice,) = run.hook.select(run=run)
    assert choice.arch in NB201()
