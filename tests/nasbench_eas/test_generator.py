"""The architecture generator: embeddings, gates, and architectures that keep to a budget."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nasbench_eas.elastic import madds
from nasbench_eas.generator import Generator, draw_legal, gate_probabilities, nest, relax, relaxed_gates, round_down
from nasbench_mobile.mobilenet_v3 import MobileNetV3
from torch import Tensor

from nasbench import BadInput

SPACE = MobileNetV3()
M = 1e6


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(10, 150 * M, 550 * M)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def budgets(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---------------------------------------------------------------------- embeddings


@pytest.mark.invariant("eas", 1)
def test_a_budget_on_an_anchor_has_its_embedding_and_one_between_lies_between(generator: Generator) -> None:
    anchors = [150 * M + 400 * M * k / 9 for k in range(10)]
    assert generator.anchors.tolist() == pytest.approx(anchors, rel=1e-15)
    e = generator.budget.weight
    assert torch.equal(generator.embed_budget(generator.anchors), e)
    assert torch.equal(generator.embed_budget(budgets(150 * M, 550 * M)), e[[0, 9]])
    low, high = generator.anchors[3:5].tolist()
    for w in (0.25, 0.5, 0.9):
        between = generator.embed_budget(budgets((1 - w) * low + w * high))[0]
        assert torch.allclose(between, (1 - w) * e[3] + w * e[4], atol=1e-6)
    assert torch.equal(generator.embed_budget(budgets(1.0, 600 * M)), e[[0, 9]])  # clamped outside


@pytest.mark.invariant("eas", 2)
def test_there_are_ninety_gates(generator: Generator) -> None:
    z = generator(budgets(200 * M, 300 * M, 300 * M), torch.tensor([0, 0, 9]))
    assert z.shape == (3, 45, 2)
    assert z[0].numel() == 90 == 20 * 2 + 20 * 2 + 10
    assert z[0].ne(z[1]).any()
    assert z[1].ne(z[2]).any()
    assert Generator(10, 150 * M, 550 * M, encoding="multi_path")(budgets(2e8), torch.tensor([1])).shape == (1, 45, 3)


@pytest.mark.invariant("eas", 2)
def test_fifty_scenarios_in_one_pass_are_those_one_by_one(generator: Generator) -> None:
    asked = [(150 * M + 80 * M * b, t) for b in range(5) for t in range(10)]
    together = generator(budgets(*(b for b, _ in asked)), torch.tensor([t for _, t in asked]))
    alone = torch.cat([generator(budgets(b), torch.tensor([t])) for b, t in asked])
    assert torch.allclose(together, alone, atol=1e-6)


# ---------------------------------------------------------------------- gates


@pytest.mark.invariant("eas", 3)
def test_the_relaxation_at_known_points() -> None:
    z, u = torch.zeros(1, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64)
    soft = ((z + (u / (1 - u)).log()) / 1.0).sigmoid()
    assert soft.item() == 0.5
    assert relaxed_gates(z, u, 1.0).item() == 0.0  # 1 only where h > 0.5
    assert relaxed_gates(z, u + 1e-9, 1.0).item() == 1.0
    p, u = torch.rand(200, generator=rng()).double(), torch.rand(200, generator=rng(1)).double()
    for tau in (0.1, 1.0, 5.0):
        assert torch.equal(relaxed_gates(p.logit(), u, tau), (u > 1 - p).double())


@pytest.mark.invariant("eas", 3)
@pytest.mark.parametrize("tau", [0.2, 1.0, 3.0])
def test_a_hard_gate_has_the_gradient_of_the_soft_one(tau: float) -> None:
    z = torch.randn(50, generator=rng(), dtype=torch.float64).requires_grad_()
    u = torch.rand(50, generator=rng(1), dtype=torch.float64)
    hard = relaxed_gates(z, u, tau)
    assert set(hard.tolist()) == {0.0, 1.0}
    (straight,) = torch.autograd.grad(hard.sum(), z)
    step = 1e-6

    def soft(z: Tensor) -> Tensor:
        p = z.sigmoid()
        return (((p / (1 - p)).log() + (u / (1 - u)).log()) / tau).sigmoid()  # Eq. 9 as written

    numeric = (soft(z.detach() + step) - soft(z.detach() - step)) / (2 * step)
    assert torch.allclose(straight, numeric, atol=1e-7)


@pytest.mark.invariant("eas", 3)
def test_a_gate_is_open_with_its_probability_at_any_temperature() -> None:
    p = torch.tensor([0.1, 0.5, 0.85])
    for tau in (0.1, 1.0, 10.0):
        u = torch.rand(20_000, 3, generator=rng(2))
        mean = relaxed_gates(p.logit().expand_as(u), u, tau).mean(0)
        assert ((mean - p).abs() < 4.5 * (p * (1 - p) / len(u)).sqrt()).all()


@pytest.mark.invariant("eas", 4)
def test_every_setting_of_a_decisions_gates_is_one_option() -> None:
    for gates in itertools.product((0.0, 1.0), repeat=2):
        weights = nest(torch.tensor(gates)).tolist()
        assert weights == [float(i == (gates[0] + gates[0] * gates[1])) for i in range(3)]


@pytest.mark.invariant("eas", 4)
@given(st.integers(0, 2**90 - 1))
def test_every_setting_of_all_gates_is_an_architecture_with_its_cost(bits: int) -> None:
    gates = torch.tensor([(bits >> i) & 1 for i in range(90)]).view(45, 2).double()
    arch = tuple(nest(gates).argmax(-1).tolist())
    assert arch in SPACE
    assert SPACE.expected_madds(nest(gates)).item() == SPACE.cost(arch)["madds"]


@pytest.mark.invariant("eas", 5)
def test_three_logits_draw_what_their_softmax_says() -> None:
    z = torch.randn(3, generator=rng())
    p, wanted = gate_probabilities(z), z.softmax(-1)
    assert torch.allclose(nest(p), wanted, atol=1e-6)
    mixtures = relax(z.expand(20_000, 3), torch.rand(20_000, 3, generator=rng(1)), 1.0)
    assert torch.allclose(mixtures.sum(-1), torch.ones(20_000), atol=1e-5)
    share = torch.bincount(mixtures.argmax(-1), minlength=3) / 20_000  # Gumbel-max
    assert ((share - wanted).abs() < 4.5 * (wanted * (1 - wanted) / 20_000).sqrt()).all()


# ---------------------------------------------------------------------- budgets


def some_gates(scenarios: int, seed: int = 0) -> Tensor:
    return torch.rand(scenarios, 45, 2, generator=rng(seed))


@pytest.mark.invariant("eas", 6)
def test_no_architecture_is_over_its_budget() -> None:
    limits = [121_278_672.0, 150 * M, 230 * M, 300 * M, 380 * M, 566_170_656.0]
    found = draw_legal(SPACE, some_gates(6), limits, wanted=10, limit=300, rng=rng(3))
    for archs, limit in zip(found, limits, strict=True):
        assert 1 <= len(archs) <= 10
        assert all(arch in SPACE and SPACE.cost(arch)["madds"] <= limit for arch in archs)
    assert found[0] == [(0,) * 40 + (0,) * 5] or SPACE.canonical(found[0][0]) == (0,) * 45
    assert [len(archs) for archs in found[3:]] == [10] * 3


@pytest.mark.invariant("eas", 6)
def test_draws_inside_the_budget_are_drawn_by_their_probabilities() -> None:
    """With every gate but one decision's certain: three architectures, of which the budget forbids the largest."""
    p = torch.zeros(1, 45, 2)
    p[0, 0] = torch.tensor([0.5, 0.5])
    medium = SPACE.cost((1, *(0,) * 44))["madds"]
    (archs,) = draw_legal(SPACE, p, [float(medium)], wanted=3000, limit=4000, rng=rng())
    counts = Counter(arch[0] for arch in archs)
    assert set(counts) == {0, 1}
    # 1/2 and 1/4 before the budget; 2/3 and 1/3 after it.
    assert abs(counts[1] / len(archs) - 1 / 3) < 4.5 * (2 / 9 / len(archs)) ** 0.5


@pytest.mark.invariant("eas", 6)
def test_where_nothing_drawn_is_inside_the_least_likely_gates_are_closed() -> None:
    p = torch.full((45, 2), 0.9)
    p[7] = torch.tensor([0.8, 0.7])
    largest = SPACE.cost((2,) * 45)["madds"]
    assert round_down(SPACE, p, largest) == (2,) * 45
    assert round_down(SPACE, p, largest - 1) == (*(2,) * 7, 1, *(2,) * 37)  # its second gate first
    assert draw_legal(SPACE, torch.ones(1, 45, 2), [130 * M], 10, 100, rng())[0][0] in SPACE
    with pytest.raises(BadInput, match="smallest architecture's 121,278,672"):
        round_down(SPACE, p, 121_278_671.0)


@pytest.mark.invariant("eas", 6)
@given(st.integers(0, 2**32), st.floats(121_278_672, 566_170_656))
def test_rounding_down_always_ends_inside(seed: int, budget: float) -> None:
    arch = round_down(SPACE, some_gates(1, seed)[0], budget)
    assert SPACE.cost(arch)["madds"] <= budget


def test_costs_of_many_architectures_at_once() -> None:
    draw = random.Random(0)
    archs = [SPACE.sample(draw) for _ in range(20)]
    found = madds(SPACE, torch.tensor(archs).view(4, 5, 45))
    assert found.flatten().tolist() == [SPACE.cost(arch)["madds"] for arch in archs]
