"""GDAS and SNAS: what a step samples, the temperatures, where the gradient goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_differentiable.gdas import straight_through
from nasbench_differentiable.relaxation import gradient, loss, validation_batch

from tests.nasbench_differentiable.conftest import Train, Trained

# ---------------------------------------------------------------------- GDAS


@pytest.mark.invariant("gdas", 1)
@pytest.mark.parametrize("space", ["tiny", "nb201", "darts"])
def test_one_operation_an_edge_and_nothing_else(train: Train, space: str) -> None:
    drawn = set()
    for step in train("gdas", space, train={"epochs": 1}).steps:
        (mixture,) = step.archs
        for weights in mixture:
            assert sorted(weights.tolist())[:-1] == [0.0] * (len(weights) - 1)
            assert float(weights.max()) == pytest.approx(1, abs=1e-12)
        drawn.add(tuple(int(w.argmax()) for w in mixture))
    assert len(drawn) > 1


@pytest.mark.invariant("gdas", 1)
def test_only_what_was_drawn_is_computed(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        run, ran = trained.run, []
        for cell in run.net.cells:
            for e, edge in enumerate(cell.edges):
                for op in edge.operations:
                    op.register_forward_hook(lambda *_, e=e: ran.append(e))
        mixture = trained.method.mixture(run, "train")
        loss(run, validation_batch(run), mixture)
        drawn = [mixture[:14], mixture[14:]]
        kinds = [place.reduces for place in run.space.places(final=False)]
        return ran, [e for r in kinds for e in range(14) if drawn[r][e].argmax() != 0]

    ran, wanted = inside("gdas", look, "darts")
    assert sorted(ran) == sorted(wanted)


@pytest.mark.invariant("gdas", 2)
def test_the_gradient_passes_the_hard_sample_as_if_it_were_soft() -> None:
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    slope = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    hard = straight_through(logits.softmax(0))
    assert hard.tolist() == [0, 0, 1]
    (mine,) = torch.autograd.grad((hard * slope).sum(), [logits])
    (soft,) = torch.autograd.grad((logits.softmax(0) * slope).sum(), [logits])
    assert mine.equal(soft)


@pytest.mark.invariant("gdas", 3)
def test_the_temperature_falls_epoch_by_epoch_from_10_to_a_tenth(begin: Train) -> None:
    trained = begin("gdas", train={"epochs": 12})
    run, found = trained.run, []
    assert run.steps_per_epoch == 4
    for run.step in range(48):
        found.append(trained.method.tau(run))
    assert found[:4] == [10] * 4
    assert found[-1] == pytest.approx(0.1)
    assert found[::4] == pytest.approx([10 - 0.9 * i for i in range(12)])
    one = begin("gdas", train={"epochs": 1})
    assert one.method.tau(one.run) == 10


@pytest.mark.invariant("gdas", 4)
def test_weights_and_alpha_see_samples_of_their_own(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        return [trained.method.mixture(trained.run, purpose) for purpose in ("train", "train", "valid")]

    one, again, other = ([int(w.argmax()) for w in mixture] for mixture in inside("gdas", look, "darts"))
    assert one == again != other


# ---------------------------------------------------------------------- SNAS


@pytest.mark.invariant("snas", 1)
def test_a_sample_is_a_distribution_over_every_edge_s_operations(train: Train) -> None:
    seen = set()
    for step in train("snas", "nb201", train={"epochs": 2}).steps:
        for weights in step.archs[0]:
            assert float(weights.sum()) == pytest.approx(1)
            assert bool((weights > 0).all())
            seen.add(tuple(weights.tolist()))
    assert len(seen) == 4 * 6  # never twice the same


@pytest.mark.invariant("snas", 2)
def test_one_backward_pass_of_the_training_loss_moves_weights_and_alpha(train: Train) -> None:
    """Adam's first step against the gradient that plain torch finds for the same sample."""
    trained = train("snas", train={"epochs": 1})
    step, run = trained.steps[0], trained.run
    rate = trained.method.arch_lr
    for before, after in zip(step.before, step.after, strict=True):
        assert torch.allclose((after - before).abs(), torch.full_like(before, rate), rtol=1e-3)  # sign of a gradient
    run._stage, run.step, run.total_steps = "train", 0, 4
    run.net = run.hook.build_supernet(run=run)  # the weights at the start
    alphas = [a.clone().requires_grad_() for a in step.before]
    trained.method._alphas = alphas
    logits = run.net(step.batch.images.double(), [trained.method.mixture(run, "train")])[0]
    slopes = gradient(F.cross_entropy(logits, step.batch.labels), alphas)
    for before, after, slope in zip(step.before, step.after, slopes, strict=True):
        assert torch.equal((after - before).sign(), -slope.sign())


@pytest.mark.invariant("snas", 3)
def test_the_temperature_falls_exponentially(begin: Train) -> None:
    trained = begin("snas[tau_max=2.0,tau_min=0.02]")
    run, run_tau = trained.run, trained.method.tau
    run.total_steps = 100
    found = []
    for run.step in (0, 50, 99):
        found.append(run_tau(run))
    assert found == pytest.approx([2, 0.2, 2 * 100**-0.99])


@pytest.mark.invariant("snas", 3)
def test_a_low_temperature_makes_samples_hard(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        trained.method.tau_max = trained.method.tau_min = 100.0
        soft = trained.method.mixture(trained.run, "train")
        trained.method.tau_max = trained.method.tau_min = 0.001
        return soft, trained.method.mixture(trained.run, "train")

    soft, hard = inside("snas", look, "darts")
    for a, b in zip(soft, hard, strict=True):
        assert torch.allclose(a, torch.full_like(a, 1 / 8), atol=0.02)
        assert int(a.argmax()) == int(b.argmax())
    assert sum(float(b.max()) > 0.999 for b in hard) >= 26
