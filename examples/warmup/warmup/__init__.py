"""A warm-up for any method's learning rate, as in Goyal et al., Accurate, Large Minibatch SGD, 2017."""

from __future__ import annotations

from collections.abc import Generator

from pydantic import Field

from nasbench import Modifier, Run, hookimpl


class Warmup(Modifier):
    """The rates rise linearly over the first share of the training, whoever gives them."""

    share: float = Field(0.1, gt=0, le=1)
    """Share of the steps over which they rise."""

    @hookimpl(wrapper=True)
    def learning_rates(self, run: Run) -> Generator[None, list[float], list[float]]:
        rates = yield
        risen = min(1.0, (run.step + 1) / (self.share * run.total_steps))
        return [risen * rate for rate in rates]
