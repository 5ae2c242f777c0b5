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
    """A run whose loops are cut; what it finds means nothing, but its `seconds` are those of whole loops."""

    seconds_each = 1.0
    """How long a loop goes on after its first step, which warms up, and before its last, which may sum up."""

    def steps(self, total: int) -> Iterator[int]:
        began = time.perf_counter()
        for step in super().steps(total):
            yield step
            now = time.perf_counter()
            if step == 0:
                began = now
            elif now - began > self.seconds_each and step < total - 1:
                self.seconds[self._stage] += (now - began) / step * (total - 2 - step)
                self.step = total - 1
                yield total - 1
                return


def seconds(recipe: Recipe) -> tuple[float, bool]:
    """How long a recipe's run would take here, alone on the machine, and whether every stage was seen.

    A stage that needs the whole of an earlier one cannot be tried: the time is then that of the stages before it.
    """
    with tempfile.TemporaryDirectory() as folder:
        run, _ = prepare(recipe, Path(folder), kind=Trial)
        try:
            run.hook.evaluate(run=run, choices=run.hook.search(run=run))
        except Exception:  # of whatever kind: a method may rely on what its loops would have found
            return sum(run.seconds.values()), False
        return sum(run.seconds.values()), True
