"""Proportional: subnets drawn with P(alpha) = C(alpha) / sum C, whatever the method sampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nasbench_oneshot.proportional import Proportional
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, BadInput, Run
from tests.nasbench_oneshot.conftest import Train, algorithm, close, cosine

SPACE = Tiny(image=(1, 8, 8))
#: Weights counted on the networks: every parameter that is no bias.
WEIGHTS = {a: sum(p.numel() for p in SPACE.build(a).parameters() if p.ndim > 1) for a in SPACE.architectures()}


def chi_squared(drawn: Iterable[Arch], expected: dict[Arch, int]) -> float:
    """Of the draws against probabilities proportional to `expected`."""
    counts, total = Counter(drawn), sum(expected.values())
    assert set(counts) <= set(expected)
    n = counts.total()
    return sum((counts[a] - n * c / total) ** 2 / (n * c / total) for a, c in expected.items())


def draw(run: Run, steps: int) -> list[list[Arch]]:
    """What is sampled at so many steps."""
    found = []
    for run.step in range(steps):
        found.append(run.hook.sample_archs(run=run))
    return found


@pytest.mark.invariant("proportional", 1)
@pytest.mark.parametrize(("complexity", "top"), [("conv_weights", (1, 1, 1)), ("params", (2, 2, 2))])
def test_a_draw_is_accepted_exactly_as_often_as_it_is_complex(train: Train, complexity: str, top: Arch) -> None:
    """Of C_max evenly spread random numbers, C(alpha) accept alpha; the others go on to the next offer."""
    run: Any = train(f"spos+proportional[complexity={complexity}]", train={"epochs": 1}).run
    cost = {arch: SPACE.cost(arch)[complexity] for arch in SPACE.architectures()}
    offers, numbers = list[Any](), list[float]()
    run.rng = lambda purpose: SimpleNamespace(random=numbers.pop) if purpose == "proportional" else None
    run.manager.unregister(name="answers")  # what follows is no space, and "another" no architecture
    run.space = SimpleNamespace(
        cost_range=SPACE.cost_range,
        sample=lambda rng: offers.pop() if rng else top,  # the method's own draw has no generator here
        cost=lambda arch: {complexity: cost.get(arch, cost[top])},
    )
    accepted = Counter[Arch]()
    for arch in [(0, 0, 0), (1, 0, 0), (0, 2, 0), top]:
        for i in range(cost[top]):
            offers[:], numbers[:] = ["another", arch], [0.0, (i + 0.5) / cost[top]]
            accepted[arch] += run.hook.sample_archs(run=run) == [arch]
    assert accepted == {arch: cost[arch] for arch in accepted}
    assert accepted[top] == max(cost.values())


@pytest.mark.invariant("proportional", 2)
def test_architectures_are_drawn_in_proportion_to_their_weights(train: Train) -> None:
    assert (min(WEIGHTS.values()), max(WEIGHTS.values())) == (1184, 1952)
    run = train("spos+proportional", train={"epochs": 1}).run
    drawn = [arch for archs in draw(run, 5400) for arch in archs]
    assert len(drawn) == 5400
    # Chi-squared with 26 degrees of freedom: above 54.05 in one draw of a thousand.
    assert chi_squared(drawn, WEIGHTS) < 54.05
    assert chi_squared(drawn, dict.fromkeys(WEIGHTS, 1)) > 54.05  # which uniform sampling would pass


@pytest.mark.invariant("proportional", 3)
def test_fairnas_becomes_n_independent_draws(train: Train) -> None:
    run = train("fairnas+proportional", train={"epochs": 1}).run
    steps = draw(run, 5400)
    assert {len(archs) for archs in steps} == {3}
    for column in zip(*steps, strict=True):
        assert chi_squared(column, WEIGHTS) < 54.05
    # Independent: two of a step are equal as often as P says, sum of P squared. Fairness would forbid it.
    share = sum((c / sum(WEIGHTS.values())) ** 2 for c in WEIGHTS.values())
    equal = sum(a == b for archs in steps for a, b in pairwise(archs)) / (2 * 5400)
    assert equal == pytest.approx(share, abs=4 * (share / (2 * 5400)) ** 0.5)


@pytest.mark.invariant("proportional", 3)
def test_their_gradients_are_summed(train: Train) -> None:
    trained = train("fairnas+proportional", train={"epochs": 4})
    assert any(len({arch[0] for arch in step.archs}) < 3 for step in trained.steps)
    assert close(trained.weights, algorithm(trained, cosine))


@pytest.mark.invariant("proportional", 4)
def test_a_part_of_the_space_is_not_left(train: Train) -> None:
    run = train("spos+proportional", train={"epochs": 1}).run
    run.space = run.space.restrict({"layer0": [0, 1], "layer2": [2]})
    inside = {arch: c for arch, c in WEIGHTS.items() if arch in run.space}
    assert len(inside) == 6
    drawn = [arch for archs in draw(run, 1200) for arch in archs]
    # Chi-squared with 5 degrees of freedom: above 20.5 in one draw of a thousand.
    assert chi_squared(drawn, inside) < 20.5
    run.space = run.space.restrict({"layer0": [0], "layer1": [0]})
    assert draw(run, 20) == [[(0, 0, 2)]] * 20


@pytest.mark.invariant("proportional", 5)
def test_ms_only_picks_the_buffer(train: Train) -> None:
    without, trained = (train(m, train={"epochs": 8}) for m in ("spos+proportional", "spos+ms[edge=last]+proportional"))
    assert [s.archs for s in trained.steps] == [s.archs for s in without.steps]
    banks = {(step.archs[0][2], id(step.bank)) for step in trained.steps}
    assert len(banks) == len({cluster for cluster, _ in banks}) == 3


def test_with_several_subnets_ms_moves_the_draws_into_one_cluster(train: Train) -> None:
    alone, run = (
        train(m, train={"epochs": 1}).run for m in ("fairnas+proportional", "fairnas+ms[edge=last]+proportional")
    )
    for before, after in zip(draw(alone, 30), draw(run, 30), strict=True):
        assert [arch[:2] for arch in after] == [arch[:2] for arch in before]
        assert len({arch[2] for arch in after}) == 1


@pytest.mark.invariant("proportional", 6)
def test_the_same_seed_draws_the_same_and_another_draws_otherwise(train: Train) -> None:
    run, other = (train("spos+proportional", seed=seed).run for seed in (0, 1))
    drawn = draw(run, 30)
    assert draw(run, 30) == drawn != draw(other, 30)
    assert len({arch for (arch,) in drawn}) > 10


def test_a_space_whose_architectures_are_equally_complex_is_refused() -> None:
    run: Any = SimpleNamespace(space=SimpleNamespace(name="flat", cost_range=lambda name: (7, 7)))
    assert Proportional().refuse(run) == "proportional needs subnets of different conv_weights; in flat all are equal."
    run.space.cost_range = lambda name: (7, 8)
    assert Proportional().refuse(run) is None


def test_mixtures_have_no_complexity(train: Train) -> None:
    def relax(run: Run, archs: list[Arch]) -> Any:
        return [[torch.ones(3) for _ in arch] for arch in archs]

    with pytest.raises(BadInput, match="proportional needs single subnets"):
        train("spos+proportional", force=relax)
