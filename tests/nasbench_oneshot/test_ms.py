"""MS: weights shared by all, momentum by the subnets that agree on one decision."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nasbench_cells.nb201 import NB201
from nasbench_oneshot.ms import MS
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, BadInput, Run
from nasbench.recipe import resolve
from nasbench.stages import python_stream
from tests.nasbench_oneshot.conftest import Train, algorithm, close, cosine, same
from tests.nasbench_oneshot.test_calr import tiny_rate


@pytest.mark.invariant("ms", 1)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("method", ["spos", "fairnas", "fairnas+calr"])
@pytest.mark.parametrize("space", ["tiny", "nb201"])
def test_one_cluster_is_sgd_bit_for_bit(train: Train, method: str, space: str, nesterov: bool) -> None:
    settings = {"epochs": 3, "nesterov": nesterov, "clip": 5.0}
    alone, separated = (train(m, space, train=settings) for m in (method, f"{method}+ms[clusters=1]"))
    assert [s.archs for s in separated.steps] == [s.archs for s in alone.steps]
    assert same(separated.weights, alone.weights)


@pytest.mark.invariant("ms", 2)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("scope", ["subnet", "all"])
def test_a_sampler_that_never_leaves_a_cluster_is_sgd_bit_for_bit(train: Train, scope: str, nesterov: bool) -> None:
    def linear_first(run: Run, archs: list[Arch]) -> list[Arch]:
        return [run.space.replace(arch, 0, 1) for arch in archs]

    settings = {"epochs": 3, "nesterov": nesterov, "update_scope": scope}
    alone, separated = (train(m, train=settings, force=linear_first) for m in ("spos", "spos+ms[edge=layer0]"))
    assert len({s.archs[0] for s in separated.steps}) > 3
    assert same(separated.weights, alone.weights)


@pytest.mark.invariant("ms", 3)
@pytest.mark.parametrize("method", ["spos+ms", "fairnas+ms", "fairnas+calr+ms"])
def test_a_step_changes_no_buffer_of_another_cluster(train: Train, method: str) -> None:
    steps = train(method, train={"epochs": 5}).steps
    moved = 0
    for previous, step in itertools.pairwise(steps):
        after = {id(bank): copy for bank, copy in step.clones}
        for bank, copy in previous.clones:
            if bank is step.bank:
                moved += not same(after[id(bank)], copy)
            else:
                assert same(after[id(bank)], copy)
    assert moved > 5  # while its own do change
    assert len({id(step.bank) for step in steps}) == 3


@pytest.mark.invariant("ms", 4)
def test_all_clusters_train_the_same_weights(train: Train) -> None:
    trained = train("spos+ms", train={"epochs": 5})
    for previous, step in itertools.pairwise(trained.steps):
        assert same(step.before, previous.after)
    parameters = set(trained.run.net.parameters())
    assert all(set(bank) <= parameters for bank, _ in trained.steps[-1].clones)


@pytest.mark.invariant("ms", 5)
def test_the_paper_network_needs_at_most_27_megabytes_more() -> None:
    """And exactly 22.7: a cluster never needs buffers for the other operations of the edge that splits."""
    sizes = {name: p.numel() for name, p in NB201().supernet().named_parameters()}
    assert sum(sizes.values()) == 1_692_474
    assert 4 * 1_692_474 * 4 == 27_079_584
    # A bias before a batch norm has no effect and no gradient: only the head's has.
    trained = {name: n for name, n in sizes.items() if name.endswith("weight") or name == "head.bias"}
    edge = sum(n for name, n in trained.items() if ".edges.3." in name)
    assert (sum(trained.values()), edge) == (1_685_562, 268_800)
    assert 4 * (sum(trained.values()) - edge) * 4 == 22_668_192


@pytest.mark.invariant("ms", 5)
def test_memory_is_one_buffer_a_cluster_for_what_the_cluster_trains(train: Train) -> None:
    trained = train("fairnas+ms[edge=3<-0]", "nb201", train={"epochs": 30}, nb201={"channels": 1, "cells": 1})
    moved = {name: g.numel() for step in trained.steps for name, g in step.grads.items()}
    assert {name for name, _ in trained.run.net.named_parameters() if "bias" not in name} <= set(moved)
    everything, edge = sum(moved.values()), sum(n for name, n in moved.items() if ".edges.3." in name)
    held = [sum(b.numel() for b in copy.values()) for _, copy in trained.steps[-1].clones]
    assert len(held) == 5
    assert sum(held) - everything == 4 * (everything - edge) <= 4 * everything


@pytest.mark.invariant("ms", 6)
def test_without_momentum_the_clusters_make_no_difference(train: Train) -> None:
    settings = {"epochs": 4, "momentum": 0.0}
    assert same(train("spos", train=settings).weights, train("spos+ms", train=settings).weights)
    trained = train("fairnas+calr+ms", train=settings)
    assert close(trained.weights, algorithm(trained, tiny_rate, inside=True, beta=0))
    with pytest.raises(BadInput, match=r"train\.nesterov needs train\.momentum above 0"):
        resolve("spos+ms", "tiny", sets={"train": {"momentum": 0.0, "nesterov": True}})


@pytest.mark.invariant("ms", 7)
@pytest.mark.parametrize(("space", "n", "edge"), [("tiny", 3, 1), ("nb201", 5, 4)])
def test_fairness_is_strict_on_every_edge_but_the_one_that_splits(train: Train, space: str, n: int, edge: int) -> None:
    name = {"tiny": "layer1", "nb201": "3<-1"}[space]
    forced = set()
    for step in train(f"fairnas+ms[edge={name}]", space, train={"epochs": 8}).steps:
        columns = [list(column) for column in zip(*step.archs, strict=True)]
        forced.add(columns[edge][0])
        assert columns.pop(edge) == [step.archs[0][edge]] * n
        assert all(sorted(column) == list(range(n)) for column in columns)
    assert forced == set(range(n))


def test_with_several_subnets_the_cluster_is_drawn_uniformly(train: Train) -> None:
    run = train("fairnas+ms[edge=last]").run
    counts: Counter[int] = Counter()
    for run.step in range(900):
        counts[run.hook.sample_archs(run=run)[0][2]] += 1
    # Chi-squared with 2 degrees of freedom: above 13.8 in one draw of a thousand.
    assert sum((n - 300) ** 2 / 300 for n in counts.values()) < 13.8


@pytest.mark.invariant("ms", 8)
@pytest.mark.parametrize("edge", range(6))
def test_every_edge_of_nas_bench_201_splits_it_into_five_clusters_of_3125(edge: int) -> None:
    assert Counter(arch[edge] for arch in NB201().architectures()) == dict.fromkeys(range(5), 3125)


@pytest.mark.invariant("ms", 9)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("method", ["spos+ms", "spos+calr+ms", "fairnas+ms", "fairnas+calr+ms"])
def test_a_run_is_the_algorithm_of_the_paper_with_a_buffer_a_cluster(train: Train, method: str, nesterov: bool) -> None:
    trained = train(method.replace("ms", "ms[edge=layer1]"), train={"epochs": 5, "nesterov": nesterov})
    rate, inside = tiny_rate if "calr" in method else cosine, method == "fairnas+calr+ms"
    by_hand = [algorithm(trained, rate, inside=inside, nesterov=nesterov, cluster=c) for c in (middle, lambda archs: 0)]
    assert close(trained.weights, by_hand[0])
    assert not close(trained.weights, by_hand[1])


def middle(archs: list[Arch]) -> int:
    return archs[0][1]


@pytest.mark.invariant("ms", 11)
def test_the_edge_is_drawn_once_a_run_and_reported(train: Train) -> None:
    drawn = set()
    for seed in range(6):
        trained = train("fairnas+ms", seed=seed)
        (metric,) = [m for answer in trained.run.hook.evaluate(run=trained.run, choices=[]) for m in answer]
        assert (metric.name, metric.value) == ("ms_edge", MS().decision(trained.run))
        for step in trained.steps:
            columns = list(zip(*step.archs, strict=True))
            assert [i for i, column in enumerate(columns) if len(set(column)) == 1] == [metric.value]
        drawn.add(metric.value)
    assert drawn == {0, 1, 2}


def at(space: Any) -> Any:
    """What MS asks a run for when it looks for its edge."""
    return SimpleNamespace(space=space, fixed_rng=lambda purpose: SimpleNamespace(choice=lambda options: options[0]))


def test_the_edge_by_name_first_or_last_among_those_that_can_split() -> None:
    part = Tiny().restrict({"layer0": [1]})
    assert [MS(edge=edge).decision(at(part)) for edge in ("first", "last", "random", "layer2")] == [1, 2, 1, 2]
    with pytest.raises(BadInput, match="layer0"):
        MS(edge="layer0").decision(at(part))
    with pytest.raises(BadInput, match="did you mean 'layer1'"):
        MS(edge="layr1").refuse(at(Tiny()))
    whole = Tiny().restrict({"layer0": [1], "layer1": [1], "layer2": [0]})
    assert MS().refuse(at(whole)) == "ms needs a decision to split by, and tiny has none."


def test_merged_clusters_move_only_the_subnets_that_are_outside(train: Train) -> None:
    seen: list[list[Arch]] = []

    def remember(run: Run, archs: list[Arch]) -> list[Arch]:
        seen.append(archs)
        return archs

    trained = train("fairnas+ms[edge=layer1,clusters=2]", train={"epochs": 5}, force=remember)
    clusters = []
    for before, step in zip(seen, trained.steps, strict=True):
        (cluster,) = {arch[1] % 2 for arch in step.archs}
        clusters.append(cluster)
        for old, new in zip(before, step.archs, strict=True):
            assert new == old if old[1] % 2 == cluster else (new[0], new[2]) == (old[0], old[2])
    assert set(clusters) == {0, 1}
    assert len({id(step.bank) for step in trained.steps}) == 2


def test_mixtures_have_no_cluster(train: Train) -> None:
    def relax(run: Run, archs: list[Arch]) -> Any:
        return [[torch.ones(3) for _ in arch] for arch in archs]

    with pytest.raises(BadInput, match="single subnets"):
        train("spos+ms", force=relax)


@pytest.mark.invariant("ms", 10)
def test_random_clusters_are_fixed_alike_in_size_and_force_nothing(train: Train) -> None:
    spos, plain = (
        train("spos+ms[by=random]", "nb201", train={"epochs": 20}),
        train("spos", "nb201", train={"epochs": 20}),
    )
    assert [step.archs for step in spos.steps] == [step.archs for step in plain.steps]
    banks: dict[Any, set[int]] = {}
    for step in spos.steps:
        banks.setdefault(step.archs[0], set()).add(id(step.bank))
    assert all(len(used) == 1 for used in banks.values())
    assert len(set().union(*banks.values())) == 5
    sizes = Counter(python_stream(0, "ms-random", *arch).randrange(5) for arch in NB201().architectures())
    assert sum(sizes.values()) == 15_625
    assert all(abs(size - 3_125) < 4 * math.sqrt(15_625 * 0.2 * 0.8) for size in sizes.values())
    fair = train("fairnas+ms[by=random]", "nb201")
    assert all(sorted(options) == list(range(5)) for step in fair.steps for options in zip(*step.archs, strict=True))
