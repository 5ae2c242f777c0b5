"""Selection by evolution: generations from the best so far, nothing scored twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator
from itertools import product
from typing import Any

import pytest
from nasbench_cells.nb201 import NB201
from nasbench_search.evolution import Evolution
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, BadInput, Run, SearchSpace, hookimpl, records
from nasbench.records import metric
from tests.conftest import Install, Record, RunTiny
from tests.nasbench_search.oracle import Log, value
from tests.test_shapes import EVERY_STEP, Killer, killed_again_and_again

#: All of nb201, and no ground truth.
NB = {"space": "nb201", "target": "cifar10"}


@pytest.fixture(autouse=True)
def oracle(install: Install) -> None:
    install("oracle", methods={"oracle": "tests.nasbench_search.oracle:Oracle"})


def evolve(run_tiny: RunTiny, options: str = "", **more: Any) -> tuple[Record, Log]:
    log = Log()
    return run_tiny(f"oracle+evolution[{options}]" if options else "oracle+evolution", **more, observers=[log]), log


def picked(record: Record, space: SearchSpace) -> Arch:
    return space.parse(record["results"][0]["arch"])


def best_of(archs: list[Arch], n: int) -> list[Arch]:
    """The n best, of equal ones those scored first."""
    return sorted(archs, key=value, reverse=True)[:n]


@pytest.mark.invariant("evolution", 1)
@pytest.mark.parametrize(("options", "generations", "population"), [("", 20, 50), ("generations=3,population=7", 3, 7)])
def test_every_generation_is_new_and_none_is_scored_twice(
    run_tiny: RunTiny, options: str, generations: int, population: int
) -> None:
    _, log = evolve(run_tiny, options, **NB)
    assert [len(step) for step in log.steps] == [population] * generations
    assert len(set(log.scored)) == len(log.scored) == generations * population


@pytest.mark.invariant("evolution", 2)
def test_the_pick_is_the_best_of_all_that_were_scored(run_tiny: RunTiny) -> None:
    for seed in range(3):
        record, log = evolve(run_tiny, "generations=4,population=9", seed=seed, **NB)
        assert picked(record, NB201()) == best_of(log.scored, 1)[0]


def crossings(parents: list[Arch]) -> set[Arch]:
    """Whatever two of these can bring forth by crossover."""
    return {child for a in parents for b in parents for child in product(*zip(a, b, strict=True))}


@pytest.mark.invariant("evolution", 3)
@pytest.mark.parametrize("parents", [2, 3, 5])
def test_parents_are_the_best_so_far(run_tiny: RunTiny, parents: int) -> None:
    """With crossover alone, children of others come only where those of the best are exhausted."""
    _, log = evolve(run_tiny, f"generations=6,population=20,parents={parents},crossover=1", **NB)
    known = list(log.steps[0])
    for children in log.steps[1:]:
        possible = crossings(best_of(known, parents)) - set(known)
        assert len(possible & set(children)) >= min(20, len(possible))
        known += children


@pytest.mark.invariant("evolution", 4)
def test_half_of_the_children_cross_and_half_mutate(run_tiny: RunTiny) -> None:
    for seed in range(3):
        _, log = evolve(run_tiny, "generations=3", seed=seed, **NB)
        first, second, third = log.steps
        for children, known in [(second, first), (third, first + second)]:
            best = best_of(known, 10)
            assert set(children[:25]) <= crossings(best)
            assert len(set(children[25:]) - crossings(best)) > 5
            # One in ten decisions is drawn again, and one in five draws brings the old option back.
            assert sum(min(differing(child, parent) for parent in best) for child in children[25:]) < 2 * 25


def differing(a: Arch, b: Arch) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


@pytest.mark.invariant("evolution", 4)
@pytest.mark.parametrize("mutation", [0.1, 0.5, 1.0])
def test_a_mutation_draws_each_decision_again_with_its_probability(mutation: float) -> None:
    parent, space = (0,) * 6, NB201()
    run: Any = type("Run", (), {"space": space, "truth": None, "fits": lambda arch: True})
    evolution = Evolution(population=1, crossover=0, mutation=mutation)
    rng = random.Random(0)
    drawn = [evolution.breed(run, rng, {parent: 1.0})[0] for _ in range(1500)]
    # Options change with probability 4/5 of a new draw; children equal to the parent are drawn again.
    p = mutation * 4 / 5
    mean = 6 * p / (1 - (1 - p) ** 6)
    assert sum(differing(child, parent) for child in drawn) / 1500 == pytest.approx(mean, abs=0.12)


@pytest.mark.invariant("evolution", 5)
@pytest.mark.parametrize("table", [None, Tiny().ground_truth("digits")], ids=["space", "table"])
def test_the_first_generation_is_uniform(table: Any) -> None:
    run: Any = type("Run", (), {"space": Tiny(), "truth": table, "fits": lambda arch: True})
    rng, counts = random.Random(0), Counter[Arch]()
    for _ in range(600):
        counts.update(Evolution(population=9).breed(run, rng, {}))
    # 200 expected of each of the 27, standard deviation 11.5: four of them come about once in 600 tests.
    assert all(abs(counts[arch] - 200) < 4 * 11.6 for arch in Tiny().architectures())


@pytest.mark.invariant("evolution", 6)
def test_a_small_space_is_searched_whole_and_then_left_alone(run_tiny: RunTiny) -> None:
    record, log = evolve(run_tiny, "population=10")
    assert sorted(log.scored) == list(Tiny().architectures())
    assert 3 <= len(log.steps) < 10
    assert value(picked(record, Tiny())) == max(map(value, Tiny().architectures()))
    assert (metric(record, "top1") or {})["selected_on"] == "the score of oracle, 27 architectures evolved"


@pytest.mark.invariant("evolution", 7)
def test_where_there_is_a_table_the_search_stays_inside_it(run_tiny: RunTiny) -> None:
    record, log = evolve(run_tiny, "generations=6", space="nb201", target="digits")
    table = NB201().ground_truth("digits")
    assert table is not None
    assert len(log.scored) == 300 < len(table)
    assert set(log.scored) < set(table.architectures())
    assert metric(record, "top1") is not None


@pytest.mark.invariant("evolution", 8)
@pytest.mark.parametrize("label", ["spos+evolution[population=6]", "fsnas+ms+evolution[population=6]"])
def test_a_killed_run_gives_the_same_record(run_tiny: RunTiny, label: str) -> None:
    undisturbed = run_tiny(label, *EVERY_STEP, observers=[Killer()])
    disturbed, kills = killed_again_and_again(run_tiny, random.Random(1), label, *EVERY_STEP, runs="killed")
    assert kills > 1
    assert records.equal(disturbed, undisturbed)


@pytest.mark.invariant("evolution", 8)
def test_a_finished_generation_is_not_scored_again(run_tiny: RunTiny) -> None:
    class Interrupted(Log):
        @hookimpl(wrapper=True)
        def score(self, run: Run, archs: list[Arch]) -> Generator[None, list[float], list[float]]:
            if len(self.steps) == 3:
                raise KeyboardInterrupt
            return (yield from super().score(run, archs))

    label, whole, first, rest = "oracle+evolution[generations=5,population=6]", Log(), Interrupted(), Log()
    run_tiny(label, *EVERY_STEP, **NB, observers=[whole], runs="whole")
    with pytest.raises(KeyboardInterrupt):
        run_tiny(label, *EVERY_STEP, **NB, observers=[first])
    run_tiny(label, *EVERY_STEP, **NB, observers=[rest])
    assert len(first.steps) == 3
    assert first.steps + rest.steps == whole.steps


@pytest.mark.parametrize("together", [1, 4, 64])
def test_no_more_are_scored_in_one_call_than_the_recipe_says(run_tiny: RunTiny, together: int) -> None:
    log = Log()
    run_tiny("oracle+evolution[generations=2,population=10]", f"score.together={together}", **NB, observers=[log])
    full, rest = divmod(10, together)
    assert [len(call) for call in log.calls] == 2 * ([together] * full + [rest] * (rest > 0))


def test_the_seed_decides(run_tiny: RunTiny) -> None:
    one, again, other = (
        evolve(run_tiny, "generations=3", seed=s, runs=f"{i}", **NB)[1] for i, s in enumerate((0, 0, 1))
    )
    assert one.steps == again.steps != other.steps


def test_it_finds_what_random_selection_of_as_many_does_not(run_tiny: RunTiny) -> None:
    best = max(map(value, NB201().architectures()))
    record, log = evolve(run_tiny, **NB)
    assert value(picked(record, NB201())) == best
    assert max(map(value, log.steps[0])) < best


@pytest.mark.parametrize("label", ["spos+evolution+random", "regularized-evolution+evolution"])
def test_what_does_not_go_together_is_refused(run_tiny: RunTiny, label: str) -> None:
    with pytest.raises(BadInput, match=r"both decide 'select'|never calls"):
        run_tiny(label)


def test_the_defaults_are_those_of_the_paper() -> None:
    assert Evolution().model_dump() == {
        "generations": 20,
        "population": 50,
        "parents": 10,
        "crossover": 0.5,
        "mutation": 0.1,
    }
