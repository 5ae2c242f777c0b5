"""What all gradient-based methods have in common, seen on DARTS, first order."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_differentiable.relaxation import gradient, gumbel, loss, validation_batch

from nasbench import BadInput
from tests.nasbench_differentiable.conftest import Train, Trained


@pytest.mark.invariant("darts-v1", 1)
def test_alpha_follows_adam_on_validation_images_and_the_weights_sgd_on_training_images(train: Train) -> None:
    """The whole of a run in plain torch: Algorithm 1 with xi = 0."""
    trained = train("darts-v1", train={"epochs": 3})
    run, steps = trained.run, trained.steps
    assert len(steps) == 12
    alphas = [a.clone().requires_grad_() for a in steps[0].before]
    adam = torch.optim.Adam(alphas, 3e-4, (0.5, 0.999), weight_decay=1e-3)
    net = start(trained)
    sgd = torch.optim.SGD(net.parameters(), 0.05, 0.9, weight_decay=5e-4)
    for i, step in enumerate(steps):
        run.step = i
        run._stage = "train"
        batch = validation_batch(run)
        value = F.cross_entropy(net(batch.images.double(), [[a.softmax(0) for a in alphas]])[0], batch.labels)
        for alpha, slope in zip(alphas, torch.autograd.grad(value, alphas), strict=True):
            alpha.grad = slope
        adam.step()
        assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(alphas, step.after, strict=True))
        sgd.zero_grad()
        mixture = [a.detach().softmax(0) for a in alphas]
        assert all(torch.allclose(a, b) for a, b in zip(step.archs[0], mixture, strict=True))
        F.cross_entropy(net(step.batch.images.double(), [mixture])[0], step.batch.labels).backward()
        sgd.param_groups[0]["lr"] = step.rates[0]
        sgd.step()
    for mine, its in zip(net.parameters(), run.net.parameters(), strict=True):
        assert torch.allclose(mine, its, rtol=1e-10, atol=1e-12)


def start(trained: Trained) -> Any:
    """The weights that the run began with."""
    run = trained.run
    run._stage = "train"
    saved = [a.detach().clone() for a in trained.method._alphas]
    net = copy.deepcopy(run.hook.build_supernet(run=run))
    for alpha, value in zip(trained.method._alphas, saved, strict=True):
        alpha.data.copy_(value)
    return net


@pytest.mark.invariant("darts-v1", 2)
def test_the_two_levels_share_no_image(train: Train) -> None:
    trained = train("darts-v1", train={"epochs": 2})
    run = trained.run
    run._stage = "train"
    training = {image.numpy().tobytes() for image in run.data.train.images}
    validation = {image.numpy().tobytes() for image in run.data.valid.images}
    assert not training & validation
    run.step = 0
    seen = validation_batch(run)
    run.step = 1
    both = torch.cat([seen.labels, validation_batch(run).labels])
    assert both.bincount().equal(run.data.valid.labels.bincount())  # two batches of 50 are all of them, once


@pytest.mark.invariant("darts-v1", 3)
def test_the_architecture_is_what_the_space_reads_off_alpha(train: Train) -> None:
    for space in ("tiny", "nb201", "darts"):
        trained = train("darts-v1", space, train={"epochs": 1})
        run = trained.run
        (choice,) = run.hook.select(run=run)
        assert choice.arch == run.space.discretize([a.softmax(0) for a in trained.method._alphas])
        assert choice.arch in run.space
        if space != "darts":
            assert choice.arch == tuple(int(a.argmax()) for a in trained.method._alphas)


@pytest.mark.invariant("darts-v1", 4)
def test_the_rate_falls_from_eta_to_lr_min(train: Train) -> None:
    sets = {"epochs": 4, "lr": 0.025}
    steps = train("darts-v1[lr_min=0.001]", train=sets).steps
    plain = train("darts-v1", train=sets, seed=1).steps
    assert steps[0].rates == [pytest.approx(0.025)]
    assert steps[8].rates == [pytest.approx((0.025 + 0.001) / 2)]  # of 16
    for a, b in zip(steps, plain, strict=True):
        assert a.rates[0] == pytest.approx(0.001 + (0.025 - 0.001) * b.rates[0] / 0.025)
    with pytest.raises(BadInput, match=r"lr_min = 0\.1 is above train\.lr = 0\.025"):
        train("darts-v1[lr_min=0.1]", train=sets)


@pytest.mark.invariant("darts-v1", 5)
@pytest.mark.parametrize("modifier", ["ms", "calr"])
def test_what_is_about_single_subnets_is_refused_for_mixtures(train: Train, modifier: str) -> None:
    with pytest.raises(BadInput, match=f"{modifier} is about single subnets, and darts-v1.* trains mixtures"):
        train(f"darts-v1+{modifier}")


@pytest.mark.parametrize("method", ["darts-v1", "gdas", "setn"])
def test_edges_with_any_number_of_operations_are_for_methods_that_prune(begin: Train, method: str) -> None:
    with pytest.raises(BadInput, match="in this variant of darts an edge has any number"):
        begin(method, "darts", darts={"variant": "free"})


@pytest.mark.parametrize("method", ["setn", "enas", "random-ws"])
def test_what_is_about_single_subnets_works_with_them(train: Train, method: str) -> None:
    trained = train(f"{method}+calr+ms", train={"epochs": 1})
    assert all(isinstance(arch, tuple) for step in trained.steps for arch in step.archs)


def test_no_gradient_of_alpha_reaches_the_weights_step(train: Train) -> None:
    for step in train("darts-v1", train={"epochs": 1}).steps:
        assert not any(weights.requires_grad for weights in step.archs[0])


def test_gumbel_noise_draws_each_option_with_its_softmax_probability(inside: Any) -> None:
    alphas = [torch.tensor([0.0, 1.0, -1.0, 0.5], dtype=torch.float64)]

    def count(trained: Trained) -> torch.Tensor:
        drawn = [int((alphas[0] + gumbel(trained.run, f"{i}", alphas)[0]).argmax()) for i in range(4000)]
        return torch.bincount(torch.tensor(drawn), minlength=4)

    expected = 4000 * alphas[0].softmax(0)
    counts = inside("darts-v1", count)
    # Chi-squared with 3 degrees of freedom: above 16.27 in one draw of a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 16.27


def test_the_gradient_of_what_has_no_part_is_zero(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        mixture = [torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        extra = torch.ones(2, dtype=torch.float64, requires_grad=True)
        return gradient(loss(trained.run, validation_batch(trained.run), mixture), [*mixture, extra])

    *used, unused = inside("darts-v1", look)
    assert all(g.any() for g in used)
    assert unused.tolist() == [0, 0]
