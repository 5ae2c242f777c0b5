"""Regularized evolution: tournaments in a population whose oldest dies, on a table."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from nasbench_search.regularized_evolution import RegularizedEvolution
from nasbench_tiny.tiny import Tiny
from pydantic import PrivateAttr

from nasbench import Arch, BadInput, records
from nasbench.harness import prepare
from nasbench.recipe import resolve
from nasbench.records import metric
from nasbench.stages import python_stream
from nasbench.tables import Table
from tests.conftest import RunTiny


def truth(rows: slice = slice(None)) -> Table:
    """The table of tiny, or these rows of it."""
    table = Tiny().ground_truth("digits")
    assert table is not None
    return replace(table, numbers=table.numbers[rows], columns={c: v[rows] for c, v in table.columns.items()})


class Clerk:
    """A table that writes down what it was asked."""

    def __init__(self, table: Table) -> None:
        self.table, self.asked, self.splits = table, list[Arch](), set[str]()

    def __contains__(self, arch: Arch) -> bool:
        return arch in self.table

    def architectures(self) -> list[Arch]:
        return self.table.architectures()

    def query(self, archs: list[Arch], split: str, dataset: str) -> list[float]:
        self.asked += archs
        self.splits.add(split)
        return self.table.query(archs, split, dataset)


class Watched(Tiny):
    """Tiny, writing down what was mutated into what."""

    _mutated: list[tuple[Arch, Arch]] = PrivateAttr(default_factory=list)

    def mutate(self, arch: Arch, rng: random.Random) -> Arch:
        child = super().mutate(arch, rng)
        self._mutated.append((arch, child))
        return child


class Evolved:
    """One search: `asked` in order, `mutated` parent by parent, and the pick."""

    def __init__(self, table: Table | None = None, seed: int = 0, allowed: Any = None, **options: int) -> None:
        clerk, space = Clerk(table or truth()), Watched(allowed=allowed or {})
        recipe = type("Recipe", (), {"target": "digits"})
        run: Any = type("Run", (), {"truth": clerk, "space": space, "recipe": recipe})()
        run.rng, run.fits = (lambda purpose: python_stream(seed, purpose)), (lambda arch: True)
        (self.choice,) = RegularizedEvolution(**options).search(run)
        self.asked, self.splits, self.mutated = clerk.asked, clerk.splits, space._mutated
        self.valid = dict(zip(self.asked, truth().query(self.asked, "valid", "digits"), strict=True))


def distance(a: Arch, b: Arch) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


@pytest.mark.invariant("regularized-evolution", 1)
@pytest.mark.parametrize(("population", "cycles"), [(10, 200), (1, 5), (7, 7)])
def test_exactly_so_many_are_looked_up_all_by_validation(population: int, cycles: int) -> None:
    found = Evolved(population=population, cycles=cycles)
    assert len(found.asked) == cycles
    assert found.splits == {"valid"}
    assert len(found.mutated) == cycles - population  # the first are drawn from the table
    assert found.choice.selected_on == f"validation top-1 in the table, {cycles} queries"


@pytest.mark.invariant("regularized-evolution", 2)
@pytest.mark.parametrize(("population", "sample"), [(10, 3), (4, 1), (1, 1), (3, 8)])
def test_a_parent_is_among_the_last_p_so_the_oldest_has_died(population: int, sample: int) -> None:
    found = Evolved(population=population, sample=sample, cycles=300)
    ages = set()
    for i, (parent, child) in enumerate(found.mutated, start=population):
        alive = found.asked[i - population : i]
        assert parent in alive
        assert distance(parent, child) == 1
        assert found.asked[i] == child
        if alive.count(parent) == 1:
            ages.add(population - alive.index(parent))
    if sample == 1:
        assert ages == set(range(1, population + 1))  # and each of them may be


@pytest.mark.invariant("regularized-evolution", 3)
def test_a_tournament_of_everyone_is_won_by_the_best() -> None:
    found = Evolved(population=5, sample=500, cycles=300)  # the best is missed once in 10^48 tournaments
    for i, (parent, _) in enumerate(found.mutated, start=5):
        assert found.valid[parent] == max(found.valid[arch] for arch in found.asked[i - 5 : i])


@pytest.mark.invariant("regularized-evolution", 3)
def test_a_tournament_draws_with_replacement() -> None:
    found, won, expected = Evolved(population=3, sample=2, cycles=3003), 0, 0.0
    for i, (parent, _) in enumerate(found.mutated, start=3):
        alive = found.asked[i - 3 : i]
        best = max(alive, key=found.valid.__getitem__)
        won += parent == best
        expected += 1 - ((3 - alive.count(best)) / 3) ** 2  # 5/9 for a single best; 2/3 without replacement
    assert 1500 < expected < 1900
    assert abs(won - expected) < 4 * (3000 * 0.25) ** 0.5
    without = sum(
        2 / 3 if found.asked[i - 3 : i].count(p) < 2 else 1 for i, (p, _) in enumerate(found.mutated, start=3)
    )
    assert abs(won - without) > 4 * (3000 * 0.25) ** 0.5


@pytest.mark.invariant("regularized-evolution", 4)
@pytest.mark.parametrize("seed", range(5))
def test_the_pick_is_the_best_ever_looked_up_dead_or_alive(seed: int) -> None:
    found = Evolved(seed=seed, population=2, sample=1, cycles=12)
    assert found.valid[found.choice.arch] == max(found.valid.values())


@pytest.mark.invariant("regularized-evolution", 4)
@pytest.mark.parametrize("seed", range(5))
def test_200_cycles_find_the_best_of_27(seed: int) -> None:
    found = Evolved(seed=seed)
    assert found.valid[found.choice.arch] == truth().column("valid", "digits").max()


@pytest.mark.invariant("regularized-evolution", 5)
def test_what_the_table_does_not_hold_gives_way_to_the_nearest_that_it_does() -> None:
    table = truth(slice(None, None, 4))  # 7 of the 27
    found, moved = Evolved(table, population=3, cycles=400), set()
    assert set(found.asked) == set(table.architectures())
    for (parent, mutation), child in zip(found.mutated, found.asked[3:], strict=True):
        others = [arch for arch in table.architectures() if arch != parent]
        assert child in others
        assert distance(child, mutation) == min(distance(arch, mutation) for arch in others)
        if mutation not in table:
            moved.add((parent, mutation, child))
    assert len({(parent, mutation) for parent, mutation, _ in moved}) < len(
        moved
    )  # of several nearest, now one and now the other


@pytest.mark.invariant("regularized-evolution", 5)
def test_a_table_of_one_architecture_is_looked_up_again_and_again() -> None:
    found = Evolved(truth(slice(13, 14)), cycles=12)
    assert found.asked == [found.choice.arch] * 12 == [(1, 1, 1)] * 12


def test_a_part_of_the_space_is_not_left() -> None:
    assert {arch[0] for arch in Evolved(allowed={"layer0": [2]}).asked} == {2}


@pytest.mark.invariant("regularized-evolution", 6)
def test_the_seed_decides_everything(run_tiny: RunTiny) -> None:
    assert Evolved(seed=3).asked == Evolved(seed=3).asked != Evolved(seed=4).asked
    label = "regularized-evolution[cycles=12]"
    assert records.equal(run_tiny(label, seed=3), run_tiny(label, seed=3, runs="again"))


@pytest.mark.invariant("regularized-evolution", 7)
def test_a_run_trains_nothing_and_reports_the_pick(run_tiny: RunTiny) -> None:
    record = run_tiny("regularized-evolution")
    assert record["measured"]["seconds"] == {}
    assert metric(record, "kendall_tau") is None
    best = max(truth().architectures(), key=lambda arch: truth().query([arch], "valid", "digits"))
    assert record["results"][0]["arch"] == Tiny().format(best)
    assert (metric(record, "top1") or {})["value"] == truth().query([best], "test", "digits")[0]


@pytest.mark.parametrize(
    ("label", "target", "message"),
    [
        ("regularized-evolution", "cifar10", "regularized-evolution looks results up; nb201 has no truth for cifar10."),
        (
            "regularized-evolution[cycles=9]",
            "digits",
            "regularized-evolution looks up 9 in all, fewer than its population 10.",
        ),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Any, label: str, target: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        prepare(resolve(label, "nb201", target=target, sets={"score": {"subset": "all"}}), tmp_path)
    assert str(error.value) == message


def test_the_defaults_are_those_of_the_benchmarks_protocol() -> None:
    assert RegularizedEvolution().model_dump() == {"population": 10, "sample": 3, "cycles": 200}
