"""Whole runs with `engine.static`: the same subnets, as one pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nasbench import BadInput, static
from nasbench.machine import resolve_engine
from nasbench.oneshot import score_subset
from nasbench.recipe import resolve
from tests.nasbench_oneshot.conftest import Train, Trained

METHODS = ("spos", "fairnas", "fairnas+calr+ms")


def assert_same(plain: Trained, other: Trained) -> None:
    """The same subnets, gradients of the same parameters, and the same weights in the end."""
    assert other.run.static is not None
    assert [s.archs for s in plain.steps] == [s.archs for s in other.steps]
    assert all(a.grads.keys() == b.grads.keys() for a, b in zip(plain.steps, other.steps, strict=True))
    assert all(torch.allclose(w, other.weights[n], rtol=1e-10, atol=1e-10) for n, w in plain.weights.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_static_pass_trains_the_same_supernet(train: Train, method: str) -> None:
    assert_same(train(method, "nb201"), train(method, "nb201", engine={"static": "eager"}))


def test_a_space_without_a_static_pass_refuses(train: Train) -> None:
    with pytest.raises(
        BadInput, match=r"engine.static = eager needs a supernet with a static pass, and tiny's has none"
    ):
        train("fairnas", "tiny", engine={"static": "eager"})


def test_nothing_is_recorded_on_a_cpu(train: Train) -> None:
    with pytest.raises(BadInput, match=r"recorded makes CUDA graphs, and the run is on cpu; use off or eager"):
        train("fairnas", "nb201", engine={"static": "recorded"})


class Again:
    """Stands for a CUDA graph: does it again instead of replaying it."""

    pool = None

    def __init__(self, function: Callable[[], torch.Tensor], pool: None = None) -> None:
        self.function, self.grad, self.result = function, torch.is_grad_enabled(), function().clone()

    def __call__(self) -> torch.Tensor:
        with torch.set_grad_enabled(self.grad):
            result = self.function()
        return self.result.copy_(result)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where recordings are made; on a CPU all but the graphs themselves is exercised."""
    if request.param == "cpu":
        monkeypatch.setattr(static, "Graph", Again)
        monkeypatch.setattr(static, "shared_pool", lambda: None)
        monkeypatch.setattr(static, "warm_up", lambda function: function())
        monkeypatch.setattr(static, "refuse", lambda run: None)
    return str(request.param)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("method", METHODS)
def test_a_recorded_pass_trains_and_scores_the_same_supernet(
    train: Train, device: str, method: str, layout: str
) -> None:
    """Also with a smaller last batch in each epoch, which is recorded too."""
    engine, sets = {"memory_format": layout}, {"data": {"train_images": 50}, "score": {"batch_size": 3}}
    plain = train(method, "nb201", device=device, engine=engine, **sets)
    other = train(method, "nb201", device=device, engine={**engine, "static": "recorded"}, **sets)
    assert_same(plain, other)
    assert len(other.run.data.batches("valid", 3)) > static.WORTH_RECORDING
    assert other.run.static is not None
    assert len({key[0] for key in other.run.static.recordings}) == 2
    for each in (plain, other):
        score_subset(each.run)
    assert plain.run.scores == other.run.scores


def test_gradients_may_come_late_and_twice(train: Train, device: str) -> None:
    """A pass is replayed again where another came between, but not with other weights."""
    run = train("spos", "nb201", device=device, engine={"static": "recorded"}).run
    weight, images = run.net.head.weight, [batch.images for batch in run.data.batches("valid", 10)]
    archs = [run.space.sample(run.rng("test"))]
    losses = [run.forward(each, archs).square().sum() for each in images]
    found = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (*losses, losses[0])]
    plain = [torch.autograd.grad(run.net(each.double(), archs).square().sum(), weight)[0] for each in images]
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(found, [*plain, plain[0]], strict=True))
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="weights have changed"):
        losses[0].backward()


def test_auto_is_off_on_a_cpu() -> None:
    recipe = resolve("spos", "nb201", dataset="digits", preset="paper")
    assert recipe.engine.static == "auto"
    assert resolve_engine(recipe).engine.static == "off"


@pytest.mark.gpu
@pytest.mark.parametrize(("space", "expected"), [("nb201", "recorded"), ("tiny", "off")])
def test_auto_records_on_a_gpu_where_the_space_has_a_static_pass(space: str, expected: str) -> None:
    recipe = resolve("spos", space, preset="test", device="cuda", sets={"engine": {"static": "auto"}})
    assert resolve_engine(recipe).engine.static == expected
