"""Retrain: the choice trained alone, by the plain loop, at the rates of either scheduler."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_cells.nb201 import NB201
from nasbench_oneshot.calr import decay_ratio
from nasbench_oneshot.retrain import Retrain

from nasbench import BadInput, Choice, Run, records
from nasbench.harness import prepare
from nasbench.networks import load_network
from nasbench.recipe import resolve
from tests.command import nasbench
from tests.conftest import RunTiny
from tests.nasbench_oneshot.conftest import clone, close, same

ARCH = (1, 0, 2)
Retrained = Callable[..., "tuple[Choice, torch.nn.Module, Run, list[tuple[Any, float]]]"]


@pytest.fixture
def retrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Retrained:
    """`retrain(scheduler="calr")` trains ARCH of tiny in float64: the choice, the net before, the run, the steps."""

    def start(method: str = "spos+retrain", **options: Any) -> Any:
        sets = {"retrain": options, "engine": {"precision": "float64"}}
        run, _ = prepare(resolve(method, "tiny", preset="test", sets=sets), tmp_path)
        steps, before = [], []
        plugin: Any = run.plugins["retrain"]
        rate, build = type(plugin).rate, type(run.space).build

        def seen(self: Any, run: Run, choice: Choice) -> float:
            found: float = rate(self, run, choice)
            steps.append((run.data.training_batch, found))
            return found

        def built(self: Any, arch: Any) -> Any:
            before.append(copy.deepcopy(net := build(self, arch)).double())
            return net

        monkeypatch.setattr(type(plugin), "rate", seen)
        monkeypatch.setattr(type(run.space), "build", built)
        training_batch, batches = run.data.training_batch, []
        run.data.training_batch = lambda *a: batches.append(training_batch(*a)) or batches[-1]  # type: ignore[method-assign, func-returns-value]
        choice = plugin.retrain(run, 0, Choice(ARCH, {"budget": "any"}, selected_on="a guess"))
        monkeypatch.undo()
        return choice, before[0], run, list(zip(batches, [r for _, r in steps], strict=True))

    return start


def by_hand(net: torch.nn.Module, steps: list[tuple[Any, float]]) -> dict[str, torch.Tensor]:
    """SGD with Nesterov momentum 0.9 and decay 5e-4 in plain PyTorch."""
    buffer: dict[str, Any] = {}
    for batch, rate in steps:
        net.zero_grad()
        F.cross_entropy(net(batch.images.double()), batch.labels).backward()
        with torch.no_grad():
            for name, p in net.named_parameters():
                g = p.grad + 5e-4 * p  # type: ignore[operator]
                buffer[name] = 0.9 * buffer[name] + g if name in buffer else g
                p -= rate * (g + 0.9 * buffer[name])
    return clone(dict(net.named_parameters()))


@pytest.mark.invariant("retrain", 1)
@pytest.mark.parametrize("scheduler", ["cosine", "calr"])
def test_it_is_the_plain_loop_from_fresh_weights(retrain: Retrained, scheduler: str) -> None:
    choice, net, run, steps = retrain(scheduler=scheduler, epochs=3)
    assert len(steps) == 3 * 4
    assert [len(batch.labels) for batch, _ in steps] == [50] * 12
    assert choice.network is not None
    assert close(clone(dict(choice.network.named_parameters())), by_hand(net, steps))
    assert run.net is None  # the supernet's place is as it was


@pytest.mark.invariant("retrain", 2)
def test_the_rates_are_those_of_the_scheduler(retrain: Retrained) -> None:
    rates = [rate for _, rate in retrain(epochs=3)[-1]]
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * t / 12)) / 2 for t in range(12)], rel=1e-14)
    assert (rates[0], rates[6]) == (0.1, pytest.approx(0.05))
    space = retrain(epochs=1)[2].space
    gamma = decay_ratio(space.cost(ARCH)["conv_weights"], *space.cost_range("conv_weights"), 4.0)
    assert 0.25 < gamma < 4
    rates = [rate for _, rate in retrain(epochs=3, scheduler="calr")[-1]]
    assert rates == pytest.approx([0.1 * (1 - t / 12) ** gamma for t in range(12)], rel=1e-14)
    gamma = decay_ratio(space.cost(ARCH)["conv_weights"], *space.cost_range("conv_weights"), 2.0)
    rates = [rate for _, rate in retrain("spos+retrain+calr[gamma_prime=2]", epochs=3, scheduler="calr")[-1]]
    assert rates == pytest.approx([0.1 * (1 - t / 12) ** gamma for t in range(12)], rel=1e-14)


@pytest.mark.invariant("retrain", 2)
def test_calr_on_nb201_keeps_a_large_network_fast(tmp_path: Path) -> None:
    run: Any = type("Run", (), {"space": NB201(), "plugins": {}, "progress": 0.5})
    plugin = Retrain(scheduler="calr")
    assert plugin.rate(run, Choice((3,) * 6)) == pytest.approx(0.1 * 0.5**0.25, rel=1e-14)
    assert plugin.rate(run, Choice((0,) * 6)) == pytest.approx(0.1 * 0.5**4, rel=1e-14)


@pytest.mark.invariant("retrain", 3)
@pytest.mark.parametrize("method", ["spos", "fsnas", "random-search", "spos+evolution[generations=2,population=4]"])
def test_the_record_has_both_phases_and_the_search_is_as_without(
    run_tiny: RunTiny, method: str, tmp_path: Path
) -> None:
    record, alone = run_tiny(f"{method}+retrain", "retrain.epochs=10"), run_tiny(method)
    search, again = record["results"]
    assert (search, search["phase"], again["phase"]) == (alone["results"][0], "search", "retrain")
    assert again["arch"] == search["arch"]
    measured = records.metric(record, "top1", 1)
    assert measured
    assert (measured["dataset"], measured["split"]) == ("digits", "test")
    (path,) = tmp_path.glob(f"runs/*{record['id']}/record.json")
    run, _ = prepare(resolve(method, "tiny", preset="test"), tmp_path / "other")
    network = load_network(run.space, run.space.parse(again["arch"]), path.parent / again["network"])
    right = sum(
        int((network(batch.images).argmax(-1) == batch.labels).sum()) for batch in run.data.batches("test", 256)
    )
    assert measured["value"] == 100 * right / len(run.data.test)  # type: ignore[arg-type]
    assert measured["value"] > 50  # ten classes: it has learnt


@pytest.mark.invariant("retrain", 4)
def test_seeds_and_stages_share_no_randomness(retrain: Retrained) -> None:
    _, net, run, steps = retrain(epochs=2)
    plugin: Any = run.plugins["retrain"]
    before = plugin.retrain(run, 1, Choice(ARCH)).network
    assert not same(clone(dict(before.named_parameters())), clone(dict(net.named_parameters())))
    first, second = ([batch.labels for batch, _ in steps[i : i + 4]] for i in (0, 4))
    assert not torch.cat(first).equal(torch.cat(second))  # each epoch in an order of its own
    assert torch.cat(first).bincount().equal(torch.cat(second).bincount())  # and over every image once


# ---------------------------------------------------------------------- what DARTS adds

#: 32x32 images, so that the auxiliary head fits; one reduction to three cells and four channels.
FINAL = {"channels": 2, "cells": 3, "final_channels": 4, "final_cells": 4, "auxiliary": True}
RECIPE = {"nesterov": False, "lr": 0.025, "weight_decay": 3e-4, "clip": 0.5, "auxiliary": 0.4, "drop_path": 0.2}


def retrain_darts(folder: Path, **options: Any) -> tuple[Run, Any]:
    sets = {"retrain": {**RECIPE, **options}, "darts": FINAL, "data": {"size": 32}, "engine": {"precision": "float64"}}
    run, _ = prepare(resolve("spos+retrain", "darts", preset="test", sets=sets), folder)
    return run, run.plugins["retrain"]


@pytest.mark.invariant("retrain", 5)
def test_the_recipe_of_darts_is_the_plain_loop_with_its_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without drop path, which draws: SGD, both losses, clipping, each batch once an epoch in plain PyTorch."""
    run, plugin = retrain_darts(tmp_path, drop_path=0.0, epochs=2, batch_size=20, augment=["flip", "cutout"])
    arch, seen = run.space.sample(run.fixed_rng("arch")), []
    build, batches = type(run.space).build, run.data.training_batch
    nets: list[Any] = []
    monkeypatch.setattr(type(run.space), "build", lambda self, arch: nets.append(build(self, arch)) or nets[-1])
    start: list[Any] = []

    def batch(rows: Any, rng: Any, split: str, kinds: Any) -> Any:
        assert kinds == ["flip", "cutout"]
        start.extend([copy.deepcopy(nets[-1])] if not start else [])
        seen.append(batches(rows, rng, split, kinds))
        return seen[-1]

    run.data.training_batch = batch  # type: ignore[method-assign, assignment]
    network = plugin.retrain(run, 0, Choice(arch)).network
    assert len(seen) == 4
    net = start[0].train()
    sgd = torch.optim.SGD(net.parameters(), 0.025, 0.9, weight_decay=3e-4)
    for step, one in enumerate(seen):
        sgd.param_groups[0]["lr"] = 0.025 * (1 + math.cos(math.pi * step / 4)) / 2
        sgd.zero_grad()
        logits, auxiliary = net.with_auxiliary(one.images.double())
        (F.cross_entropy(logits, one.labels) + 0.4 * F.cross_entropy(auxiliary, one.labels)).backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        assert norm > 0.5  # it does clip
        sgd.step()
    assert close(clone(dict(network.named_parameters())), clone(dict(net.named_parameters())))


@pytest.mark.invariant("retrain", 5)
def test_drop_path_rises_on_a_line_epoch_by_epoch(tmp_path: Path) -> None:
    run, plugin = retrain_darts(tmp_path, auxiliary=0.0, epochs=4, batch_size=20)
    shares, predict = [], run.predict

    def watch(net: Any, *inputs: Any) -> Any:
        shares.append(net.drop_path)
        return predict(net, *inputs)

    run.predict = watch  # type: ignore[method-assign]
    plugin.retrain(run, 0, Choice(run.space.sample(run.fixed_rng("arch"))))
    assert shares == pytest.approx([0, 0, 0.05, 0.05, 0.1, 0.1, 0.15, 0.15])


@pytest.mark.invariant("retrain", 6)
def test_killed_in_the_middle_it_goes_on_with_the_same_paths_dropped(tmp_path: Path) -> None:
    arch = (0, 4, 3, 1, 2, 5, 1, 4, 3, 0, 4, 5) * 2

    def weights(folder: Path, stop_at: int | None = None) -> Any:
        run, plugin = retrain_darts(folder, epochs=3, batch_size=20, drop_path=0.5)
        recipe = run.recipe.model_copy(
            update={"engine": run.recipe.engine.model_copy(update={"checkpoint_seconds": 0})}
        )
        run.recipe, loss, calls = recipe, plugin.loss, []

        def stopping(self: Any, run: Any, batch: Any) -> Any:
            calls.append(run.step)
            if run.step == stop_at:
                raise KeyboardInterrupt
            return loss(run, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Retrain, "loss", stopping)
            if stop_at is None:
                return clone(plugin.retrain(run, 0, Choice(arch)).network.state_dict()), calls
            with pytest.raises(KeyboardInterrupt):
                plugin.retrain(run, 0, Choice(arch))
        return None, calls

    whole, steps = weights(tmp_path / "whole")
    assert steps == list(range(6))
    weights(tmp_path / "killed", stop_at=3)
    resumed, rest = weights(tmp_path / "killed")
    assert rest == [3, 4, 5]
    assert same(whole, resumed)


@pytest.mark.invariant("retrain", 7)
def test_the_paper_s_recipe_on_the_darts_space_and_on_nb201() -> None:
    darts = resolve("darts-v1+retrain", "darts", preset="paper")
    options = darts.options["retrain"]
    assert (options["epochs"], options["batch_size"], options["lr"], options["weight_decay"]) == (600, 96, 0.025, 3e-4)
    assert (options["clip"], options["drop_path"], options["auxiliary"], options["nesterov"]) == (5, 0.2, 0.4, False)
    assert options["augment"] == ["flip", "crop", "cutout"]
    space = darts.options["darts"]
    assert (space["final_channels"], space["final_cells"], space["auxiliary"]) == (36, 20, True)
    assert resolve("spos+retrain", "nb201", preset="paper").options["retrain"]["epochs"] == 200


def test_table_b_is_the_preset_paper_with_a_shorter_retraining() -> None:
    for method in ("spos", "spos+calr+ms", "fairnas", "fairnas+calr", "fairnas+ms"):
        recipe = resolve(f"{method}+retrain[epochs=200]", "darts", preset="paper")
        assert (recipe.train.epochs, recipe.score.subset, recipe.dataset) == (50, "random:1000", "cifar10")
        assert recipe.options["retrain"]["epochs"] == 200


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ("tiny", {"drop_path": 0.2}, "networks of tiny have no drop path; set it to 0"),
        ("tiny", {"auxiliary": 0.4}, r"networks of tiny have no auxiliary head here; set it to 0\."),
        ("darts", {"auxiliary": 0.4}, r"set it to 0, or darts\.auxiliary=true"),
    ],
)
def test_what_a_network_does_not_have_is_refused(tmp_path: Path, space: str, options: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        prepare(resolve("spos+retrain", space, preset="test", sets={"retrain": options}), tmp_path)


def test_an_auxiliary_head_that_does_not_fit_is_refused_before_the_search(tmp_path: Path) -> None:
    sets = {"retrain": {"auxiliary": 0.4}, "darts": {"auxiliary": True}}
    with pytest.raises(BadInput, match="auxiliary head needs images of 32 to 40 pixels"):
        prepare(resolve("spos+retrain", "darts", preset="test", sets=sets), tmp_path)


def test_the_flag_is_the_modifier(tmp_path: Path) -> None:
    usual = ["-s", "tiny", "--preset", "test", "--set", "retrain.epochs=1"]
    first = nasbench("run", "-m", "spos", "--retrain", *usual, cwd=tmp_path)
    assert first.code == 0, first.err
    (path,) = tmp_path.glob("runs/*/record.json")
    record = records.read(path)
    assert (record["recipe"]["method"], [r["phase"] for r in record["results"]]) == (
        "spos+retrain[batch_size=50,epochs=1]",
        ["search", "retrain"],
    )
    again = nasbench("run", "-m", "spos+retrain", *usual, cwd=tmp_path)
    assert again.code == 0
    assert "finished before" in again.out or path.parent.name in again.out
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 1
    twice = nasbench("run", "-m", "spos+retrain", "--retrain", *usual, cwd=tmp_path)
    assert (twice.code, "'retrain' stands twice" in twice.err) == (2, True)
