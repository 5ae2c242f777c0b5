"""GradientDeviation: how much the first weight's gradient varies over an epoch, by hand."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nasbench_oneshot.gradient_deviation import GradientDeviation

from nasbench import records
from tests.conftest import RunTiny
from tests.nasbench_oneshot.conftest import Step, Train, Trained, same


def by_hand(steps: list[Step], clusters: list[int]) -> float:
    """numpy's variances over the steps of each cluster, pooled; the root, averaged over coordinates."""
    groups = defaultdict(list)
    for step, cluster in zip(steps, clusters, strict=True):
        groups[cluster].append(step.grads["stem.weight"].numpy())
    squares = sum(len(g) * np.var(g, axis=0) for g in groups.values())
    return float(np.sqrt(squares / (len(steps) - len(groups))).mean())


def reported(trained: Trained) -> dict[str, list[float]]:
    found = trained.run.plugins["gradient-deviation"].evaluate(trained.run, [])  # type: ignore[attr-defined]
    assert all(m.value == m.curve["value"][-1] for m in found)
    assert all(m.curve["epoch"] == list(range(1, 1 + len(m.curve["value"]))) for m in found)
    return {m.name: m.curve["value"] for m in found}


@pytest.mark.invariant("gradient-deviation", 1)
@pytest.mark.parametrize("method", ["spos", "fairnas", "fairnas+calr"])
def test_it_is_the_standard_deviation_over_the_steps_of_each_epoch(train: Train, method: str) -> None:
    trained = train(f"{method}+gradient-deviation", train={"epochs": 3})
    epochs = [trained.steps[i : i + 4] for i in (0, 4, 8)]
    found = reported(trained)["gradient_deviation"]
    assert found == pytest.approx([by_hand(epoch, [0] * 4) for epoch in epochs], rel=1e-10)
    gradients = np.stack([step.grads["stem.weight"].numpy() for step in epochs[-1]])
    assert found[-1] == pytest.approx(np.std(gradients, axis=0, ddof=1).mean(), rel=1e-10)


@pytest.mark.invariant("gradient-deviation", 2)
@pytest.mark.parametrize("by", ["option", "random"])
def test_with_clusters_it_is_taken_within_each(train: Train, by: str) -> None:
    trained = train(f"spos+ms[by={by},edge=first]+gradient-deviation", train={"epochs": 2, "batch_size": 20})
    clusters = [id(step.bank) for step in trained.steps]
    assert len(set(clusters)) == 3
    epochs = [(trained.steps[i : i + 10], clusters[i : i + 10]) for i in (0, 10)]
    within = [by_hand(*epoch) for epoch in epochs]
    assert reported(trained) == {"gradient_deviation": pytest.approx(within, rel=1e-10)}
    assert within != pytest.approx([by_hand(steps, [0] * 10) for steps, _ in epochs], rel=1e-3)


@pytest.mark.invariant("gradient-deviation", 3)
@pytest.mark.parametrize("method", ["spos", "fairnas+calr+ms"])
def test_looking_on_changes_nothing(train: Train, method: str) -> None:
    settings = {"epochs": 2, "clip": 5.0, "nesterov": True}
    assert same(train(method, train=settings).weights, train(f"{method}+gradient-deviation", train=settings).weights)


@pytest.mark.invariant("gradient-deviation", 4)
def test_each_part_of_a_split_space_has_its_own(run_tiny: RunTiny) -> None:
    record = run_tiny("fsnas+gradient-deviation")
    found = [records.metric(record, f"gradient_deviation_part-{i}") for i in range(3)]
    assert all(m and len(m["curve"]["value"]) == 2 and m["value"] > 0 for m in found)
    assert records.metric(record, "gradient_deviation") is None
    assert len({m["value"] for m in found if m}) == 3


def test_random_clusters_of_unrelated_gradients_deviate_as_much_as_all_together() -> None:
    """Pooling takes the number of clusters into account: splitting noise does not make it smaller."""
    rng, values = np.random.default_rng(0), {}
    for clusters in (1, 5):
        probe, weight = GradientDeviation(), torch.nn.Parameter(torch.zeros(5_000))
        run: Any = SimpleNamespace(net=torch.nn.ParameterList([weight]), state={}, epoch=0)
        for step in range(10):  # two steps a cluster
            weight.grad, run.state["cluster"] = torch.from_numpy(rng.normal(size=5_000)).float(), step % clusters
            next(probe.update(run, []))
        probe.after_epoch(run)
        values[clusters] = probe._epochs[1]
    assert values[1] == pytest.approx(0.973, abs=0.02)  # of 10 normal numbers: c4(10)
    assert values[5] == pytest.approx(0.951, abs=0.02)  # with 5 degrees of freedom: c4(6)


def test_of_a_single_step_an_epoch_nothing_is_said(train: Train) -> None:
    assert reported(train("spos+gradient-deviation", train={"epochs": 2, "batch_size": 200})) == {}
