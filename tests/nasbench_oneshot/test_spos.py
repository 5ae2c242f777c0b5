"""SPOS: one uniformly drawn subnet a step, and nothing else moves."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, Run
from nasbench.metrics import kendall_tau
from tests.nasbench_oneshot.conftest import Step, Train, algorithm, close, cosine, same

LONG = {"epochs": 6, "batch_size": 10}


@pytest.mark.invariant("spos", 1)
def test_each_step_trains_one_subnet_drawn_uniformly(train: Train) -> None:
    run = train("spos").run
    drawn = Counter()
    for run.step in range(5400):
        (arch,) = run.hook.sample_archs(run=run)
        drawn[arch] += 1
    assert set(drawn) == set(Tiny().architectures())
    # Chi-squared with 26 degrees of freedom: above 54.05 in one draw of a thousand.
    assert sum((n - 200) ** 2 / 200 for n in drawn.values()) < 54.05


@pytest.mark.invariant("spos", 2)
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_run_is_algorithm_1_of_the_paper(train: Train, nesterov: bool) -> None:
    trained = train("spos", train={**LONG, "nesterov": nesterov})
    assert len(trained.steps) == 120
    assert close(trained.weights, algorithm(trained, cosine, nesterov=nesterov))


@pytest.mark.invariant("spos", 3)
def test_the_rate_starts_at_eta0_and_its_last_value_is_above_zero(train: Train) -> None:
    steps = train("spos", train=LONG).steps
    assert steps[0].group["lr"] == 0.05
    assert steps[60].group["lr"] == pytest.approx(0.025, abs=1e-15)
    assert steps[-1].group["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * 119 / 120)) / 2, abs=1e-15)
    assert steps[-1].group["lr"] > 0


def untouched(step: Step) -> set[str]:
    """Parameters that a step left bit-identical."""
    return {name for name, w in step.after.items() if w.equal(step.before[name])}


def outside(arch: Arch) -> set[str]:
    """Names of tiny's parameters that a subnet does not use."""
    biases = {0: ("1.weight", "1.bias"), 1: ("1.weight", "1.bias", "3.weight", "3.bias")}
    return {
        f"layers.{i}.{k}.{n}" for i, op in enumerate(arch) for k, names in biases.items() for n in names if op != k + 1
    }


@pytest.mark.invariant("spos", 4)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_scope_subnet_leaves_all_other_parameters_and_their_buffers_alone(train: Train, decay: float) -> None:
    steps = train("spos", train={"epochs": 3, "weight_decay": decay}).steps
    for previous, step in itertools.pairwise(steps):
        (arch,) = step.archs
        assert untouched(step) == outside(arch)
        (_, now), (_, then) = step.clones[0], previous.clones[0]
        assert all(now[name].equal(then[name]) for name in outside(arch) & then.keys())


@pytest.mark.invariant("spos", 4)
def test_scope_subnet_on_nas_bench_201_also_spares_what_zeros_feed(train: Train) -> None:
    """And moves all else: an operation of the subnet stays only if the output does not depend on it."""
    for step in train("spos", "nb201", train={"epochs": 10, "weight_decay": 0.1}).steps:
        (arch,) = step.archs
        moved = set(step.after) - untouched(step)
        assert moved == set(step.grads)
        for name in moved:
            found = re.search(r"\.edges\.(\d)\.conv(\d)x", name)
            assert not found or arch[int(found[1])] == {"1": 2, "3": 3}[found[2]]


@pytest.mark.invariant("spos", 5)
def test_scope_all_moves_other_parameters_at_every_step_after_their_first_use(train: Train) -> None:
    steps = train("spos", train={"epochs": 3, "update_scope": "all"}).steps
    everything, used = set(steps[0].before), set[str]()
    for step in steps:
        used |= everything - outside(step.archs[0])
        assert untouched(step) == everything - used
    assert used == everything  # or the last steps would prove nothing


def test_the_two_scopes_part_ways(train: Train) -> None:
    assert not same(train("spos").weights, train("spos", train={"update_scope": "all"}).weights)


@pytest.mark.invariant("spos", 6)
@given(st.permutations(range(6)))
def test_equal_scores_are_ties_to_tau_b(order: list[int]) -> None:
    true = [float(v) for v in order]
    assert kendall_tau(true, true) == pytest.approx(1)
    assert kendall_tau([-v for v in true], true) == pytest.approx(-1)
    assert kendall_tau([10.0] * 6, true) is None  # nothing was told apart: undefined, not 0
    two_tied = [0.0 if v == 1 else v for v in true]
    assert kendall_tau(two_tied, true) == pytest.approx(14 / math.sqrt(14 * 15))


def test_the_same_seed_draws_the_same_and_another_draws_otherwise(train: Train) -> None:
    draws = [[s.archs for s in train("spos", seed=seed).steps] for seed in (0, 0, 1)]
    # The second run finds its stage finished and replays it.
    assert draws[1] == []
    assert draws[0] != draws[2]


def test_a_restricted_space_is_never_left(train: Train) -> None:
    run: Run = train("spos").run
    run.space = run.space.restrict({"layer1": [2]})
    for run.step in range(50):
        ((_, middle, _),) = run.hook.sample_archs(run=run)
        assert middle == 2
