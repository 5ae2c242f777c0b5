"""How long a run would take, from a few of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from nasbench import Method, Run, hookimpl
from nasbench.recipe import resolve
from nasbench.sweeps import estimate
from nasbench.sweeps.estimate import Trial
from tests.conftest import Install


class Clock:
    """It stands still but for what a method below spends."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


class Steady(Method):
    """Two loops of a known pace, the second in a part of the run."""

    calls: ClassVar[frozenset[str]] = frozenset()

    def loop(self, run: Run, total: int, seconds: float) -> int:
        done = 0
        for _ in run.steps(total):
            CLOCK.now += seconds
            done += 1
        return done

    @hookimpl
    def search(self, run: Run) -> list[Any]:
        assert run.stage("first", lambda: self.loop(run, 1000, 0.125)) < 100
        part = run.child("part", run.space)
        part.stage("second", lambda: self.loop(part, 50, 0.5))
        return []


class Whole(Steady):
    """One that needs the last step of its loop."""

    @hookimpl
    def search(self, run: Run) -> list[Any]:
        if run.stage("first", lambda: self.loop(run, 1000, 0.125)) < 1000:
            raise IndexError("no last step")
        run.stage("second", lambda: self.loop(run, 50, 0.5))
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, install: Install) -> None:
    monkeypatch.setattr("time.perf_counter", CLOCK)
    install("paces", methods={name.lower(): f"tests.sweeps.test_estimate:{name}" for name in ("Steady", "Whole")})


@pytest.mark.usefixtures("clock")
def test_the_time_of_all_loops_is_found_in_a_part_of_it() -> None:
    assert estimate.seconds(resolve("steady", "tiny", preset="test")) == (1000 * 0.125 + 50 * 0.5, True)


@pytest.mark.usefixtures("clock")
def test_what_needs_a_whole_stage_is_timed_up_to_there() -> None:
    assert estimate.seconds(resolve("whole", "tiny", preset="test")) == (1000 * 0.125, False)


@pytest.mark.parametrize("method", ["spos", "fsnas+calr+ms", "gdas+retrain", "weaknas"])
def test_built_in_methods_are_tried_to_the_end_and_leave_nothing(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trial, "seconds_each", 0.01)
    monkeypatch.chdir(tmp_path)
    seconds, whole = estimate.seconds(resolve(method, "tiny", preset="test"))
    assert whole
    assert seconds > 0
    assert not list(tmp_path.iterdir())
