"""DARTS, second order: the gradient through one step of the weights, against finite differences of its definition."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from nasbench_differentiable.relaxation import loss, validation_batch

from tests.nasbench_differentiable.conftest import Train, Trained


def unrolled(trained: Trained, batch: Any, valid: Any, xi: float, momentum: float) -> torch.Tensor:
    """The validation loss at the weights after one step of SGD on the training loss at the present alpha."""
    run = trained.run
    mixture = trained.method.mixture(run, "train")
    net = run.net
    run.net = copy.deepcopy(net)
    weights, buffers = list(run.net.parameters()), [run.optimizer.state.get(p, {}) for p in net.parameters()]  # type: ignore[union-attr]
    slopes = torch.autograd.grad(loss(run, batch, mixture), weights, materialize_grads=True)
    with torch.no_grad():
        for w, slope, state in zip(weights, slopes, buffers, strict=True):
            w -= xi * (slope + 5e-4 * w + momentum * state.get("momentum_buffer", torch.zeros_like(w)))
    value = loss(run, valid, trained.method.mixture(run, "valid")).detach()
    run.net = net
    return value


@pytest.mark.invariant("darts-v2", 1)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("space", ["tiny", "nb201"])
def test_the_gradient_is_that_of_the_unrolled_validation_loss(inside: Any, space: str, momentum: float) -> None:
    """Central differences in alpha, through the step of the weights, with a buffer of momentum in it."""

    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        batch, valid = run.hook.next_batch(run=run), validation_batch(run)
        for p in run.net.parameters():
            if momentum:
                rng = torch.Generator().manual_seed(p.numel())
                noise = torch.randn(p.shape, generator=rng, dtype=p.dtype)
                run.optimizer.state[p]["momentum_buffer"] = 0.1 * noise  # type: ignore[union-attr]
        for alpha in method._alphas:  # away from zero, where much is symmetric
            alpha.data.copy_(torch.linspace(-1, 1, len(alpha), dtype=alpha.dtype))
        before = [p.detach().clone() for p in run.net.parameters()]
        mine = method.architecture_gradient(run, batch)
        assert all(torch.equal(p, b) for p, b in zip(run.net.parameters(), before, strict=True))  # put back
        xi, h, wanted = run.recipe.train.lr, 1e-4, []
        for alpha in method._alphas:
            row = []
            for k in range(len(alpha)):
                values = []
                for sign in (1, -1):
                    alpha.data[k] += sign * h
                    values.append(unrolled(trained, batch, valid, xi, momentum))
                    alpha.data[k] -= sign * h
                row.append((values[0] - values[1]) / (2 * h))
            wanted.append(torch.stack(row))
        first = super(type(method), method).architecture_gradient(run, batch)
        return torch.cat(mine), torch.cat(wanted), torch.cat(first)

    sets = {"train": {"momentum": momentum, "lr": 0.01}, "data": {"augment": []}}
    mine, wanted, first = inside("darts-v2[epsilon=0.0001]", look, space, **sets)
    assert torch.allclose(mine, wanted, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(first, wanted, rtol=1e-2, atol=1e-5)  # the second order counts


@pytest.mark.invariant("darts-v2", 2)
def test_with_a_rate_of_almost_nothing_it_is_the_first_order(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        batch = trained.run.hook.next_batch(run=trained.run)
        both = trained.method.architecture_gradient(trained.run, batch)
        return both, super(type(trained.method), trained.method).architecture_gradient(trained.run, batch)

    second, first = inside("darts-v2", look, train={"lr": 1e-12})
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(second, first, strict=True))


@pytest.mark.invariant("darts-v2", 3)
def test_the_weights_are_trained_as_in_the_first_order(train: Train) -> None:
    one, two = (train(method, train={"epochs": 1}).steps[0] for method in ("darts-v1", "darts-v2"))
    assert one.batch.images.equal(two.batch.images)
    assert one.rates == two.rates
    assert all(a.equal(b) for a, b in zip(one.before, two.before, strict=True))
    assert not all(a.equal(b) for a, b in zip(one.after, two.after, strict=True))
