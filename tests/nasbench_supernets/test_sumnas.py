"""SUMNAS: paths adapt the same weights, and the supernet moves by the mean of where they went."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from nasbench import Arch, BadInput
from nasbench.recipe import resolve
from tests.nasbench_oneshot.conftest import Tensors, Train, Trained, algorithm, clone, close, cosine
from tests.nasbench_oneshot.test_calr import tiny_rate
from tests.nasbench_supernets.refused import train_refused

Rate = Callable[[Arch, float], float]


def outer(arch: Arch, t: float) -> float:
    """The outer rate: 1, falling to 0."""
    return cosine(arch, t, lr=1.0)


def reptile(
    trained: Trained, rate: Rate = outer, *, inside: bool = False, kept: bool = False, clip: float = 5
) -> Tensors:
    """The weights after the sampled paths, each two inner steps of torch's SGD; then one outer step, by hand."""
    net = copy.deepcopy(trained.start)
    adapted = copy.deepcopy(net)
    sgd: Any = torch.optim.SGD(adapted.parameters(), 0.05, 0.9)
    for step in trained.steps:
        mean, rates = dict[str, Any](), [rate(arch, step.progress) for arch in step.archs]
        for arch, r in zip(step.archs, rates, strict=True):
            adapted.load_state_dict(net.state_dict())
            if not kept:
                sgd = torch.optim.SGD(adapted.parameters(), 0.05, 0.9)
            for _ in range(2):
                sgd.zero_grad()
                F.cross_entropy(adapted(step.batch.images.double(), [arch])[0], step.batch.labels).backward()
                torch.nn.utils.clip_grad_norm_(adapted.parameters(), clip)
                sgd.step()
            for (name, new), old in zip(adapted.named_parameters(), net.parameters(), strict=True):
                if new.grad is not None:
                    went = (old - new).detach() / len(step.archs)
                    mean[name] = mean.get(name, 0) + went * (r if inside else 1)
        eta = sum(rates) / len(rates)
        with torch.no_grad():
            for name, p in net.named_parameters():
                if name in mean:
                    p -= mean[name] + eta * 4e-5 * p if inside else eta * (mean[name] + 4e-5 * p)
    return clone(dict(net.named_parameters()))


@pytest.mark.invariant("sumnas", 1)
def test_a_run_moves_by_the_mean_of_where_the_paths_went(train: Train) -> None:
    trained = train("sumnas", train={"epochs": 4})
    assert close(trained.weights, reptile(trained))
    assert trained.steps[0].group["lr"] == 1
    assert (trained.steps[0].group["momentum"], trained.steps[0].group["weight_decay"]) == (0, 4e-5)


@pytest.mark.invariant("sumnas", 2)
@pytest.mark.parametrize("inner_lr", [0.01, 0.2])
def test_one_inner_step_is_fairnas_at_another_rate(train: Train, inner_lr: float) -> None:
    """Then the mean of the moves is eta/n times the summed gradient."""
    label = f"sumnas[inner_steps=1,inner_momentum=0,inner_clip=null,inner_lr={inner_lr}]"
    trained = train(label, train={"epochs": 3})
    share = inner_lr / 3
    by_hand = algorithm(trained, lambda a, t: outer(a, t) * share, beta=0, decay=4e-5 / share)
    assert close(trained.weights, by_hand)
    fair = train("fairnas", train={"epochs": 3})
    assert [s.archs for s in trained.steps] == [s.archs for s in fair.steps]


@pytest.mark.invariant("sumnas", 3)
def test_every_path_starts_from_the_same_weights(train: Train) -> None:
    trained = train("sumnas", train={"epochs": 2})
    orders = copy.deepcopy(trained)
    for step in orders.steps:
        step.archs = step.archs[::-1]
    assert close(reptile(trained), reptile(orders))
    assert not close(reptile(trained, kept=True), reptile(orders, kept=True))


@pytest.mark.invariant("sumnas", 4)
def test_kept_buffers_are_one_inner_momentum_for_all_paths(train: Train) -> None:
    trained = train("sumnas[inner_buffers=kept]", train={"epochs": 3})
    assert close(trained.weights, reptile(trained, kept=True))
    assert not close(trained.weights, reptile(trained))


@pytest.mark.invariant("sumnas", 5)
def test_the_inner_gradients_are_clipped_the_outer_move_is_not(train: Train) -> None:
    trained = train("sumnas[inner_clip=0.1]", train={"epochs": 2})
    assert close(trained.weights, reptile(trained, clip=0.1))
    assert not close(trained.weights, reptile(trained))


@pytest.mark.invariant("sumnas", 6)
def test_calr_weighs_the_move_of_each_path_by_its_rate(train: Train) -> None:
    trained = train("sumnas+calr", train={"epochs": 3})
    assert close(trained.weights, reptile(trained, lambda a, t: tiny_rate(a, t) / 0.05, inside=True))
    assert len(set(trained.steps[5].rates)) > 1


@pytest.mark.invariant("sumnas", 7)
def test_every_operation_is_in_exactly_one_path_of_a_step(train: Train) -> None:
    for step in train("sumnas", "nb201", train={"epochs": 2}).steps:
        assert [sorted(column) for column in zip(*step.archs, strict=True)] == [[0, 1, 2, 3, 4]] * 6


def test_the_presets_are_those_of_the_outer_step() -> None:
    for preset in ("quick", "cpu", "paper"):
        recipe = resolve("sumnas", "nb201", preset=preset, target="cifar10")
        t, own = recipe.train, recipe.options["sumnas"]
        assert (t.lr, t.momentum, t.nesterov, t.weight_decay, t.clip) == (1.0, 0.0, False, 4e-5, None)
        assert (own["inner_steps"], own["inner_lr"], own["inner_momentum"], own["inner_clip"]) == (2, 0.05, 0.9, 5)
    assert (t.epochs, t.batch_size) == (250, 256)


def test_what_it_does_not_do_is_refused(train: Train) -> None:
    with pytest.raises(BadInput, match=r"leave train\.update_scope at subnet"):
        train_refused("sumnas", update_scope="all")
    with pytest.raises(BadInput, match="mgcs compares gradients of a plain step's losses, and sumnas has others"):
        train_refused("sumnas+mgcs")
