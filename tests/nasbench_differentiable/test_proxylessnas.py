"""ProxylessNAS: which paths are open, where the gradient of a gate goes, what stays, and the expected cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_differentiable.proxylessnas import binary
from nasbench_differentiable.relaxation import loss, validation_batch

from nasbench import BadInput
from nasbench.harness import prepare
from nasbench.recipe import resolve
from tests.nasbench_differentiable.conftest import Train, Trained


@pytest.mark.invariant("proxylessnas", 1)
@pytest.mark.parametrize("space", ["tiny", "nb201", "darts"])
def test_the_weights_see_one_path_of_each_decision(train: Train, space: str) -> None:
    drawn = set()
    for step in train("proxylessnas", space, train={"epochs": 1}).steps:
        for weights in step.archs[0]:
            assert sorted(weights.tolist()) == [0.0] * (len(weights) - 1) + [1.0]
        drawn.add(tuple(int(w.argmax()) for w in step.archs[0]))
    assert len(drawn) > 1


@pytest.mark.invariant("proxylessnas", 1)
def test_paths_are_drawn_by_their_probability(begin: Train) -> None:
    trained = begin("proxylessnas")
    run, method = trained.run, trained.method
    alpha = torch.tensor([0.0, math.log(3), math.log(6)], dtype=torch.float64)
    method._alphas = [alpha] * 3
    counts, pairs = torch.zeros(3), torch.zeros(3)
    for run.step in range(1000):
        counts += torch.stack(method.mixture(run, "train")).sum(0)
        pairs += sum(F.one_hot(pair, 3).sum(0) for pair in method.pairs(run))
    assert (counts / 3000).tolist() == pytest.approx([0.1, 0.3, 0.6], abs=0.03)
    # Without replacement: 0.1 first, or second after 0.3 or 0.6.
    assert float(pairs[0]) / 3000 == pytest.approx(0.1 + 0.3 * 0.1 / 0.7 + 0.6 * 0.1 / 0.4, abs=0.03)


@pytest.mark.invariant("proxylessnas", 2)
def test_the_gradient_of_a_gate_goes_to_the_probabilities_of_the_two() -> None:
    """Eq. 4 with p over the two: dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i); p = 1/4, 3/4; dL/dg = 2, 5."""
    alpha = torch.tensor([0.0, 9.0, math.log(3), -1.0], dtype=torch.float64, requires_grad=True)
    gates = binary(alpha, torch.tensor([0, 2]), torch.tensor([5.0, 0.0], dtype=torch.float64))
    assert gates.tolist() == pytest.approx([1, 0, 0, 0], abs=1e-30)
    assert gates[1] == gates[3] == 0 < gates[2]  # the shut one of the two is computed, the others are not
    (slope,) = torch.autograd.grad(gates @ torch.tensor([2.0, 7.0, 5.0, 11.0], dtype=torch.float64), [alpha])
    assert slope.tolist() == pytest.approx([0.25 * (2 - 4.25), 0, 0.75 * (5 - 4.25), 0])


@pytest.mark.invariant("proxylessnas", 2)
@pytest.mark.parametrize("space", ["tiny", "nb201"])
def test_what_is_passed_on_is_the_open_path_alone(inside: Any, space: str) -> None:
    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        gates = method.gates(run, method.pairs(run))
        arch = tuple(int(g.argmax()) for g in gates)
        batch = validation_batch(run)
        one_hot = [F.one_hot(torch.tensor(o), len(g)).to(g) for o, g in zip(arch, gates, strict=True)]
        return float(loss(run, batch, gates).detach()), float(loss(run, batch, one_hot).detach())

    gated, alone = inside("proxylessnas", look, space)
    assert gated == pytest.approx(alone, abs=1e-12)


@pytest.mark.invariant("proxylessnas", 3)
def test_a_step_moves_the_two_apart_and_leaves_every_other_probability(inside: Any) -> None:
    """Adam's first step is its rate, in the direction of the sign; the two are then shifted together."""

    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        pairs, before = method.pairs(run), [a.detach().clone() for a in method._alphas]
        assert method.architecture_gradient(run, validation_batch(run)) is None
        return pairs, before, [a.detach().clone() for a in method._alphas]

    gaps = []
    for pair, before, after in zip(*inside("proxylessnas", look, "nb201"), strict=True):
        others = [o for o in range(5) if o not in pair.tolist()]
        assert before[others].equal(after[others])
        old, new = before.softmax(0), after.softmax(0)
        assert torch.allclose(old[others], new[others], rtol=0, atol=1e-15)
        assert float(new[pair].sum()) == pytest.approx(float(old[pair].sum()), abs=1e-15)
        moved = (after - before)[pair]
        gaps.append(float((moved[0] - moved[1]).abs()))
    # An edge of which the output does not depend, since what follows it is shut, has no gradient.
    assert max(gaps) == pytest.approx(2 * 0.006, rel=1e-3)
    assert all(gap == 0 or gap == pytest.approx(max(gaps), rel=1e-3) for gap in gaps)


@pytest.mark.invariant("proxylessnas", 4)
def test_the_expected_cost_is_that_of_architectures_drawn_by_alpha(begin: Train) -> None:
    """All 27 of tiny, each with its probability; the gradient is p_i (F_i - F of the pair)."""
    trained = begin("proxylessnas[cost_weight=1.0]")
    run, method = trained.run, trained.method
    rng = torch.Generator().manual_seed(0)
    method._alphas = [torch.randn(3, generator=rng, dtype=torch.float64).requires_grad_() for _ in range(3)]
    pairs = [torch.tensor([0, 2])] * 3
    p = [a.detach().softmax(0) for a in method._alphas]
    space = run.space
    cost = {arch: space.cost(arch)["madds"] for arch in space.architectures()}
    wanted = sum(math.prod(float(p[i][o]) for i, o in enumerate(arch)) * c for arch, c in cost.items())
    equal = sum(cost.values()) / 27
    found = method.expected_cost(pairs)
    assert float(found.detach()) == pytest.approx(wanted / equal, rel=1e-12)
    slopes = torch.autograd.grad(found, method._alphas)
    for slope, mine, costs in zip(slopes, p, method._costs, strict=True):
        mean = (mine[0] * costs[0] + mine[2] * costs[2]) / (mine[0] + mine[2])
        assert slope[1] == 0
        assert torch.allclose(slope[[0, 2]], mine[[0, 2]] * (costs[[0, 2]] - mean) / equal, rtol=1e-10)


@pytest.mark.invariant("proxylessnas", 4)
def test_a_heavy_cost_leads_to_cheap_paths(train: Train) -> None:
    trained = train("proxylessnas[cost_weight=1000.0,arch_lr=0.3]", "nb201", train={"epochs": 15})
    (choice,) = trained.run.hook.select(run=trained.run)
    space = trained.run.space
    assert space.cost(choice.arch)["madds"] == space.cost_range("madds")[0]


@pytest.mark.invariant("proxylessnas", 5)
@pytest.mark.parametrize("space", ["darts", "mobilenetv3"])
def test_costs_that_do_not_add_up_are_refused(tmp_path: Path, space: str) -> None:
    with pytest.raises(BadInput, match=r"cost_weight = 0.1 needs decisions whose madds add up"):
        prepare(resolve("proxylessnas[cost_weight=0.1]", space, preset="test"), tmp_path)
    prepare(resolve("proxylessnas", space, preset="test"), tmp_path)
    prepare(resolve("proxylessnas[cost_weight=0.1]", "mobilenet", preset="test"), tmp_path)
