"""Shapley-NAS: what operations contribute to the accuracy, and how alpha follows it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tests.nasbench_differentiable.conftest import Trained

#: What each operation of the fake game is worth by itself, in points.
WORTH = [torch.tensor([4.0, 0.0, 2.0]), torch.tensor([1.0, 8.0, -3.0]), torch.tensor([0.0, 5.0, 0.5])]


def additive(method: Any) -> None:
    """Accuracy becomes 10 and the worth of every operation that is left."""

    def accuracy(run: Any, mixture: Any, rows: Any) -> float:
        return 10 + sum(float(w[part != 0].sum()) for w, part in zip(WORTH, mixture, strict=True))

    object.__setattr__(method, "accuracy", accuracy)


@pytest.mark.invariant("shapley-nas", 1)
def test_where_contributions_add_up_the_value_is_the_operations_own(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        additive(trained.method)
        return trained.method.contributions(trained.run)

    found = inside("shapley-nas[threshold=0,samples=3]", look)
    for value, worth in zip(found, WORTH, strict=True):
        torch.testing.assert_close(value, worth.double())


@pytest.mark.invariant("shapley-nas", 1)
def test_many_orders_come_to_the_exact_value_of_a_game_that_does_not_add_up(inside: Any) -> None:
    """The first decision's operations stand in for each other: any of the three is worth 30."""

    def look(trained: Trained) -> Any:
        object.__setattr__(trained.method, "accuracy", lambda run, m, rows: 30.0 * bool((m[0] != 0).any()))
        return trained.method.contributions(trained.run)

    found = inside("shapley-nas[threshold=0,samples=600]", look)
    assert found[0].sum() == pytest.approx(30)
    assert found[0].tolist() == pytest.approx([10] * 3, abs=2.4)  # three standard errors
    assert not torch.cat(found[1:]).any()


@pytest.mark.invariant("shapley-nas", 2)
def test_the_contributions_of_an_order_sum_to_what_the_network_is_better_than_none(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        whole = method.accuracy(run, method.mixture(run, "valid"), torch.arange(100))
        empty = method.accuracy(run, [torch.zeros(3, dtype=torch.float64)] * 3, torch.arange(100))
        return float(torch.cat(method.contributions(run)).sum()), whole - empty

    total, difference = inside("shapley-nas[threshold=0,samples=1,images=100]", look)
    assert total == pytest.approx(difference)


@pytest.mark.invariant("shapley-nas", 3)
def test_an_order_ends_when_the_accuracy_falls_below_the_threshold(inside: Any) -> None:
    asked: list[int] = []

    def look(trained: Trained) -> Any:
        left = [100.0, 90.0, 60.0, 49.0, 40.0]
        object.__setattr__(trained.method, "accuracy", lambda *_: asked.append(1) or left[len(asked) - 1])
        return torch.cat(trained.method.contributions(trained.run))

    found = inside("shapley-nas[threshold=0.5,samples=1]", look)
    assert sorted(found[found != 0].tolist()) == [10, 11, 30]
    assert len(asked) == 4  # 49 is the first below 50


@pytest.mark.invariant("shapley-nas", 4)
def test_alpha_moves_along_the_standardised_values_with_momentum(begin: Any) -> None:
    trained = begin("shapley-nas[warmup=0,threshold=0,step_size=0.5,shapley_momentum=0.8]", train={"epochs": 4})
    additive(trained.method)
    trained.run.hook.train(run=trained.run)
    values = torch.cat(WORTH).double()
    standard = (values - values.mean()) / ((values - values.mean()).square().sum() / 8).sqrt()
    per_epoch = [torch.cat(step.before) for step in trained.steps[::4]]
    carried = torch.zeros(9, dtype=torch.float64)
    for before, after in itertools.pairwise(per_epoch):
        carried = 0.8 * carried + 0.2 * standard
        torch.testing.assert_close(after, before + 0.5 * carried)
    assert torch.cat(trained.method._alphas).equal(torch.cat(trained.steps[-1].before))  # none after the last epoch


@pytest.mark.invariant("shapley-nas", 5)
def test_in_the_warm_up_alpha_rests(train: Any) -> None:
    steps = train("shapley-nas[warmup=0.5]", train={"epochs": 6}).steps
    alphas = [torch.cat(step.before) for step in steps[::4]]
    assert [bool(alphas[e].equal(alphas[e + 1])) for e in range(5)] == [True, True, False, False, False]


@pytest.mark.invariant("shapley-nas", 6)
def test_mean_minus_std_holds_what_varies_for_less(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        object.__setattr__(trained.method, "accuracy", lambda run, m, rows: 30.0 * bool((m[0] != 0).any()))
        return trained.method.contributions(trained.run)[0]

    mean, lower = (inside(f"shapley-nas[threshold=0,samples=9,estimate={e}]", look) for e in ("mean", "mean_minus_std"))
    shares = mean / 30  # each order gives all 30 to one of the three
    torch.testing.assert_close(lower, mean - 30 * (shares * (1 - shares)).sqrt())
