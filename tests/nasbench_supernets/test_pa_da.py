"""PA&DA: operations and images drawn in proportion to the norm of their gradients."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nasbench_supernets.pa_da import PADA, mix
from nasbench_tiny.tiny import OPERATIONS, Tiny

from nasbench import Arch, BadInput, Run
from nasbench.recipe import resolve
from tests.nasbench_oneshot.conftest import Train, Trained
from tests.nasbench_supernets.refused import train_refused

LONG = {"epochs": 5, "batch_size": 10}  # 20 steps an epoch


@pytest.mark.invariant("pa-da", 1)
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=9), st.floats(0, 1))
def test_probabilities_are_the_share_of_the_norms_and_a_uniform_rest(norms: list[float], share: float) -> None:
    found = mix(torch.tensor(norms, dtype=torch.float64), share).tolist()
    n, total = len(norms), sum(norms)
    for p, norm in zip(found, norms, strict=True):
        assert p == pytest.approx(share * norm / total + (1 - share) / n if total else 1 / n)
    assert sum(found) == pytest.approx(1)


def owner(name: str) -> tuple[int, str] | None:
    """Whose a parameter of the tiny supernet is: layer and operation, or nobody's."""
    part = name.split(".")
    return (int(part[1]), OPERATIONS[int(part[2]) + 1]) if part[0] == "layers" else None


def mean_norms(trained: Trained, epoch: int, per: str = "operation") -> dict[str, float]:
    """By hand: over the steps of an epoch that had an operation, its gradients' summed norms a place."""
    found = defaultdict[str, list[float]](list)
    for step in trained.steps[20 * epoch : 20 * (epoch + 1)]:
        sums, places = defaultdict[str, float](float), Counter[str]()
        for layer, option in enumerate(step.archs[0]):
            places[OPERATIONS[option] if per == "operation" else f"layer{layer}={OPERATIONS[option]}"] += 1
        for name, grad in step.grads.items():
            if own := owner(name):
                sums[own[1] if per == "operation" else f"layer{own[0]}={own[1]}"] += float(grad.norm())
        for key, times in places.items():
            found[key].append(sums[key] / times)
    return {key: sum(values) / len(values) for key, values in found.items()}


@pytest.mark.invariant("pa-da", 2)
@pytest.mark.parametrize("per", ["operation", "decision"])
def test_a_path_is_weighed_by_the_mean_norm_of_its_operations_gradients(train: Train, per: str) -> None:
    trained = train(f"pa-da[per={per}]", train=LONG)
    plugin: Any = trained.run.plugins["pa-da"]
    expected: dict[str, float] = {}
    for epoch in range(1, 5):
        expected |= mean_norms(trained, epoch, per)
    assert plugin._norms == pytest.approx(expected)
    assert len(expected) == (3 if per == "operation" else 9)
    assert all((value == 0) == ("skip" in key) for key, value in expected.items())


@pytest.mark.invariant("pa-da", 3)
def test_a_parameter_belongs_to_the_operation_in_all_subnets_that_use_it(train: Train) -> None:
    """On NAS-Bench-201 as well, where an operation may lie idle in a subnet that has it."""
    plugin: Any = train("pa-da", train=LONG).run.plugins["pa-da"]
    assert plugin._owners
    for name, keys in plugin._owners.items():
        own = owner(name)
        assert keys == ([own[1]] if own else [])
    cells: Any = train("pa-da", "nb201", train={"epochs": 8, "batch_size": 1}).run.plugins["pa-da"]
    for name, keys in cells._owners.items():
        kernel = name.split(".")[-2]
        assert keys == ([f"nor_{kernel.replace('conv', 'conv_')}"] if ".edges." in name else [])
    assert sum(".edges." in name for name in cells._owners) == 3 * 6 * 2


@pytest.mark.invariant("pa-da", 4)
def test_an_operation_is_drawn_by_its_norm_the_more_so_the_later() -> None:
    plugin, space = PADA(), Tiny()
    plugin._norms = {"skip": 0.0, "linear": 3.0, "bottleneck": 1.0}
    asked: list[list[float]] = []

    def choices(options: Any, weights: list[float]) -> list[int]:
        asked.append(weights)
        return [options[0]]

    run: Any = SimpleNamespace(space=space, recipe=SimpleNamespace(train=SimpleNamespace(epochs=4)), epoch=0)
    run.rng = lambda purpose: SimpleNamespace(choices=choices)
    for run.epoch, expected in [(0, [1 / 3] * 3), (1, [1 / 4, 7 / 16, 5 / 16]), (3, [1 / 12, 31 / 48, 13 / 48])]:
        asked.clear()
        assert plugin.sample_archs(run) == [(0, 0, 0)]
        assert [pytest.approx(weights) for weights in asked] == [expected] * 3


def image_norms(
    trained: Trained, rows: list[torch.Tensor], epoch: int, of: int = 20
) -> tuple[torch.Tensor, torch.Tensor]:
    """By hand: for each image how often an epoch drew it, and the sum of the norms of softmax minus one-hot."""
    times, total = torch.zeros(200), torch.zeros(200, dtype=torch.float64)
    net = copy.deepcopy(trained.start)
    for step, drawn in list(zip(trained.steps, rows, strict=True))[of * epoch : of * (epoch + 1)]:
        net.load_state_dict(step.before)
        with torch.no_grad():
            wrong = net(step.batch.images.double(), step.archs)[0].softmax(1)
        for i, row in enumerate(drawn.tolist()):
            wrong[i, step.batch.labels[i]] -= 1
            times[row] += 1
            total[row] += wrong[i].square().sum().sqrt()
    return times, total


@pytest.fixture
def rows() -> list[torch.Tensor]:
    """Filled by `remember`: the images of each step."""
    return []


@pytest.mark.invariant("pa-da", 5)
@pytest.mark.parametrize("unseen", ["keep", "zero"])
def test_an_image_is_weighed_by_the_norm_of_softmax_minus_one_hot(
    train: Train, rows: list[torch.Tensor], unseen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    multinomial = torch.multinomial

    def spy(chances: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        asked.append(chances)
        return multinomial(chances, *args, **more)

    monkeypatch.setattr(torch, "multinomial", spy)

    def remember(run: Run, archs: list[Arch]) -> list[Arch]:
        rows.append(run.plugins["pa-da"]._rows.clone())  # type: ignore[attr-defined]
        return archs

    trained = train(f"pa-da[unseen={unseen}]", train={**LONG, "epochs": 4}, force=remember)
    assert torch.cat(rows[:20]).sort()[0].equal(torch.arange(200))  # the first epoch sees every image once
    norm = torch.zeros(200, dtype=torch.float64)
    for epoch in range(3):
        times, total = image_norms(trained, rows, epoch)
        norm = torch.where(times > 0, total / times, norm if unseen == "keep" else torch.zeros_like(norm))
        share = (epoch + 1) / 4
        expected = share * norm / norm.sum() + (1 - share) / 200
        torch.testing.assert_close(asked[20 * epoch], expected)
    assert int(times.eq(0).sum()) > 20  # some were not drawn, and then make the difference


@pytest.mark.invariant("pa-da", 6)
def test_each_step_trains_one_subnet_and_the_first_epoch_is_uniform(train: Train) -> None:
    trained = train("pa-da", "nb201", train={"epochs": 8, "batch_size": 1})
    assert {len(step.archs) for step in trained.steps} == {1}
    first = Counter(option for step in trained.steps[:40] for option in step.archs[0])
    last = Counter(option for step in trained.steps[-40:] for option in step.archs[0])
    # 240 options uniformly among five; in the end 7/8 and a fifth of the rest go to either convolution.
    assert all(24 < first[option] < 72 for option in range(5))
    assert last[2] + last[3] > 0.8 * last.total()


def test_what_it_cannot_weigh_is_refused(train: Train) -> None:
    with pytest.raises(BadInput, match="mgcs compares gradients of a plain step's losses, and pa-da has others"):
        train_refused("pa-da+mgcs")
    with pytest.raises(BadInput, match="pa-da trains one subnet a step, and 2 were drawn"):
        train("pa-da", force=lambda run, archs: archs * 2)


def test_the_paper_preset() -> None:
    t = resolve("pa-da", "nb201", preset="paper", target="cifar10").train
    assert (t.lr, t.momentum, t.nesterov, t.weight_decay, t.clip) == (0.05, 0.9, False, 2.5e-4, 5)
    assert (t.epochs, t.batch_size, t.schedule) == (250, 256, "cosine")
