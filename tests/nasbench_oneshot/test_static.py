"""Whole runs with `engine.static`: the same subnets, as one pass."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch

from nasbench import Arch, BadInput, Run, hookimpl, static
from nasbench.flat import FlatSGD
from nasbench.machine import resolve_engine
from nasbench.oneshot import score_subset
from nasbench.recipe import resolve
from tests.nasbench_oneshot.conftest import Train, Trained, close

METHODS = ("spos", "fairnas", "fairnas+calr+ms")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[static.Static]:
    """The static passes that runs have made; a run drops its own when its stage ends."""
    all_: list[static.Static] = []
    usual = static.Static
    monkeypatch.setattr(static, "Static", lambda *args: all_.append(usual(*args)) or all_[-1])
    return all_


def assert_same(plain: Trained, other: Trained) -> None:
    """The same subnets, gradients of the same parameters, and the same weights and momenta in the end."""
    assert [s.archs for s in plain.steps] == [s.archs for s in other.steps]
    assert all(a.grads.keys() == b.grads.keys() for a, b in zip(plain.steps, other.steps, strict=True))
    assert close(plain.weights, other.weights)
    for (_, mine), (_, theirs) in zip(plain.steps[-1].clones, other.steps[-1].clones, strict=True):
        assert close(mine, theirs)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ("tiny", "needs a supernet with a static pass, and tiny's has none"),
        ("nb201", "makes CUDA graphs, and the run is"),
    ],
)
def test_what_cannot_be_recorded_is_refused(train: Train, space: str, reason: str) -> None:
    with pytest.raises(BadInput, match=f"engine.static = recorded {reason}"):
        train("fairnas", space, engine={"static": "recorded"})


class Again:
    """Stands for a CUDA graph: does it again instead of replaying it."""

    pool = None

    def __init__(self, function: Callable[[], torch.Tensor], pool: None = None, purpose: str = "") -> None:
        self.function, self.grad, self.result = function, torch.is_grad_enabled(), function().clone()
        self.calls = 0

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        with torch.set_grad_enabled(self.grad):
            result = self.function()
        return self.result.copy_(result)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where recordings are made; on a CPU all but the graphs themselves is exercised."""
    if request.param == "cpu":
        monkeypatch.setattr(static, "Graph", Again)
        monkeypatch.setattr(static, "warm_up", lambda function: function())
        monkeypatch.setattr(static, "refuse", lambda run: None)
    return str(request.param)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("method", METHODS)
def test_a_recorded_pass_trains_and_scores_the_same_supernet(
    train: Train, device: str, made: list[static.Static], method: str, layout: str
) -> None:
    """Also with a smaller last batch in each epoch, which is recorded too."""
    engine, sets = {"memory_format": layout}, {"data": {"train_images": 50}, "score": {"batch_size": 3}}
    plain = train(method, "nb201", device=device, engine=engine, **sets)
    other = train(method, "nb201", device=device, engine={**engine, "static": "recorded"}, **sets)
    assert_same(plain, other)
    (passes,) = made
    assert len(passes.recordings) == 2
    if device == "cpu":
        assert sum(recording.graph.calls for recording in passes.recordings.values()) == len(other.steps)
    assert len(other.run.data.batches("valid", 3)) > static.WORTH_RECORDING
    for each in (plain, other):
        score_subset(each.run)
    assert plain.run.scores == other.run.scores


@pytest.mark.parametrize(
    "settings",
    [
        {"clip": 0.5, "nesterov": True, "weight_decay": 0.01},
        {"update_scope": "all", "weight_decay": 0.01},
        {"update_scope": "all", "clip": 0.5, "momentum": 0.0},
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_recorded_step_follows_the_settings(
    train: Train, device: str, made: list[static.Static], method: str, settings: dict[str, Any]
) -> None:
    plain = train(method, "nb201", device=device, train=settings)
    assert_same(plain, train(method, "nb201", device=device, train=settings, engine={"static": "recorded"}))
    assert made


@pytest.mark.parametrize("method", ["spos", "fairnas+calr+ms"])
def test_weights_that_no_output_depends_on_are_left_alone_by_either(train: Train, device: str, method: str) -> None:
    """Of a subnet without a path from its input only the head is trained."""

    def without_a_path(run: Run, archs: list[Arch]) -> list[Arch]:
        return [(0,) * len(archs[0])] * len(archs) if run.step % 2 else archs

    settings = {"weight_decay": 0.01}
    plain, other = (
        train(method, "nb201", device=device, train=settings, engine={"static": static_}, force=without_a_path)
        for static_ in ("off", "recorded")
    )
    assert_same(plain, other)
    assert plain.steps[1].grads.keys() == {"head.weight", "head.bias"}


@pytest.mark.parametrize("method", ["fsnas+calr+ms", "spos+mgcs", "spos+nsas", "sumnas", "cream"])
def test_methods_with_steps_of_their_own_are_the_same_recorded(train: Train, device: str, method: str) -> None:
    plain, other = (train(method, "nb201", device=device, engine={"static": each}) for each in ("off", "recorded"))
    nets = [{name: part.net for name, part in each.run.parts.items()} or {"": each.run.net} for each in (plain, other)]
    for name, net in nets[0].items():
        assert close(dict(net.named_parameters()), dict(nets[1][name].named_parameters()))


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_recorded_run_goes_on_as_if_it_had_not_been(train: Train, device: str, method: str) -> None:
    def kill(run: Run, archs: list[Arch]) -> list[Arch]:
        if run.step == 5:
            raise KeyboardInterrupt
        return archs

    settings = {"clip": 0.5, "nesterov": True, "epochs": 4}
    plain = train(method, "nb201", device=device, train=settings)
    engine = {"static": "recorded", "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        train(method, "nb201", device=device, train=settings, engine=engine, force=kill)
    resumed = train(method, "nb201", device=device, train=settings, engine=engine)
    assert len(resumed.steps) == len(plain.steps) - 5 > 2
    assert close(plain.weights, resumed.weights)
    for bank, buffers in plain.steps[-1].clones:
        if bank is plain.steps[-1].bank:
            assert close(buffers, resumed.buffers(resumed.steps[-1].bank))


class Scale:
    """Changes gradients before a step, in place or by putting others there."""

    @hookimpl(wrapper=True)
    def update(self, run: Run) -> Generator[None, bool, bool]:
        for i, p in enumerate(run.net.parameters()):
            if p.grad is not None and run.step % 2:
                p.grad = p.grad * (1 + i % 3)
            elif p.grad is not None:
                p.grad.mul_(1 + i % 3)
        return (yield)


class Look:
    """Asks for a gradient of its own where the loss is made."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    @hookimpl(wrapper=True)
    def compute_loss(self, run: Run) -> Generator[None, torch.Tensor, torch.Tensor]:
        losses = yield
        self.seen.append(torch.autograd.grad(losses.sum(), run.net.head.weight, retain_graph=True)[0])
        return losses


class More:
    """Adds the gradients of two more passes to those of a step, the first one's late and twice."""

    @hookimpl(wrapper=True)
    def update(self, run: Run, archs: list[Arch]) -> Generator[None, bool, bool]:
        losses = []
        for batch in run.data.batches("valid", 10)[:2]:
            logits = run.forward(batch.images, archs[::-1])
            losses.append(run.hook.compute_loss(run=run, logits=logits, batch=batch, archs=archs).sum())
        for loss in (*losses, losses[0]):
            loss.backward(retain_graph=True)
        answer = yield
        with pytest.raises(RuntimeError, match=r"weights have changed|modified by an inplace operation"):
            losses[0].backward()
        return answer


class Anew:
    """Makes another optimizer for each epoch: the weights move in memory."""

    @hookimpl
    def after_epoch(self, run: Run) -> None:
        run.optimizer = run.hook.make_optimizer(run=run)


class Freeze:
    """Trains some weights no longer after the first epoch."""

    @hookimpl
    def after_epoch(self, run: Run) -> None:
        run.net.stem.weight.requires_grad_(False)


@pytest.mark.parametrize("observer", [Scale, Look, More, Anew, Freeze])
@pytest.mark.parametrize("method", ["spos", "fairnas+calr+ms"])
def test_plugins_find_gradients_as_they_are_without_recording(
    train: Train, device: str, method: str, observer: type[Any]
) -> None:
    settings, watchers = {"clip": 0.5, "nesterov": True}, [observer(), observer()]
    plain, other = (
        train(method, "nb201", device=device, train=settings, engine={"static": static_}, observers=[watcher])
        for static_, watcher in zip(("off", "recorded"), watchers, strict=True)
    )
    assert_same(plain, other)
    if observer is Look:
        assert len(watchers[0].seen) == len(plain.steps)
        assert all(torch.allclose(a, b, rtol=1e-8) for a, b in zip(watchers[0].seen, watchers[1].seen, strict=True))


def test_only_where_a_plugin_may_ask_for_gradients_does_autograd_hand_them_out(
    train: Train, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, usual = [], FlatSGD.add
    monkeypatch.setattr(FlatSGD, "add", lambda *args: (given.append(1), usual(*args))[1])
    engine = {"static": "recorded"}
    assert len(train("spos", "nb201", device=device, engine=engine).steps) == len(given) > 0
    given.clear()
    train("spos", "nb201", device=device, seed=1, engine=engine, observers=[Look()])
    assert not given


def test_gradients_may_come_late_and_twice(train: Train, device: str) -> None:
    """A pass is replayed again where another came between, but not with other weights."""
    run = train("spos", "nb201", device=device, engine={"static": "recorded"}).run
    weight, images = run.net.head.weight, [batch.images for batch in run.data.batches("valid", 10)]
    archs = [run.space.sample(run.rng("test"))]
    losses = [run.forward(each, archs).square().sum() for each in images]
    found = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (*losses, losses[0])]
    plain = [torch.autograd.grad(run.net(each.double(), archs).square().sum(), weight)[0] for each in images]
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(found, [*plain, plain[0]], strict=True))
    last = run.forward(images[0], archs).sum()
    with torch.no_grad():
        weight.add_(1)
    for loss in (last, losses[0]):
        with pytest.raises(RuntimeError, match="weights have changed"):
            loss.backward()


def test_a_recorded_pass_is_the_static_one_in_bfloat16(train: Train, device: str) -> None:
    """What a GPU runs by default; the same kernels, so the same numbers, gradients included."""
    engine = {"precision": "bfloat16", "memory_format": "channels_last", "static": "recorded"}
    run = train("fairnas", "nb201", device=device, engine=engine).run
    images, archs = run.data.batches("valid", 10)[0].images, run.hook.sample_archs(run=run)
    kind, numbers = run.net.static_plan(archs)
    slopes = []
    for logits in (
        run.forward(images, archs),
        run.predict(lambda x: run.net.static(x, numbers.to(device), kind), images),
    ):
        run.net.zero_grad()
        logits.square().sum().backward()
        slopes.append({n: p.grad for n, p in run.net.named_parameters() if p.grad is not None and p.grad.any()})
    assert slopes[0].keys() == slopes[1].keys()
    assert all(torch.allclose(slope, slopes[1][n], rtol=1e-2, atol=1e-3) for n, slope in slopes[0].items())


def test_no_more_is_recorded_than_memory_is_kept_for(
    train: Train, device: str, made: list[static.Static], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "MOST_RECORDINGS", 1)
    sets = {"data": {"train_images": 50}}  # whose last batch is smaller
    plain = train("spos", "nb201", device=device, **sets)
    assert_same(plain, train("spos", "nb201", device=device, engine={"static": "recorded"}, **sets))
    assert len(made[0].recordings) == 1


def test_auto_is_off_on_a_cpu() -> None:
    recipe = resolve("spos", "nb201", dataset="digits", preset="paper")
    assert recipe.engine.static == "auto"
    assert resolve_engine(recipe).engine.static == "off"


@pytest.mark.gpu
@pytest.mark.parametrize(("space", "expected"), [("nb201", "recorded"), ("tiny", "off")])
def test_auto_records_on_a_gpu_where_the_space_has_a_static_pass(space: str, expected: str) -> None:
    recipe = resolve("spos", space, preset="test", device="cuda", sets={"engine": {"static": "auto"}})
    assert resolve_engine(recipe).engine.static == expected
