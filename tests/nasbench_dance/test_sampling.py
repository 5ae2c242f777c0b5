"""Drawing exactly k channels: counts, probabilities, gradients. No network is needed."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nasbench_dance import sampling
from nasbench_dance.sampling import Combine, Sampler, combine, gumbel, relax, sample, soft_gates, straight_through, top

SAMPLERS, RULES = get_args(Sampler), get_args(Combine)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probabilities(channels: int, seed: int) -> torch.Tensor:
    return torch.softmax(3 * torch.randn(channels, generator=generator(seed), dtype=torch.float64), -1)


@pytest.mark.invariant("dance", 1)
@given(st.sampled_from(SAMPLERS), st.integers(1, 96), st.floats(0.01, 1), st.integers(0, 99))
def test_exactly_k_are_drawn(sampler: Sampler, channels: int, ratio: float, seed: int) -> None:
    k = max(1, math.floor(ratio * channels))
    mask = sample(probabilities(channels, seed), k, sampler, generator(seed))
    assert mask.sum() == k
    assert set(mask.tolist()) <= {0.0, 1.0}


@pytest.mark.invariant("dance", 1)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_also_where_probabilities_vanish_and_for_every_row(sampler: Sampler) -> None:
    p = torch.zeros(5, 8)
    p[:, 2] = 1
    assert sample(p, 3, sampler, generator(0)).sum(-1).tolist() == [3] * 5


@pytest.mark.invariant("dance", 6)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draw_is_a_function_of_the_seed(sampler: Sampler) -> None:
    p = torch.full((64,), 1 / 64)
    first, again, other = (sample(p, 32, sampler, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (sampler == "topk")


def test_gumbel_topk_draws_in_proportion_to_p() -> None:
    """Without replacement: for k = 1 it is p itself, for k = 2 Plackett and Luce's formula."""
    p, rng, n = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64), generator(0), 20_000
    rows = p.expand(n, -1)
    once = sample(rows, 1, "gumbel_topk", rng).mean(0)
    assert torch.allclose(once, p, atol=0.015)
    second = [sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i) for i in range(4)]
    twice = sample(rows, 2, "gumbel_topk", rng).mean(0)
    assert torch.allclose(twice, p + torch.stack(second), atol=0.015)  # type: ignore[arg-type]


def test_bernoulli_fix_keeps_the_certain_and_mends_the_count() -> None:
    p = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert sample(p, 2, "bernoulli_fix", generator(0)).tolist() == [1, 1, 0, 0]  # k p = 1
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    drawn = [sample(p, 1, "bernoulli_fix", generator(seed)).argmax().item() for seed in range(300)]
    assert drawn.count(0) > drawn.count(1) > drawn.count(3)


@pytest.mark.invariant("dance", 7)
def test_the_straight_through_gradient_is_k_v_inside_the_clip() -> None:
    p = torch.tensor([0.7, 0.1, 0.05, 0.15], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    mask = top(p, 2)
    through = straight_through(mask, soft_gates(p, 2))
    assert torch.equal(through, mask)  # bit for bit
    (through * v).sum().backward()
    assert p.grad is not None
    assert p.grad.tolist() == [0.0, -4.0, 6.0, 1.0]  # 2 x 0.7 is clipped


@pytest.mark.invariant("dance", 10)
def test_probabilities_by_each_rule() -> None:
    shares, score = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 0.5])
    assert combine(shares, score, "product").allclose(torch.tensor([0.5e-6, 0.3, 0.1]) / 0.4, atol=1e-5)
    literal = torch.tensor([0.0, 0.3, 0.1]).exp()
    assert combine(shares, score, "paper_literal").allclose(literal / literal.sum())
    added = shares * (2 * score).exp()
    assert combine(shares, score, "logit_add", 2.0).allclose(added / added.sum())


@pytest.mark.invariant("dance", 10)
@given(st.integers(2, 512), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 50))
def test_the_literal_rule_is_nearly_uniform(channels: int, tau: float, seed: int) -> None:
    """No channel is more than e times as likely as another; the product can tell them apart."""
    rng = generator(seed)
    logits, score = torch.randn(channels, generator=rng), torch.rand(channels, generator=rng)
    p = combine(relax(logits, gumbel(logits, rng), tau), score, "paper_literal")
    assert p.max() / p.min() <= math.e
    assert math.isclose(float(p.sum()), 1, abs_tol=1e-4)


def test_gumbel_noise_is_standard() -> None:
    noise = gumbel(torch.empty(200_000, dtype=torch.float64), generator(0))
    assert math.isclose(float(noise.mean()), 0.5772, abs_tol=0.01)
    assert math.isclose(float(noise.var()), math.pi**2 / 6, abs_tol=0.03)


def test_ties_go_to_the_first() -> None:
    assert sampling.top(torch.ones(2, 5), 2).tolist() == [[1, 1, 0, 0, 0]] * 2
