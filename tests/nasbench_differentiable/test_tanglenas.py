"""TangleNAS: a mixture of slices is one weight, one pass trains all, and alpha follows the validation loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_differentiable.relaxation import gradient, loss, validation_batch

from nasbench import BadInput
from nasbench.harness import prepare
from nasbench.recipe import resolve
from tests.nasbench_differentiable.conftest import Train, Trained


def padded(slice_: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """A leading slice with zeros where the whole goes on."""
    found = torch.zeros_like(whole)
    found[tuple(slice(n) for n in slice_.shape)] = slice_
    return found


@pytest.mark.invariant("tanglenas", 1)
def test_a_mixture_of_slices_is_their_weighted_sum(inside: Any) -> None:
    """Of a transformer's query, over embedding dimensions and heads, and of a depthwise kernel."""

    def transformer(trained: Trained) -> Any:
        net, (mixture,) = trained.run.net, trained.method.sample_archs(trained.run)
        space, whole = trained.run.space, net.layers[3].query.weight
        wanted = sum(
            mixture[0][e] * mixture[2 + 14 + 3][h] * padded(whole[: heads * space.head, :embed], whole)
            for e, embed in enumerate(space.embeds)
            for h, heads in enumerate((3, 4))
        )
        return net.weighted(mixture)["layers.3.query.weight"], wanted

    found, wanted = inside("tanglenas", transformer, "autoformer-tiny")
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)

    def convolution(trained: Trained) -> Any:
        (mixture,) = trained.method.sample_archs(trained.run)
        block = trained.run.net.units[0][0]
        whole = block.depthwise.weight
        wanted = sum(
            w * F.pad(whole[:, :, c : -c or None, c : -c or None], [c] * 4)
            for w, c in zip(mixture[0], (2, 1, 0), strict=True)
        )
        return block.kernel(mixture[0]), wanted

    found, wanted = inside("tanglenas", convolution, "mobilenetv3")
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.invariant("tanglenas", 2)
def test_one_pass_of_the_largest_network_computes_all(inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(trained: Trained) -> int:
        linear, calls = F.linear, list[int]()
        with monkeypatch.context() as patch:
            patch.setattr(F, "linear", lambda *a: calls.append(1) or linear(*a))
            loss(trained.run, validation_batch(trained.run), trained.method.mixture(trained.run, "valid"))
        return len(calls)

    assert inside("tanglenas", look, "autoformer-tiny") == 6 * 14 + 1


@pytest.mark.invariant("tanglenas", 3)
@pytest.mark.parametrize("space", ["autoformer-tiny", "mobilenetv3"])
def test_alpha_follows_adam_on_the_validation_loss(inside: Any, space: str) -> None:
    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        before = [a.detach().clone() for a in method._alphas]
        leaves = [b.clone().requires_grad_() for b in before]
        weights = run.space.nested([leaf.softmax(0) for leaf in leaves])
        slopes = gradient(loss(run, validation_batch(run), weights), leaves)
        run.hook.train_step(run=run, batch=run.hook.next_batch(run=run))
        return before, [a.detach() for a in method._alphas], slopes

    moved = 0
    for before, after, slope in zip(*inside("tanglenas", look, space), strict=True):
        slope = slope + 1e-3 * before  # the decay of alpha
        wanted = before - 3e-4 * slope / (slope.abs() + 1e-8)  # Adam's first step
        assert torch.allclose(after, wanted, rtol=0, atol=1e-12)
        moved += not before.equal(after)
    assert moved == len(resolved(space).decisions)


def resolved(space: str) -> Any:
    from nasbench.plugins import build, load

    return build(load("space", space), space, {})


@pytest.mark.invariant("tanglenas", 4)
def test_the_choice_is_the_heaviest_option_of_each_decision(train: Train) -> None:
    trained = train("tanglenas", "autoformer-tiny", train={"epochs": 1})
    (choice,) = trained.run.hook.select(run=trained.run)
    assert choice.arch == tuple(int(a.argmax()) for a in trained.method._alphas)
    assert choice.arch in trained.run.space


@pytest.mark.invariant("tanglenas", 5)
def test_a_dirichlet_draw_sums_to_one_and_has_a_gradient(begin: Train) -> None:
    trained = begin("tanglenas[sampling=dirichlet]", "autoformer-tiny")
    run, method = trained.run, trained.method
    run.net = run.hook.build_supernet(run=run)
    method._alphas[0].data.copy_(torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64))
    draws = []
    for run.step in range(400):
        mixture = method.mixture(run, "valid")
        assert float(mixture[0].detach().sum()) == pytest.approx(1)
        draws.append(mixture[0].detach())
    concentration = F.elu(method._alphas[0].detach()) + 1  # 2, 1, exp(-1/2)
    mean = torch.stack(draws).mean(0)
    assert torch.allclose(mean, concentration / concentration.sum(), atol=0.05)
    again = method.mixture(run, "valid")
    assert again[0].detach().equal(draws[-1])  # of the same step
    assert not method.mixture(run, "train")[0].detach().equal(draws[-1])
    assert gradient(again[0][0], method._alphas)[0].abs().min() > 0


@pytest.mark.invariant("tanglenas", 6)
def test_spaces_whose_options_have_weights_of_their_own_are_refused(tmp_path: Path) -> None:
    for space in ("nb201", "mobilenet", "tiny"):
        with pytest.raises(BadInput, match=f"options of {space} have weights of their own"):
            prepare(resolve("tanglenas", space, preset="test"), tmp_path)
    with pytest.raises(BadInput, match="calr is about single subnets"):
        prepare(resolve("tanglenas+calr", "autoformer-tiny", preset="test"), tmp_path)
