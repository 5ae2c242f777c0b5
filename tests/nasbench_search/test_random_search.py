"""Random search looks results up: so many of them, by validation accuracy, and trains nothing."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from nasbench_search.random_search import RandomSearch
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, BadInput
from nasbench.harness import prepare
from nasbench.recipe import resolve
from nasbench.records import metric
from nasbench.stages import python_stream
from nasbench.tables import Table
from tests.conftest import RunTiny


def truth() -> Table:
    table = Tiny().ground_truth("digits")
    assert table is not None
    return table


class Clerk:
    """A table that writes down what it was asked."""

    def __init__(self, table: Table) -> None:
        self.table, self.asked = table, list[tuple[Arch, str]]()

    def architectures(self) -> list[Arch]:
        return self.table.architectures()

    def query(self, archs: list[Arch], split: str, dataset: str) -> list[float]:
        self.asked += [(arch, split) for arch in archs]
        return self.table.query(archs, split, dataset)


def search(queries: int, seed: int = 0, space: Any = None) -> tuple[Arch, list[tuple[Arch, str]], str]:
    clerk = Clerk(truth())
    run: Any = SimpleNamespace(
        truth=clerk,
        space=space or Tiny(),
        recipe=SimpleNamespace(target="digits"),
        rng=lambda p: python_stream(seed, p),
        fits=lambda arch: True,
    )
    (choice,) = RandomSearch(queries=queries).search(run)
    return choice.arch, clerk.asked, choice.selected_on


@pytest.mark.invariant("random-search", 1)
@pytest.mark.parametrize("queries", [1, 5, 27])
def test_so_many_different_architectures_are_looked_up(queries: int) -> None:
    pick, asked, selected_on = search(queries)
    assert len({arch for arch, _ in asked}) == len(asked) == queries
    assert selected_on == f"validation top-1 in the table, {queries} queries"
    assert pick in {arch for arch, _ in asked}


@pytest.mark.invariant("random-search", 2)
@pytest.mark.parametrize("seed", range(5))
def test_the_best_by_validation_is_taken_and_the_test_split_never_read(seed: int) -> None:
    pick, asked, _ = search(6, seed)
    assert {split for _, split in asked} == {"valid"}
    accuracies = dict(zip([a for a, _ in asked], truth().query([a for a, _ in asked], "valid", "digits"), strict=True))
    assert accuracies[pick] == max(accuracies.values())


@pytest.mark.invariant("random-search", 3)
def test_with_as_many_queries_as_architectures_the_best_of_the_table_is_found() -> None:
    table, best = truth(), {search(queries, seed)[0] for queries in (27, 1000) for seed in range(3)}
    assert table.query(list(best), "valid", "digits") == [table.column("valid", "digits").max()] * len(best)


@pytest.mark.invariant("random-search", 4)
def test_architectures_are_drawn_uniformly_and_by_the_seed() -> None:
    drawn = [search(9, seed)[1] for seed in range(900)]
    counts = dict.fromkeys(Tiny().architectures(), 0)
    for asked in drawn:
        for arch, _ in asked:
            counts[arch] += 1
    # 300 expected, standard deviation 14: four of them in 27 architectures come about once in 600 tests.
    assert all(abs(n - 300) < 4 * 14.2 for n in counts.values())
    assert search(9, 3)[1] == drawn[3] != drawn[4]


@pytest.mark.invariant("random-search", 5)
def test_a_run_trains_nothing_and_reports_the_pick(run_tiny: RunTiny) -> None:
    record = run_tiny("random-search[queries=27]")
    assert record["measured"]["seconds"] == {}
    assert metric(record, "kendall_tau") is None
    table, (result,) = truth(), record["results"]
    best = max(table.architectures(), key=lambda arch: table.query([arch], "valid", "digits"))
    assert result["arch"] == Tiny().format(best)
    top1 = metric(record, "top1")
    assert top1 is not None
    assert [top1["value"]] == table.query([best], "test", "digits")


def test_a_part_of_the_space_is_not_left() -> None:
    _, asked, _ = search(27, space=Tiny().restrict({"layer0": [2]}))
    assert len(asked) == 9
    assert {arch[0] for arch, _ in asked} == {2}


def test_without_ground_truth_it_is_refused(tmp_path: Any) -> None:
    message = "random-search looks results up, and nb201 has no ground truth for cifar10."
    with pytest.raises(BadInput, match=re.escape(message)):
        prepare(resolve("random-search", "nb201", target="cifar10", sets={"score": {"subset": "all"}}), tmp_path)
