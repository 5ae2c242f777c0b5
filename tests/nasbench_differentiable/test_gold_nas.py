"""GOLD-NAS: sigmoids, one level, a regulariser whose weight adapts, gradual pruning down to budgets."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_cells.darts import DARTS
from nasbench_differentiable.gold_nas import GoldNAS

from nasbench import BadInput
from nasbench.recipe import resolve
from tests.nasbench_differentiable.conftest import Train, Trained

NODES = ([0], [1, 2], [3, 4, 5])  # the edges into each node of nb201's cell


def gold(**options: Any) -> dict[str, Any]:
    return {"gold-nas": {"budgets": ["params=1M"], **options}}


def set_alphas(method: Any, values: list[list[float]]) -> None:
    """alpha for the weights sigmoid(alpha) = value."""
    method._alphas = [torch.tensor(v, dtype=torch.float64).logit().requires_grad_() for v in values]


def test_the_paper_s_hyper_parameters() -> None:
    recipe = resolve("gold-nas", "darts", preset="paper")
    method = GoldNAS(**recipe.options["gold-nas"])
    assert (method.arch_lr, method.lambda_0, method.c_0) == (1.0, 1e-5, 2.0)
    assert (method.pace, method.xi_max, method.xi_min, method.mu) == (4, 0.05, 0.01, 0.0)
    assert (method.budgets, method.operations) == (["madds=240M"], ["skip_connect", "sep_conv_3x3"])
    assert (recipe.train.lr, recipe.train.schedule, recipe.train.batch_size) == (0.01, "constant", 96)
    space = DARTS(**recipe.options["darts"])
    assert (space.variant, space.cells, space.channels, space.final_channels) == ("free", 14, 36, 36)


@pytest.mark.invariant("gold-nas", 1)
@pytest.mark.parametrize("space", ["nb201", "darts"])
def test_every_operation_begins_at_one_half_and_none_takes_no_part(inside: Any, space: str) -> None:
    def look(trained: Trained) -> Any:
        return trained.method.mixture(trained.run, "train")

    for weights in inside("gold-nas", look, space):
        assert weights.tolist() == [0.0, *[0.5] * (len(weights) - 1)]


@pytest.mark.invariant("gold-nas", 1)
def test_operations_do_not_compete(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        before = trained.method.mixture(trained.run, "train")[0].tolist()
        trained.method._alphas[0].data[3] = 2.0
        return before, trained.method.mixture(trained.run, "train")[0].tolist()

    before, after = inside("gold-nas", look, "nb201")
    assert after[3] == pytest.approx(1 / (1 + math.exp(-2)))
    assert after[:3] + after[4:] == before[:3] + before[4:]


@pytest.mark.invariant("gold-nas", 2)
def test_weights_and_alpha_follow_one_loss_on_the_training_images(train: Train) -> None:
    """A run in plain torch, with a constant lambda."""
    options = gold(lambda_0=0.5, c_0=1.5, xi_max=1e-9, xi_min=0)
    trained = train("gold-nas", "nb201", train={"epochs": 1, "clip": 1.0}, **options)
    run, method = trained.run, trained.method
    run._stage = "train"
    saved = [a.detach().clone() for a in method._alphas]
    net = copy.deepcopy(run.hook.build_supernet(run=run))
    alphas = [torch.zeros(5, dtype=torch.float64, requires_grad=True) for _ in range(6)]
    sgd = torch.optim.SGD(net.parameters(), 0.025, 0.9, weight_decay=5e-4)
    other = torch.optim.SGD(alphas, 1.0, 0.9)
    for step in trained.steps:
        sgd.zero_grad()
        other.zero_grad()
        mixture = [a.sigmoid() * torch.tensor([0.0, 1, 1, 1, 1]).double() for a in alphas]
        F.cross_entropy(net(step.batch.images.double(), [mixture])[0], step.batch.labels).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)  # the weights' gradient alone
        sgd.step()
        other.step()
    assert len(trained.steps) == 2
    for mine, its in zip([*net.parameters(), *alphas], [*run.net.parameters(), *saved], strict=True):
        assert torch.allclose(mine, its, rtol=1e-10, atol=1e-12)


@pytest.mark.invariant("gold-nas", 3)
@pytest.mark.parametrize(("uniform", "mu"), [(1.0, 0.0), (0.5, 3.0)])
def test_the_regulariser_by_hand(inside: Any, uniform: float, mu: float) -> None:
    values = [[0.5, 0.1 + e / 10, 0.2, 0.3, 0.4] for e in range(6)]

    def look(trained: Trained) -> Any:
        method, run = trained.method, trained.run
        set_alphas(method, values)
        method._alive[4][1] = False
        value = method.regularizer(run)
        value.backward()
        value = value.detach()
        costs = [
            run.space.cost(tuple(op if i == e else 0 for i in range(6)))["madds"] - run.space.cost((0,) * 6)["madds"]
            for e, op in ((4, 2), (5, 3))
        ]
        assert [method._cost["madds"][e][op] for e, op in ((4, 2), (5, 3))] == costs
        return float(value), method._cost["madds"], method._alphas[4].grad

    found, cost, slope = inside("gold-nas", look, "nb201", **gold(uniform=uniform, mu=mu))
    wanted = 0.0
    for into in NODES:
        left = [(e, op) for e in into for op in range(1, 5) if (e, op) != (4, 1)]
        mean = sum(values[e][op] for e, op in left) / len(left)
        wanted += sum(math.log(1 + values[e][op] / mean) * (uniform + mu * float(cost[e][op]) / 1e6) for e, op in left)
    assert found == pytest.approx(wanted, rel=1e-10)
    assert [bool(g) for g in slope.tolist()] == [False, False, True, True, True]  # none and what was pruned: nothing


@pytest.mark.invariant("gold-nas", 3)
def test_the_loss_is_the_task_s_and_lambda_times_the_regulariser(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        batch = run.hook.next_batch(run=run)
        logits = run.forward(batch.images, [method.mixture(run, "train")])
        found = []
        for method._control["lambda"] in (0.0, 0.25):
            found.append(run.hook.compute_loss(run=run, logits=logits, batch=batch, archs=[None]))
        return found, F.cross_entropy(logits[0], batch.labels)

    (plain, more), wanted = inside("gold-nas", look, "nb201")
    assert plain.tolist() == [pytest.approx(wanted.item())]
    assert (more - plain).item() == pytest.approx(0.25 * 24 * math.log(2))  # all alike: 24 times ln(1 + 1)


@pytest.mark.invariant("gold-nas", 4)
def test_lambda_grows_faster_and_faster_until_enough_is_pruned(begin: Train) -> None:
    trained = begin("gold-nas", "nb201", **gold(pace=2, lambda_0=0.1, c_0=3.0, budgets=["params=2K"]))
    method, run = trained.method, trained.run
    method.measure(run)
    method._control = {"lambda": 0.0, "increase": 0.1}
    found = []
    for pruned in (0, 1, 2, 0):
        method.__dict__["prune"] = lambda run, pruned=pruned: pruned
        method._alphas = [torch.zeros(5) for _ in range(6)]
        method.after_epoch(run)
        found.append((method._control["lambda"], method._control["increase"]))
    assert found == [pytest.approx(pair) for pair in [(0.3, 0.3), (1.2, 0.9), (0.4, 0.1), (0.7, 0.3)]]


@pytest.mark.invariant("gold-nas", 5)
def test_the_n0_weakest_below_xi_max_and_all_below_xi_min_are_pruned(inside: Any) -> None:
    """Shares of 0.02 and less by hand: node 3 has twelve operations, of which five are weak."""
    values = [[0.5] * 5 for _ in range(6)]
    values[3][1:] = [0.001, 0.002, 0.1, 0.11]
    values[5][1:] = [0.12, 0.5, 0.5, 0.5]
    total = sum(sum(values[e][1:]) for e in NODES[2])
    assert values[3][2] / total < 0.001 < values[3][3] / total < 0.05

    def look(trained: Trained) -> Any:
        set_alphas(trained.method, values)
        count = trained.method.prune(trained.run)
        return count, [
            e * 10 + op for e, alive in enumerate(trained.method._alive) for op in range(1, 5) if not alive[op]
        ]

    def left(**options: Any) -> Any:
        return inside("gold-nas", look, "nb201", **gold(**options))

    assert left(pace=1, xi_max=0.05, xi_min=1e-9) == (1, [31])
    assert left(pace=1, xi_max=0.05, xi_min=0.001) == (2, [31, 32])
    assert left(pace=4, xi_max=0.05, xi_min=0.001) == (4, [31, 32, 33, 34])
    assert left(pace=9, xi_max=0.05, xi_min=0.001) == (5, [31, 32, 33, 34, 51])


@pytest.mark.invariant("gold-nas", 5)
def test_a_node_keeps_its_last_operation(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        set_alphas(trained.method, [[0.5, 0.1, 0.2, 0.3, 0.4 - e / 100] for e in range(6)])
        trained.method.prune(trained.run)
        return [[e * 10 + op for e in into for op in range(5) if trained.method._alive[e][op]] for into in NODES]

    assert inside("gold-nas", look, "nb201", **gold(pace=99, xi_max=0.99)) == [[4], [14], [34]]


@pytest.mark.invariant("gold-nas", 5)
def test_what_a_budget_needs_is_not_pruned(inside: Any) -> None:
    """Convolutions are far stronger than skips and pooling, and the budget has room for none."""

    def look(trained: Trained) -> Any:
        method, run = trained.method, trained.run
        least = run.space.cost((0,) * 6)["params"]
        method.budgets = [f"params={least}"]
        set_alphas(method, [[0.5, 0.1, 0.9, 0.9, 0.1] for _ in range(6)])
        method.prune(run)
        left = [sum(int(method._alive[e][[1, 4]].sum()) for e in into) for into in NODES]
        (choice,) = method.select(run)
        return left, run.space.cost(choice.arch)["params"] - least

    left, over = inside("gold-nas", look, "nb201", **gold(pace=99, xi_max=0.99))
    assert left == [1, 1, 1]
    assert over == 0


@pytest.mark.invariant("gold-nas", 6)
def test_what_was_pruned_stays_so_and_has_no_gradient(train: Train) -> None:
    options = gold(budgets=["params=2K"], pace=3, xi_max=0.2)
    trained = train("gold-nas", "nb201", train={"epochs": 4}, **options)
    counts = [[int((w > 0).sum()) for w in step.archs[0]] for step in trained.steps]
    assert len(counts) == 8
    for before, after in itertools.pairwise(counts):
        assert all(a >= b for a, b in zip(before, after, strict=True))
    assert sum(counts[-1]) < 24
    last = trained.steps[-1].archs[0]
    for e, alpha in enumerate(trained.method._alphas):
        assert alpha.grad is not None
        assert [bool(g) for g in alpha.grad] == [bool(w) for w in last[e]]


@pytest.mark.invariant("gold-nas", 7)
def test_one_search_gives_a_network_for_every_budget(train: Train) -> None:
    budgets = ["madds=700K", "madds=500K", "madds=400K"]
    sets = {"gold-nas": {"budgets": budgets, "pace": 12, "xi_max": 0.3, "operations": ["skip_connect", "sep_conv_3x3"]}}
    shape = {"darts": {"variant": "free", "cells": 3, "channels": 2, "final_channels": 8}}
    trained = train("gold-nas", "darts", train={"epochs": 4}, **sets, **shape)
    run, method = trained.run, trained.method
    choices = method.select(run)
    assert [choice.scenario["budget"] for choice in choices] == budgets
    limits = [700_000, 500_000, 400_000]
    costs = [run.space.cost(choice.arch)["madds"] for choice in choices]
    assert all(cost <= limit for cost, limit in zip(costs, limits, strict=True))
    assert costs == sorted(costs, reverse=True)
    for choice in choices:
        (larger, smaller) = (choices[0].arch, choice.arch)
        assert all(a >= b for a, b in zip(larger, smaller, strict=True))  # pruned further, never regrown
        ops = {name.rpartition(":")[2] for name, there in zip(run.space.choices, choice.arch, strict=True) if there}
        assert ops <= {"skip_connect", "sep_conv_3x3"}


@pytest.mark.invariant("gold-nas", 7)
def test_an_edge_may_keep_both_operations(begin: Train) -> None:
    trained = begin("gold-nas", "darts", **gold(operations=["skip_connect", "sep_conv_3x3"]))
    method, run = trained.method, trained.run
    method.measure(run)
    method._alphas = [torch.zeros(8) for _ in run.space.relaxed]
    (choice,) = method.select(run)
    assert sum(choice.arch) == 2 * 14 * 3  # nothing had to go
    assert method.cost("madds") == run.space.cost(choice.arch)["madds"]


@pytest.mark.invariant("gold-nas", 8)
def test_when_every_budget_is_met_nothing_is_trained_any_more(train: Train) -> None:
    trained = train("gold-nas", "nb201", train={"epochs": 3}, **gold(budgets=["params=1M"]))
    assert trained.method.finished
    assert [bool(step.archs) for step in trained.steps] == [True, True, False, False, False, False]
    assert trained.run.hook.select(run=trained.run)[0].selected_on == "architecture parameters"


@pytest.mark.invariant("gold-nas", 8)
def test_epochs_that_are_too_few_end_with_a_cut_that_is_told(train: Train) -> None:
    trained = train("gold-nas", "nb201", train={"epochs": 1}, **gold(budgets=["madds=30K"], xi_max=0.01))
    (choice,) = trained.run.hook.select(run=trained.run)
    assert trained.run.space.cost(choice.arch)["madds"] <= 30_000
    assert choice.selected_on == "architecture parameters, cut to the budget after the last epoch"


@pytest.mark.parametrize(
    ("label", "space", "message"),
    [
        ("gold-nas", "tiny", "the decisions of tiny are no edges"),
        ("gold-nas[budgets=[keep=0.5]]", "nb201", "budgets of madds or params, not 'keep=0.5'"),
        ("gold-nas[budgets=[madds=1K]]", "nb201", "No network of nb201 has madds=1K: the smallest .* has"),
        ("gold-nas[operations=[skip_conect]]", "nb201", "did you mean 'skip_connect'"),
        ("gold-nas+calr", "nb201", "calr is about single subnets"),
    ],
)
def test_what_cannot_work_is_refused(begin: Train, label: str, space: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        begin(label, space)


@pytest.mark.parametrize("shape", [{"variant": "SS1"}, {"variant": "SS2", "with_none": False}])
def test_edges_that_must_stay_are_refused(begin: Train, shape: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="has edges that must stay"):
        begin("gold-nas", "darts", darts=shape)
