"""Random selection: so many of the subset, scored by the trained supernet; the best is the pick."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from nasbench_cells.nb201 import NB201
from nasbench_search.random_selection import RandomSelection
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, records
from nasbench.records import metric
from tests.conftest import Install, Record, RunTiny
from tests.nasbench_search.oracle import Log, value
from tests.test_shapes import EVERY_STEP, Killer, killed_again_and_again


@pytest.fixture(autouse=True)
def oracle(install: Install) -> None:
    install("oracle", methods={"oracle": "tests.nasbench_search.oracle:Oracle"})


def select(run_tiny: RunTiny, samples: int, *sets: str, **more: Any) -> tuple[Record, list[Arch]]:
    log = Log()
    return run_tiny(f"oracle+random[samples={samples}]", *sets, **more, observers=[log]), log.scored


@pytest.mark.invariant("random", 1)
@pytest.mark.parametrize(("samples", "scored"), [(1, 1), (5, 5), (27, 27), (1000, 27)])
def test_so_many_different_architectures_are_scored(run_tiny: RunTiny, samples: int, scored: int) -> None:
    record, archs = select(run_tiny, samples)
    assert len(set(archs)) == len(archs) == scored
    how = (metric(record, "top1") or {})["selected_on"]
    assert how == f"the score of oracle, best of {scored} random"


@pytest.mark.invariant("random", 2)
@pytest.mark.parametrize("seed", range(4))
def test_the_pick_is_the_best_of_them_of_equal_ones_the_first(run_tiny: RunTiny, seed: int) -> None:
    record, archs = select(run_tiny, 6, seed=seed)
    assert Tiny().parse(record["results"][0]["arch"]) == max(archs, key=value)


@pytest.mark.invariant("random", 3)
def test_architectures_are_drawn_uniformly_and_by_the_seed(run_tiny: RunTiny) -> None:
    counts: Counter[Arch] = Counter()
    draws = [select(run_tiny, 9, seed=seed)[1] for seed in range(40)]
    for archs in draws:
        counts.update(archs)
    # 13.3 expected of each of the 27, standard deviation 3.
    assert all(abs(counts[arch] - 13.3) < 4 * 3 for arch in Tiny().architectures())
    assert select(run_tiny, 9, seed=3, runs="again")[1] == draws[3] != draws[4]


@pytest.mark.invariant("random", 4)
def test_they_are_of_the_subset_that_the_recipe_names(run_tiny: RunTiny) -> None:
    nb201: dict[str, Any] = {"space": "nb201", "target": "digits"}
    table = NB201().ground_truth("digits")
    assert table is not None
    assert set(select(run_tiny, 1000, "score.subset=table", **nb201)[1]) == set(table.architectures())
    assert len(select(run_tiny, 1000, "score.subset=random:12", **nb201)[1]) == 12


@pytest.mark.invariant("random", 5)
@pytest.mark.parametrize("label", ["spos+random[samples=20]", "fsnas+calr+random[samples=20]"])
def test_a_killed_run_gives_the_same_record(run_tiny: RunTiny, label: str) -> None:
    undisturbed = run_tiny(label, *EVERY_STEP, observers=[Killer()])
    disturbed, kills = killed_again_and_again(run_tiny, random.Random(2), label, *EVERY_STEP, runs="killed")
    assert kills > 0
    assert records.equal(disturbed, undisturbed)


def test_the_default_is_that_of_the_paper() -> None:
    assert RandomSelection().samples == 1000
