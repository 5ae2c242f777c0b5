"""How long a run would take: its stages one after another, each for a few steps only."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nasbench.harness import prepare
from nasbench.recipe import Recipe
from nasbench.running import Run


class Trial(Run):
    """A run whose loops end early. What it finds means nothing; `missing` counts the seconds that it left out."""

    seconds_each = 2.0
    """How long a loop goes on, beyond its first step, which warms up."""
    missing = 0.0

    def steps(self, total: int) -> Iterator[int]:
        began, counted = time.perf_counter(), 0
        for step in super().steps(total):
            yield step
            if step == 0:
                began = time.perf_counter()
                continue
            counted = step
            if time.perf_counter() - began > self.seconds_each:
                break
        if counted:
            whole: Trial = self
            while isinstance(whole.parent, Trial):
                whole = whole.parent
            whole.missing += (time.perf_counter() - began) / counted * (total - 1 - counted)


def seconds(recipe: Recipe) -> tuple[float, bool]:
    """How long a recipe's run would take here, alone on the machine, and whether every stage was seen.

    A stage that needs the whole of an earlier one cannot be tried: the time is then that of the stages before it.
    """
    with tempfile.TemporaryDirectory() as folder:
        run, _ = prepare(recipe, Path(folder), kind=Trial)
        assert isinstance(run, Trial)
        began = time.perf_counter()
        try:
            run.hook.evaluate(run=run, choices=run.hook.search(run=run))
        except Exception:  # of whatever kind: a method may rely on what its loops would have found
            return time.perf_counter() - began + run.missing, False
        return time.perf_counter() - began + run.missing, True
