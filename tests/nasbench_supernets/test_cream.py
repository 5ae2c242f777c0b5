"""Cream: a board of prioritized paths, and a learned match that makes teachers of them."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_supernets.cream import Cream, distillation
from nasbench_supernets.pa_da import PADA
from torch.func import functional_call

from nasbench import Arch, BadInput, Run
from nasbench.data import Batch
from nasbench.recipe import resolve
from tests.nasbench_oneshot.conftest import Train, Trained, same
from tests.nasbench_supernets.refused import train_refused

STUDENT, TEACHERS = (0, 1, 2), [(1, 1, 1), (2, 0, 0), (0, 1, 1)]


def on_board(train: Train, **options: Any) -> tuple[Run, Any, Batch]:
    """A run in its last step, three paths on the board, the match's weights drawn large."""
    inside = ",".join(f"{k}={v}" for k, v in options.items())
    trained = train(f"cream[{inside}]" if inside else "cream", train={"epochs": 3})
    run, plugin, batch = trained.run, trained.run.plugins["cream"], trained.steps[-1].batch
    assert isinstance(plugin, Cream)
    plugin._board = {arch: (10.0 * i, 1000) for i, arch in enumerate([*TEACHERS, STUDENT])}
    with torch.no_grad():
        plugin._meta.weight.copy_(torch.linspace(-9, 7, 10, dtype=torch.float64))
        plugin._meta.bias.fill_(0.5)
    run.step, run.total_steps = 11, 12
    return run, plugin, batch


def match_by_hand(net: Any, plugin: Cream, images: torch.Tensor) -> tuple[Arch, float]:
    """The largest sigmoid of the linear layer, and whose it is."""
    found = {}
    for teacher in TEACHERS:
        with torch.no_grad():
            apart = net(images, [STUDENT])[0].softmax(1) - net(images, [teacher])[0].softmax(1)
            weight, bias = plugin._meta.weight[0], plugin._meta.bias[0]
            found[teacher] = 1 / (1 + math.exp(-float((apart.mean(0) * weight).sum() + bias)))
    best = max(found, key=found.__getitem__)
    return best, found[best]


@pytest.mark.invariant("cream", 1)
@pytest.mark.parametrize("mixing", ["sum", "weighted"])
def test_the_loss_is_cross_entropy_and_distillation_by_the_matching_degree(train: Train, mixing: str) -> None:
    run, plugin, batch = on_board(train, mixing=mixing)
    images = batch.images.double()
    run.net.zero_grad()
    teacher, rho = match_by_hand(run.net, plugin, images[:4])
    assert 0.05 < rho < 0.95
    logits = run.net(images, [STUDENT])
    (loss,) = run.hook.compute_loss(run=run, logits=logits, batch=batch, archs=[STUDENT])
    with torch.no_grad():
        taught, own = run.net(images, [teacher])[0].softmax(1), logits[0].softmax(1)
    kd = float(-(taught * own.log()).sum() / len(images))
    ce = float(-own[torch.arange(len(images)), batch.labels].log().mean())
    assert float(loss.detach()) == pytest.approx(
        ce + rho * kd if mixing == "sum" else (rho * kd + (2 - rho) * ce) / 2, rel=1e-10
    )
    loss.backward()  # no gradient reaches the teacher's own operations or the match
    touched = {name for name, p in run.net.named_parameters() if p.grad is not None and p.grad.any()}
    assert {".".join(n.split(".")[:3]) for n in touched if n.startswith("layers")} == {"layers.1.0", "layers.2.1"}
    assert all(p.grad is None for p in plugin._meta.parameters())


@pytest.mark.invariant("cream", 2)
def test_the_teacher_is_the_path_that_matches_best_and_never_the_path_itself(train: Train) -> None:
    run, plugin, batch = on_board(train)
    chosen = set()
    for scale in (-1.0, 1.0, 30.0):
        with torch.no_grad():
            plugin._meta.weight.copy_(scale * torch.linspace(-3, 5, 10, dtype=torch.float64).roll(int(scale) % 7))
        teacher, rho = plugin.match(run, batch, STUDENT, TEACHERS)
        expected, degree = match_by_hand(run.net, plugin, batch.images[:4].double())
        assert teacher == expected
        assert float(rho.detach()) == pytest.approx(degree)
        chosen.add(teacher)
    assert len(chosen) > 1
    alone = train("cream", train={"epochs": 1}).run
    asked: list[Any] = []
    other: Any = alone.plugins["cream"]
    other._board = {STUDENT: (50.0, 1)}
    object.__setattr__(other, "match", lambda *args: asked.append(args))
    alone.step, alone.total_steps = 11, 12
    logits = alone.net(batch.images.double(), [STUDENT])
    (loss,) = alone.hook.compute_loss(run=alone, logits=logits, batch=batch, archs=[STUDENT])
    assert not asked
    assert float(loss.detach()) == pytest.approx(float(F.cross_entropy(logits[0], batch.labels)))


@pytest.mark.invariant("cream", 3)
def test_the_match_descends_the_validation_loss_after_a_step_of_distillation(train: Train) -> None:
    """Against automatic differentiation through the step: W' = W - eta grad(rho KD), then dL_val(W')/d match."""
    run, plugin, batch = on_board(train, meta_lr=0.7)
    before = [p.detach().clone() for p in plugin._meta.parameters()]
    net, weights = run.net, dict(run.net.named_parameters())
    images = batch.images.double()
    eta = 0.05 * (1 + math.cos(math.pi * 11 / 12)) / 2
    teacher, rho = plugin.match(run, batch, STUDENT, TEACHERS)
    with torch.no_grad():
        taught = net(images, [teacher])[0].softmax(1)
    loss = rho * distillation(net(images, [STUDENT])[0], taught)
    grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
    moved = {n: w if g is None else w - eta * g for (n, w), g in zip(weights.items(), grads, strict=True)}
    rows = torch.randperm(len(run.data.valid), generator=run.generator("meta"))[:50]
    valid = run.data.batch("valid", rows)
    after = functional_call(net, moved, (valid.images.double(), [STUDENT]))[0]
    slopes = torch.autograd.grad(F.cross_entropy(after, valid.labels), list(plugin._meta.parameters()))
    frozen = copy.deepcopy(net.state_dict())
    plugin.learn(run, batch, STUDENT, TEACHERS)
    for p, old, slope in zip(plugin._meta.parameters(), before, slopes, strict=True):
        assert slope.any()
        torch.testing.assert_close(p.detach(), old - 0.7 * slope, rtol=1e-9, atol=1e-14)
    assert same(dict(net.state_dict()), frozen)  # the step was only thought of


@pytest.mark.invariant("cream", 4)
def test_the_board_takes_what_is_better_and_cheaper_or_much_better(train: Train) -> None:
    run = train("cream", train={"epochs": 1}).run
    cheap, middle, dear = (0, 0, 0), (0, 0, 1), (1, 1, 1)
    costs = [run.space.cost(arch)["madds"] for arch in (cheap, middle, dear)]
    assert costs == sorted(set(costs))

    def board(gap: float | None, *news: tuple[Arch, float]) -> dict[Arch, float]:
        plugin = Cream(board=2, gap=gap)
        for arch, top1 in [(dear, 60.0), (middle, 50.0), *news]:
            plugin.admit(run, arch, top1)
        return {arch: top1 for arch, (top1, _) in plugin._board.items()}

    assert board(5) == {dear: 60, middle: 50}  # room for both
    assert board(5, (cheap, 50.0)) == {dear: 60, middle: 50}  # no better
    assert board(5, (cheap, 50.5)) == {dear: 60, cheap: 50.5}  # better and cheaper
    assert board(5, ((0, 1, 0), 50.5)) == {dear: 60, middle: 50}  # better, as dear as the worst
    assert board(5, ((1, 1, 0), 55.0)) == {dear: 60, middle: 50}  # better by the gap
    assert board(5, ((1, 1, 0), 55.5)) == {dear: 60, (1, 1, 0): 55.5}  # by more
    assert board(None, ((1, 1, 0), 99.0)) == {dear: 60, middle: 50}  # the paper's rule alone
    assert board(5, (dear, 40.0)) == {dear: 40, middle: 50}  # judged anew


@pytest.mark.invariant("cream", 5)
def test_until_the_board_opens_a_run_is_spos(train: Train) -> None:
    spos, cream = (train(m, train={"epochs": 3}).steps for m in ("spos", "cream[warmup=0.5]"))
    assert [s.archs for s in cream] == [s.archs for s in spos]
    for step in range(6):
        assert same(cream[step].after, spos[step].after)
    assert same(cream[6].after, spos[6].after)  # the first path on the board has no teacher
    assert not same(cream[11].after, spos[11].after)


@pytest.mark.invariant("cream", 6)
def test_the_choice_is_the_best_of_the_board_on_validation_images(train: Train) -> None:
    trained: Trained = train("cream[board=4]", train={"epochs": 3})
    run, plugin = trained.run, trained.run.plugins["cream"]
    assert isinstance(plugin, Cream)
    assert 0 < len(plugin._board) <= 4
    (choice,) = run.hook.select(run=run)
    tops = dict(zip(plugin._board, run.hook.score(run=run, archs=list(plugin._board)), strict=True))
    assert choice.arch in tops
    assert tops[choice.arch] == max(tops.values())
    assert len(run.scores) == 27  # the whole subset is ranked besides


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(BadInput, match=r"cream\.warmup = 0\.9 leaves no step to fill the board in a run of 8"):
        train_refused("cream[warmup=0.9]")
    with pytest.raises(BadInput, match="mgcs compares gradients of a plain step's losses, and cream has others"):
        train_refused("cream+mgcs")
    with pytest.raises(BadInput, match="cream and evolution both decide 'select'"):
        train_refused("cream+evolution")


@pytest.mark.parametrize("method", [Cream(), PADA()])
def test_several_processes_are_refused(method: Any) -> None:
    run = SimpleNamespace(recipe=SimpleNamespace(engine=SimpleNamespace(processes=2)))
    assert str(method.refuse(run)).endswith("; run it in one.")


def test_a_board_outside_the_limits_is_a_sentence(train: Train) -> None:
    trained = train("cream[board=1]", train={"epochs": 3}, select={"within": ["madds=1.2K"]})
    plugin: Any = trained.run.plugins["cream"]
    plugin._board = {(1, 1, 1): (90.0, 1)}
    with pytest.raises(BadInput, match=r"None of cream's 1 prioritized paths keeps to select\.within"):
        trained.run.hook.select(run=trained.run)


def test_the_paper_preset() -> None:
    recipe = resolve("cream", "nb201", preset="paper", target="cifar10")
    own = recipe.options["cream"]
    assert (own["board"], own["warmup"] * 120, own["meta_every"], own["meta_lr"]) == (10, 20, 200, 1e-4)
    assert recipe.train.epochs == 120
