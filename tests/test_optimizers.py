"""AdamW, the warm-up and where rates go: short real runs on the space tiny."""

from __future__ import annotations

import math
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nasbench import Arch, BadInput, Run, hookimpl
from nasbench.harness import prepare
from nasbench.optimizers import loss_weights
from nasbench.recipe import TrainSettings, resolve


class Watch:
    """What each step's rates were, and what the optimizer was given."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.groups: list[tuple[float, float]] = []

    @hookimpl
    def progress(self, run: Run) -> None:
        if run.optimizer is not None:
            (group,) = run.optimizer.param_groups
            self.groups.append((group["lr"], group["weight_decay"]))


class Rates(Watch):
    priority = 2000

    @hookimpl(wrapper=True)
    def learning_rates(self, run: Run, archs: list[Arch]) -> Generator[None, list[float], list[float]]:
        rates = yield
        self.rates.append(rates)
        return rates


def trained(method: str, runs: Path, **train: Any) -> tuple[Run, Rates]:
    watch = Rates()
    sets = {"train": {"nesterov": False, "clip": None, "epochs": 3, "lr": 0.01, **train}}
    run, _ = prepare(resolve(method, "tiny", preset="test", sets=sets), runs, [watch])
    run.hook.train(run=run)
    return run, watch


def test_adamw_follows_torchs(tmp_path: Path) -> None:
    run, _ = trained("spos", tmp_path, optimizer="adamw", weight_decay=0.05)
    run.net = run.hook.build_supernet(run=run)
    made = run.hook.make_optimizer(run=run)
    assert isinstance(made, torch.optim.AdamW)
    assert (made.defaults["betas"], made.defaults["weight_decay"]) == ((0.9, 0.999), 0.05)


def test_the_rate_rises_on_a_line_then_follows_whoever_gives_it(tmp_path: Path) -> None:
    for method in ("spos", "spos+calr"):
        run, watch = trained(method, tmp_path, warmup_epochs=1)
        _, plain = trained(method, tmp_path)
        rising = run.steps_per_epoch
        assert [r for (r,) in watch.rates[:rising]] == pytest.approx([0.01 * (i + 1) / rising for i in range(rising)])
        assert watch.rates[rising:] == plain.rates[rising:]


def test_with_adamw_rates_inside_are_relative_and_their_mean_is_the_optimizers(tmp_path: Path) -> None:
    _, watch = trained("fairnas+calr", tmp_path, optimizer="adamw", weight_decay=0.05)
    means = [math.fsum(rates) / len(rates) for rates in watch.rates]
    assert [rate for rate, _ in watch.groups] == pytest.approx(means)
    assert [decay for _, decay in watch.groups] == pytest.approx([0.05] * len(means))  # torch multiplies it by the rate
    run: Any = SimpleNamespace(recipe=SimpleNamespace(train=TrainSettings(optimizer="adamw")))
    assert loss_weights(run, [0.1, 0.3], inside=True) == pytest.approx([0.5, 1.5])
    assert loss_weights(run, [0.1, 0.3], inside=False) == [1.0, 1.0]


def test_a_setting_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"train.label_smoothing = 0.1 does not reach"):
        prepare(resolve("ofa", "mobilenetv3", preset="test", sets={"train": {"label_smoothing": 0.1}}), tmp_path, [])
