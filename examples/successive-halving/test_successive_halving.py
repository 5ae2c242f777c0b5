"""The rounds are those of the paper, and the method keeps the rules that every method of nasbench keeps."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from successive_halving import SuccessiveHalving

import nasbench
from nasbench import Run, hookimpl
from nasbench.testing import Check, checks


@pytest.mark.parametrize("check", checks("method", "successive-halving"), ids=str)
def test_conformance(check: Check) -> None:
    check()


@pytest.mark.parametrize(
    ("candidates", "eta", "epochs", "budgets"),
    [(8, 2, 40, [10, 20, 40]), (9, 3, 40, [13, 40]), (27, 3, 40, [4, 13, 40]), (2, 2, 40, [40]), (8, 2, 1, [1, 1, 1])],
)
def test_the_last_round_reaches_the_epochs_of_the_recipe(
    candidates: int, eta: int, epochs: int, budgets: list[int]
) -> None:
    run: Any = SimpleNamespace(recipe=SimpleNamespace(train=SimpleNamespace(epochs=epochs)))
    assert SuccessiveHalving(candidates=candidates, eta=eta).budgets(run, candidates) == budgets


def test_the_better_half_goes_on(tmp_path: Path) -> None:
    steps: Counter[str] = Counter()

    class Count:
        @hookimpl
        def progress(self, run: Run, stage: str) -> None:
            steps[stage] += 1

    sets = {"train.epochs": 4}
    record = nasbench.run("successive-halving", "tiny", preset="test", sets=sets, runs=tmp_path, observers=[Count()])
    rounds = [{n.partition("-")[2]: k for n, k in steps.items() if n.startswith(f"round{i}-")} for i in range(3)]
    # Four steps an epoch: one epoch, one more, two more.
    assert [sorted(each.values()) for each in rounds] == [[4] * 8, [4] * 4, [8] * 2]
    assert {*rounds[0]} > {*rounds[1]} > {*rounds[2]}
    assert record.results[0].arch
