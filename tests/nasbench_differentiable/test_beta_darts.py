"""Beta-DARTS: the regulariser's gradient and how it rises."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tests.nasbench_differentiable.conftest import Trained


@pytest.mark.invariant("beta-darts", 1)
@pytest.mark.parametrize("space", ["tiny", "nb201", "darts"])
def test_the_decay_adds_the_gradient_of_the_mean_logsumexp(inside: Any, space: str) -> None:
    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        for i, alpha in enumerate(method._alphas):
            alpha.data.copy_(torch.linspace(-1, 1 + i, len(alpha), dtype=alpha.dtype))
        run.step = run.total_steps // 2
        batch = run.hook.next_batch(run=run)
        mine = method.architecture_gradient(run, batch)
        plain = super(type(method), method).architecture_gradient(run, batch)
        alphas = [a.detach().clone().requires_grad_() for a in method._alphas]
        value = run.progress * 50 * torch.stack([a.exp().sum().log() for a in alphas]).mean()
        return run.progress, mine, plain, torch.autograd.grad(value, alphas)

    progress, mine, plain, decay = inside("beta-darts", look, space, train={"epochs": 4})
    assert progress == 0.5
    for a, b, d in zip(mine, plain, decay, strict=True):
        assert torch.allclose(a, b + d, rtol=1e-10, atol=1e-12)
        assert float(d.sum()) == pytest.approx(25 / len(mine))  # a softmax sums to 1


@pytest.mark.invariant("beta-darts", 2)
def test_the_decay_begins_at_nothing_and_rises_step_by_step(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        run, method, found = trained.run, trained.method, []
        steps = run.total_steps
        batch = run.hook.next_batch(run=run)
        for run.step in range(steps):
            plain = super(type(method), method).architecture_gradient(run, batch)
            mine = method.architecture_gradient(run, batch)
            found.append(sum(float((a - b).sum()) for a, b in zip(mine, plain, strict=True)))
        return found

    found = inside("beta-darts[beta_decay=8]", look, train={"epochs": 2})
    assert found == pytest.approx([float(t) for t in range(8)], abs=1e-9)  # 8 steps, lambda at the end 8


@pytest.mark.invariant("beta-darts", 3)
def test_the_decay_pulls_a_softmax_towards_equal_weights() -> None:
    alpha = torch.tensor([2.0, 0.0, -1.0], requires_grad=True)
    spread = []
    for _ in range(50):
        spread.append(float(alpha.detach().std()))
        (slope,) = torch.autograd.grad(alpha.exp().sum().log(), [alpha])
        with torch.no_grad():
            alpha -= 0.5 * slope
    assert all(a > b for a, b in itertools.pairwise(spread))
