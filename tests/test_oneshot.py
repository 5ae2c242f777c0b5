"""The default plugin: what a run does where no method says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from nasbench import Arch, Run, hookimpl
from nasbench.data import Batch
from nasbench.errors import BadInput
from nasbench.harness import prepare
from nasbench.oneshot import Defaults, places_rates_inside, score_subset
from nasbench.recipe import TrainSettings, resolve
from tests.conftest import RunTiny

Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run on tiny that has not begun: `make("spos", train={"epochs": 1})`."""

    def make_(method: str = "spos", *observers: object, seed: int = 0, **sets: dict[str, Any]) -> Run:
        recipe = resolve(method, "tiny", preset="test", seed=seed, sets=sets)
        return prepare(recipe, tmp_path / "runs", observers)[0]

    return make_


# ---------------------------------------------------------------------- the loop


class Log:
    """Writes down which hooks were called, in order."""

    priority = 0

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.epochs: list[int] = []

    @hookimpl(wrapper=True)
    def train(self) -> Any:
        self.calls.append("train")
        return (yield)

    @hookimpl(wrapper=True)
    def select(self) -> Any:
        self.calls.append("select")
        return (yield)

    @hookimpl(wrapper=True)
    def train_step(self) -> Any:
        self.calls.append("train_step")
        return (yield)

    @hookimpl(wrapper=True)
    def score(self, archs: list[Arch]) -> Any:
        self.calls.append(f"score {len(archs)}")
        return (yield)

    @hookimpl
    def after_epoch(self, run: Run) -> None:
        self.calls.append("after_epoch")
        self.epochs.append(run.epoch)


def test_a_search_trains_in_epochs_and_then_scores_the_subset(make: Make) -> None:
    log = Log()
    run = make("spos", log, score={"together": 10})
    run.hook.search(run=run)
    epoch = ["train_step"] * 4 + ["after_epoch"]  # 200 images in batches of 50
    assert log.calls == ["train", *epoch, *epoch, "select", "score 10", "score 10", "score 7"]
    assert log.epochs == [0, 1]


def test_the_best_score_is_chosen_and_the_first_of_equals(make: Make) -> None:
    class Scores:
        priority = 0

        @hookimpl(wrapper=True)
        def score(self, archs: list[Arch]) -> Any:
            yield
            return [float(sum(arch) == 4) for arch in archs]

    run = make("spos", Scores())
    (choice,) = run.hook.search(run=run)
    assert choice.arch == (0, 2, 2)
    assert len(run.scores) == 27
    assert sum(run.scores.values()) == 6


def test_scores_do_not_depend_on_how_many_are_scored_together(make: Make) -> None:
    found = []
    for together in (1, 4, 27):
        run = make("spos", score={"together": together, "batch_size": 30})
        run.hook.train(run=run)
        found.append(score_subset(run))
    assert found[0] == found[1] == found[2]


def test_a_score_is_the_share_of_validation_images_that_are_right(make: Make) -> None:
    run = make("spos", score={"batch_size": 30})
    run.hook.train(run=run)
    arch, right = (1, 0, 2), 0
    for batch in run.data.batches("valid", 30):
        right += int((run.net(batch.images, [arch])[0].argmax(1) == batch.labels).sum())
    assert run.hook.score(run=run, archs=[arch, arch]) == [right, right]  # of 100 images


# ---------------------------------------------------------------------- batches, networks, optimizers


def test_an_epoch_shows_every_image_once_and_each_epoch_in_another_order(make: Make) -> None:
    run = make("spos", train={"batch_size": 30})
    assert run.steps_per_epoch == 7
    everything = run.data.training_batch(torch.arange(200), torch.Generator()).images.flatten(1).sum(1)
    orders = []
    for epoch in range(2):
        seen = []
        for run.step in range(epoch * 7, epoch * 7 + 7):
            seen.append(run.hook.next_batch(run=run).images.flatten(1).sum(1))
        assert [len(part) for part in seen] == [30] * 6 + [20]
        orders.append(torch.cat(seen))
        assert torch.equal(orders[-1].sort().values, everything.sort().values)
    assert not torch.equal(orders[0], orders[1])


def test_augmentation_draws_anew_at_every_step_and_the_same_at_the_same(make: Make) -> None:
    run = make("spos", data={"augment": ["flip", "crop", "cutout"]}, train={"batch_size": 200})
    images = []
    for run.step in (0, 0, 1):
        images.append(run.hook.next_batch(run=run).images)
    assert torch.equal(images[0], images[1])
    rows = [x.flatten(1).sum(1).sort().values for x in (images[0], images[2])]
    assert not torch.equal(*rows)


def test_the_supernet_is_seeded_and_leaves_the_global_generator_alone(make: Make) -> None:
    def weights(seed: int, noise: int) -> torch.Tensor:
        torch.manual_seed(noise)
        before = torch.random.get_rng_state()
        run = make("spos", seed=seed)
        net = run.hook.build_supernet(run=run)
        assert torch.equal(torch.random.get_rng_state(), before)
        return torch.cat([p.flatten() for p in net.parameters()])

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(1, 1))


def test_the_optimizer_is_sgd_with_the_recipes_settings(make: Make) -> None:
    run = make("spos", train={"lr": 0.3, "momentum": 0.8, "nesterov": False, "weight_decay": 0.01})
    run.net = run.hook.build_supernet(run=run)
    optimizer = run.hook.make_optimizer(run=run)
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.SGD
    assert {k: group[k] for k in ("lr", "momentum", "nesterov", "weight_decay", "dampening")} == {
        "lr": 0.3,
        "momentum": 0.8,
        "nesterov": False,
        "weight_decay": 0.01,
        "dampening": 0,
    }
    assert {id(p) for p in group["params"]} == {id(p) for p in run.net.parameters()}


# ---------------------------------------------------------------------- one step


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [("cosine", (1, 0.75, 0.5, 0.25)), ("linear", (1, 2 / 3, 0.5, 1 / 3)), ("constant", (1,) * 4)],
)
def test_schedules(schedule: str, shares: tuple[float, ...]) -> None:
    train = TrainSettings(lr=0.2, schedule=schedule)  # type: ignore[arg-type]
    for progress, share in zip((0, 1 / 3, 1 / 2, 2 / 3), shares, strict=True):
        run: Any = SimpleNamespace(progress=progress, recipe=SimpleNamespace(train=train))
        assert Defaults().learning_rates(run, [(0,), (1,)]) == [pytest.approx(0.2 * share)] * 2


@pytest.mark.parametrize(
    ("method", "placement", "n", "inside"),
    [
        ("spos", "auto", 1, False),
        ("spos+calr", "auto", 1, False),
        ("fairnas", "auto", 3, False),
        ("fairnas+ms", "auto", 3, False),
        ("fairnas+calr", "auto", 3, True),
        ("fairnas+calr+ms", "auto", 3, True),
        ("fairnas+calr", "outside", 3, False),
        ("spos+calr", "inside", 1, True),
        ("fairnas", "inside", 3, True),
    ],
)
def test_where_the_rate_stands(make: Make, method: str, placement: str, n: int, inside: bool) -> None:
    run = make(method, train={"rate_placement": placement})
    assert len(run.hook.sample_archs(run=run)) == n
    assert places_rates_inside(run, n) == inside


def trained_with(**settings: Any) -> Any:
    """Enough of a run for what only reads the settings of training."""
    return SimpleNamespace(recipe=SimpleNamespace(train=TrainSettings(**settings)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_cross_entropy_of_each_subnet(smoothing: float) -> None:
    logits, labels = torch.randn(3, 4, 5), torch.tensor([0, 1, 4, 1])
    run = trained_with(label_smoothing=smoothing)
    losses = Defaults().compute_loss(run, logits, Batch(torch.empty(4), labels), [])
    target = (1 - smoothing) * F.one_hot(labels, 5) + smoothing / 5
    assert torch.allclose(losses, -(target * logits.log_softmax(-1)).sum(-1).mean(1))


def test_the_loss_honours_a_class_mask() -> None:
    logits, labels = torch.randn(2, 3, 4), torch.tensor([0, 2, 2])
    mask = torch.tensor([[True, False, True, False]] * 3)
    run, batch = trained_with(), Batch(torch.empty(3), labels, mask)
    losses = Defaults().compute_loss(run, logits, batch, [])
    part = torch.stack([F.cross_entropy(one[:, [0, 2]], labels // 2) for one in logits])
    assert torch.allclose(losses, part)
    everyone = Batch(torch.empty(3), labels, torch.ones(3, 4, dtype=torch.bool))
    assert not torch.allclose(losses, Defaults().compute_loss(run, logits, everyone, []))
    with pytest.raises(BadInput, match=r"label_smoothing = 0.1 gives weight to classes that take no part"):
        Defaults().compute_loss(trained_with(label_smoothing=0.1), logits, batch, [])


@pytest.mark.parametrize(("clip", "norm"), [(None, 20.0), (5.0, 5.0), (50.0, 20.0)])
def test_the_gradients_norm_is_clipped_over_all_parameters(clip: float | None, norm: float) -> None:
    net = torch.nn.Linear(3, 1)  # four numbers
    for p in net.parameters():
        p.grad = torch.full_like(p, 10.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    before = torch.cat([p.detach().flatten() for p in net.parameters()])
    run: Any = SimpleNamespace(net=net, optimizer=optimizer, recipe=SimpleNamespace(train=TrainSettings(clip=clip)))
    assert Defaults().update(run, [])
    after = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert (before - after).norm().item() == pytest.approx(norm, rel=1e-5)


def test_a_run_learns(run_tiny: RunTiny) -> None:
    record = run_tiny("spos", "train.epochs=8", "train.batch_size=20")
    top1 = {m["name"]: m["value"] for m in record["results"][0]["metrics"]}["top1"]
    assert top1 > 85


def test_the_cosine_ends_where_pytorchs_does() -> None:
    """Step by step, to 0 after the last: torch's own schedule as a reference."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    train = TrainSettings(lr=0.1)
    for step in range(40):
        run: Any = SimpleNamespace(progress=step / 40, recipe=SimpleNamespace(train=train))
        assert Defaults().learning_rates(run, [()]) == [pytest.approx(schedule.get_last_lr()[0], abs=1e-12)]
        optimizer.step()
        schedule.step()
