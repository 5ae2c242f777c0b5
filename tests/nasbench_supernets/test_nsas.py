"""NSAS: earlier, maximally different architectures are trained beside the sampled one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_supernets.nsas import NSAS

from nasbench import Arch, BadInput, Run
from nasbench.recipe import resolve
from tests.nasbench_oneshot.conftest import Tensors, Train, Trained, clone, close, cosine
from tests.nasbench_supernets.refused import train_refused


def regularised(trained: Trained, epsilon: float, own: int = 1) -> Tensors:
    """SGD with momentum on the sum over a step's own subnets of (1 - eps) L + eps/m sum of the constraints' L."""
    net, buffer = copy.deepcopy(trained.start), dict[str, torch.Tensor]()
    for step in trained.steps:
        net.zero_grad()
        losses = [F.cross_entropy(net(step.batch.images.double(), [a])[0], step.batch.labels) for a in step.archs]
        current, kept = losses[:own], losses[own:]
        total: Any = sum(current)
        if kept:
            total = sum((1 - epsilon) * loss + epsilon / len(kept) * sum(kept) for loss in current)
        total.backward()
        with torch.no_grad():
            for name, p in net.named_parameters():
                if p.grad is not None:
                    buffer[name] = 0.9 * buffer.get(name, 0) + p.grad + 5e-4 * p
                    p -= cosine((), step.progress) * buffer[name]
    return clone(dict(net.named_parameters()))


@pytest.mark.invariant("nsas", 1)
@pytest.mark.parametrize("epsilon", [0.2, 0.5])
def test_a_run_is_sgd_on_the_regularised_loss(train: Train, epsilon: float) -> None:
    trained = train(f"spos+nsas[constraints=3,epsilon={epsilon}]", train={"epochs": 4})
    assert [len(step.archs) - 1 for step in trained.steps[:6]] == [0, 1, 2, 3, 3, 3]
    assert close(trained.weights, regularised(trained, epsilon))


@pytest.mark.invariant("nsas", 1)
def test_each_of_several_subnets_has_the_constraints_beside_it(train: Train) -> None:
    trained = train("fairnas+nsas[constraints=2]", train={"epochs": 3})
    assert {len(step.archs) for step in trained.steps[1:]} == {5}
    assert close(trained.weights, regularised(trained, 0.5, own=3))


@pytest.mark.invariant("nsas", 2)
def test_the_constraints_are_earlier_architectures_and_all_different(train: Train) -> None:
    steps = train("spos+nsas[constraints=4,recent=5]", train={"epochs": 6}).steps
    seen: list[Arch] = []
    before: set[Arch] = set()
    for step in steps:
        own, *kept = step.archs
        assert len(kept) == len(set(kept)) <= 4
        assert set(kept) - before <= set(seen[-5:])
        assert len(set(kept) - before) <= 1  # at most one enters in a step
        seen, before = [*seen, own], set(kept)


@pytest.mark.invariant("nsas", 3)
def test_the_most_novel_replaces_the_constraint_most_like_the_sample() -> None:
    plugin = NSAS(constraints=2)
    plugin._set, plugin._recent = [(0, 0, 0), (2, 2, 2)], [(0, 0, 1), (1, 1, 0), (1, 1, 1)]
    plugin.renew((0, 0, 2))  # like (0, 0, 0) on two of three decisions
    assert set(plugin._set) == {(2, 2, 2), (0, 0, 0)}  # as far from (2, 2, 2) as any: the old one stays
    plugin._set = [(2, 0, 0), (2, 2, 2)]
    plugin.renew((2, 0, 1))
    assert plugin._set == [(2, 2, 2), (0, 0, 1)]  # the first at distance 1, where (2, 0, 0) has 2/3
    plugin._set = []
    plugin.renew((0, 0, 2))
    plugin.renew((0, 0, 2))
    assert plugin._set == [(0, 0, 1), (1, 1, 0)]  # an empty place: the first, then the one that differs everywhere


@pytest.mark.invariant("nsas", 4)
def test_novelty_is_the_mean_distance_to_the_nearest() -> None:
    others: list[Arch] = [(0, 0, 0, 0), (0, 0, 0, 1), (1, 1, 1, 1)]
    assert NSAS(neighbours=10).novelty((0, 0, 1, 1), others) == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    assert NSAS(neighbours=2).novelty((0, 0, 1, 1), others) == pytest.approx((0.25 + 0.5) / 2)
    assert NSAS().novelty((0, 0, 1, 1), []) == float("inf")


@pytest.mark.invariant("nsas", 5)
def test_without_weight_the_constraints_change_nothing(train: Train) -> None:
    """Nor do they change what the method samples."""
    settings = {"epochs": 3, "momentum": 0.0, "weight_decay": 0.0}
    alone, beside = train("spos", train=settings), train("spos+nsas[epsilon=0]", train=settings)
    assert [s.archs[0] for s in beside.steps] == [s.archs[0] for s in alone.steps]
    assert close(alone.weights, beside.weights)
    assert not close(alone.weights, train("spos+nsas", train=settings).weights)


def test_calr_gives_every_subnet_a_rate_of_its_own(train: Train) -> None:
    steps = train("spos+calr+nsas", train={"epochs": 3}).steps
    assert all(len(step.rates) == len(step.archs) for step in steps)
    assert steps[6].group["lr"] == 1  # inside the momentum


def test_mixtures_and_clusters_are_refused(train: Train) -> None:
    with pytest.raises(BadInput, match="nsas trains subnets of many clusters in a step"):
        train_refused("spos+ms+nsas")
    with pytest.raises(BadInput, match="nsas weighs the losses of a plain step, and sumnas has a step of its own"):
        train_refused("sumnas+nsas")
    with pytest.raises(BadInput, match="pa-da weighs operations by the gradients of one subnet a step"):
        train_refused("pa-da+nsas")

    def relax(run: Run, archs: list[Arch]) -> Any:
        return [[torch.ones(3) for _ in arch] for arch in archs]

    with pytest.raises(BadInput, match="nsas needs single subnets"):
        train("spos+nsas", force=relax)


def test_the_paper_keeps_four_at_a_fifth_on_nas_bench_201() -> None:
    recipe = resolve("spos+nsas", "nb201", preset="paper", target="cifar10")
    assert recipe.options["nsas"] == {"constraints": 4, "epsilon": 0.2, "recent": 50, "neighbours": 10}
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.lr) == (100, 64, 0.025)
