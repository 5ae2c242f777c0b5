"""FairNAS: every option of every decision once a step, gradients summed, one update."""

from __future__ import annotations

import itertools
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nasbench_cells.nb201 import NB201
from nasbench_oneshot.fairnas import FairNAS
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, SearchSpace
from nasbench.recipe import resolve
from nasbench.stages import python_stream
from tests.nasbench_oneshot.conftest import Train, algorithm, close, cosine


class Uneven(SearchSpace):
    """A fake: decisions with the option counts of `counts`."""

    name: ClassVar[str] = "uneven"
    counts: tuple[int, ...] = (6, 7, 7)

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {f"d{i}": tuple(map(str, range(n))) for i, n in enumerate(self.counts)}

    def cost(self, arch: Arch) -> dict[str, int]:
        return {"params": 1 + sum(arch)}

    def supernet(self) -> torch.nn.Module:
        raise NotImplementedError

    def build(self, arch: Arch) -> torch.nn.Module:
        raise NotImplementedError


def draw(space: SearchSpace, step: int) -> list[Arch]:
    """What FairNAS samples at a step; it asks a run for its space and a generator only."""
    run: Any = SimpleNamespace(space=space, step=step, rng=lambda purpose, step: python_stream(0, purpose, step))
    return FairNAS().sample_archs(run)


@pytest.mark.invariant("fairnas", 1)
@pytest.mark.parametrize("space", [NB201(), Tiny()], ids=lambda s: s.name)
def test_every_option_of_every_decision_is_active_exactly_once_a_step(space: SearchSpace) -> None:
    for step in range(100):
        archs = draw(space, step)
        assert [sorted(column) for column in zip(*archs, strict=True)] == [list(o) for o in space.options]


@pytest.mark.invariant("fairnas", 2)
def test_the_optimizer_steps_once_per_n_subnets(train: Train) -> None:
    trained = train("fairnas")
    assert [len(step.archs) for step in trained.steps] == [3] * 8
    assert close(trained.weights, trained.steps[-1].after)
    for step, following in itertools.pairwise(trained.steps):
        assert all(step.after[name].equal(following.before[name]) for name in step.after)
    # One update a step: the first buffer is the gradient itself, not a running mean over subnets.
    first = trained.steps[0]
    buffers = first.clones[0][1]
    assert all(torch.allclose(buffers[n], g + 5e-4 * first.before[n]) for n, g in first.grads.items())


@pytest.mark.invariant("fairnas", 3)
def test_the_gradients_of_the_subnets_are_summed_not_averaged(train: Train) -> None:
    trained = train("fairnas", train={"epochs": 1})
    step, net = trained.steps[0], trained.start
    for arch in step.archs:  # gradients add up in .grad
        logits = net(step.batch.images.double(), [arch])[0]
        torch.nn.functional.cross_entropy(logits, step.batch.labels).backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(step.grads[name], p.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.invariant("fairnas", 4)
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_run_is_the_plain_loop_with_the_rate_outside_the_momentum(train: Train, nesterov: bool) -> None:
    trained = train("fairnas", train={"epochs": 4, "nesterov": nesterov})
    assert close(trained.weights, algorithm(trained, cosine, nesterov=nesterov))
    assert trained.steps[0].group["lr"] == pytest.approx(
        0.05, abs=1e-15
    )  # the official baseline never steps its schedule; this one does
    assert trained.steps[8].group["lr"] == pytest.approx(0.025, abs=1e-15)


@pytest.mark.invariant("fairnas", 5)
def test_the_permutations_are_drawn_afresh_at_every_step(train: Train) -> None:
    steps = train("fairnas", "nb201", train={"epochs": 10}).steps
    drawn = {tuple(sorted(step.archs)) for step in steps}
    assert len(steps) == len(drawn) == 20
    # Independent between edges as well: equal columns would be five architectures forever.
    assert len({arch for step in steps for arch in step.archs}) > 90


@pytest.mark.invariant("fairnas", 7)
def test_official_bug_compat_trains_the_same_subnets_for_a_whole_epoch(train: Train) -> None:
    steps = train("fairnas[official_bug_compat=true]", "nb201", train={"epochs": 5, "batch_size": 8}).steps
    assert len(steps) == 25
    epochs = [{tuple(step.archs) for step in steps[i : i + 5]} for i in range(0, 25, 5)]
    assert [len(epoch) for epoch in epochs] == [1] * 5
    assert len(set.union(*epochs)) == 5  # each epoch draws its own
    for step in steps:
        assert [sorted(column) for column in zip(*step.archs, strict=True)] == [[0, 1, 2, 3, 4]] * 6


@pytest.mark.invariant("fairnas", 8)
def test_the_other_official_bug_is_a_rate_that_never_falls(train: Train) -> None:
    constant = train("fairnas", train={"epochs": 3, "schedule": "constant"})
    assert [step.group["lr"] for step in constant.steps] == pytest.approx([0.05] * 12, abs=1e-15)
    assert close(constant.weights, algorithm(constant, lambda arch, t: 0.05))


def test_all_permutations_of_an_edge_are_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for step in range(1200):
        column = tuple(arch[1] for arch in draw(Tiny(), step))
        counts[column] = counts.get(column, 0) + 1
    assert len(counts) == 6
    # Chi-squared with 5 degrees of freedom: above 20.5 in one draw of a thousand.
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 20.5


@pytest.mark.invariant("fairnas", 6)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 10_000))
def test_unequal_counts_take_the_largest_and_repeat_options_as_evenly_as_possible(counts: list[int], step: int) -> None:
    archs = draw(Uneven(counts=tuple(counts)), step)
    assert len(archs) == max(counts)
    for n, column in zip(counts, zip(*archs, strict=True), strict=True):
        times = [column.count(option) for option in range(n)]
        assert sum(times) == max(counts)
        assert max(times) - min(times) <= 1
        assert sorted(column[:n]) == list(range(n))  # its permutation first, then distinct redraws


def test_a_decision_that_is_fixed_stays_fixed() -> None:
    space = NB201().restrict({"1<-0": [3]})
    archs = draw(space, 0)
    assert [arch[0] for arch in archs] == [3] * 5
    assert [sorted(column) for column in zip(*archs, strict=True)][1:] == [[0, 1, 2, 3, 4]] * 5


def test_the_summed_gradient_is_not_clipped_unless_asked_for() -> None:
    for preset in ("quick", "cpu", "paper"):
        assert resolve("fairnas", "nb201", preset=preset, target="cifar10").train.clip is None
    assert resolve("spos", "nb201", preset="paper", target="cifar10").train.clip == 5
