"""Every shape of method, killed anywhere and started again, leaves the record of an undisturbed run."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Generator
from typing import Any

import pytest

from nasbench import Metric, Run, hookimpl, records
from nasbench.stages import pack
from tests import shapes
from tests.conftest import Install, Record, RunTiny

EVERY_STEP = ("engine.checkpoint_seconds=0", "train.epochs=2", "train.batch_size=70", "score.together=5")
LABELS = [
    *shapes.METHODS,
    "three-stages+ms",
    "fairnas+calr+ms",
    "fsnas+calr+ms",
    "spos+evolution[generations=5,population=4,parents=2]",
    "uniform+ms+adamw",
    "shrinking+adamw",
    "shrinking+ms",
]


class Killed(BaseException):
    """What takes the place of SIGKILL inside a test."""


class Killer:
    """Counts moments of a run and ends it at one of them; puts every bit of what was learnt into the record."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.moments = at, 0

    def tick(self) -> None:
        self.moments += 1
        if self.moments == self.at:
            raise Killed

    @hookimpl(wrapper=True)
    def train_step(self) -> Generator[None, Any, Any]:
        answer = yield
        self.tick()
        return answer

    @hookimpl(wrapper=True)
    def score(self) -> Generator[None, Any, Any]:
        self.tick()
        return (yield)

    @hookimpl
    def progress(self) -> None:
        self.tick()

    @hookimpl
    def after_epoch(self) -> None:
        self.tick()

    @hookimpl
    def evaluate(self, run: Run) -> list[Metric]:
        self.tick()
        nets = [None if r.net is None else r.net.state_dict() for r in (run, *run.parts.values())]
        digest = hashlib.sha256(pack([nets, run.scores, *(p.state_dict(run) for p in run.plugins.values())]))
        return [Metric(name="fingerprint", value=int(digest.hexdigest()[:12], 16), definition="weights, scores, state")]


@pytest.fixture(autouse=True)
def twins(install: Install) -> None:
    groups = {"methods": shapes.METHODS, "modifiers": shapes.MODIFIERS}
    install("twins", **{g: {n: f"tests.shapes:{c.__name__}" for n, c in found.items()} for g, found in groups.items()})


def killed_again_and_again(run_tiny: RunTiny, rng: random.Random, *label: str, **more: str) -> tuple[Record, int]:
    """The record of a run that is killed after a random number of moments until it gets through; how often it was."""
    for kills in range(1000):
        killer = Killer(at=rng.randint(1, 25 if kills else 8))
        with contextlib.suppress(Killed):
            return run_tiny(*label, **more, observers=[killer]), kills
    raise AssertionError("the run does not get on")


@pytest.mark.parametrize("label", LABELS)
def test_a_killed_run_gives_the_same_record(run_tiny: RunTiny, label: str) -> None:
    undisturbed = run_tiny(label, *EVERY_STEP, observers=[Killer()])
    for seed in range(2):
        disturbed, kills = killed_again_and_again(run_tiny, random.Random(seed), label, *EVERY_STEP, runs=f"{seed}")
        assert kills > 0
        assert records.equal(disturbed, undisturbed)


@pytest.mark.parametrize("label", ["spos+ms", "uniform+ms+adamw"])
@pytest.mark.parametrize("engine", ["float32", "float64", "bfloat16", "float32 channels_last"])
def test_at_every_precision(run_tiny: RunTiny, label: str, engine: str) -> None:
    precision, _, layout = engine.partition(" ")
    sets = [*EVERY_STEP, f"engine.precision={precision}", f"engine.memory_format={layout or 'auto'}"]
    nb201 = {"space": "nb201", "target": "cifar10"}  # convolutions; scored without ground truth
    undisturbed = run_tiny(label, *sets, **nb201, observers=[Killer()])
    disturbed, _ = killed_again_and_again(run_tiny, random.Random(label), label, *sets, **nb201, runs="again")
    assert records.equal(disturbed, undisturbed)
