"""GradientDeviation: how much the first weight's gradient varies over an epoch, by hand."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from nasbench import records
from tests.conftest import RunTiny
from tests.nasbench_oneshot.conftest import Step, Train, Trained, same


def by_hand(steps: list[Step], clusters: list[int]) -> float:
    """numpy's standard deviation over steps, by cluster, averaged over coordinates, then over steps."""
    groups = defaultdict(list)
    for step, cluster in zip(steps, clusters, strict=True):
        groups[cluster].append(step.grads["stem.weight"].numpy())
    return float(sum(len(g) * np.std(g, axis=0).mean() for g in groups.values()) / len(steps))


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
    assert reported(trained) == {"gradient_deviation": pytest.approx([by_hand(e, [0] * 4) for e in epochs], rel=1e-10)}


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


def test_a_single_step_an_epoch_deviates_from_nothing(train: Train) -> None:
    trained = train("spos+gradient-deviation", train={"epochs": 2, "batch_size": 200})
    assert reported(trained) == {"gradient_deviation": [0.0, 0.0]}
