"""What watches, kills or blindfolds a trial run from outside."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from nasbench import hookimpl
from nasbench.testing.check import Failure, require

if TYPE_CHECKING:
    from nasbench.records import Choice, Metric
    from nasbench.running import Run


class Witness:
    """Sees a whole run, and puts every bit of what was learnt into its record."""

    run: Run
    choices: list[Choice]
    own: list[Metric]
    """What the plugin itself reports."""
    record: dict[str, Any]

    def __init__(self, plugin: str, label: str, space: str) -> None:
        self.plugin, self.label, self.space = plugin, label, space

    @hookimpl(wrapper=True)
    def evaluate(self, run: Run, choices: list[Choice]) -> Generator[None, Any, Any]:
        from nasbench.records import Metric
        from nasbench.stages import pack

        answers = yield
        self.run, self.choices = run, choices
        mine = [i for i in run.hook.evaluate.get_hookimpls() if i.plugin_name == self.plugin and not i.wrapper]
        given = {"run": run, "choices": choices}
        self.own = [metric for i in mine for metric in i.function(*(given[name] for name in i.argnames)) or ()]
        names = [(metric.choice, metric.name) for answer in answers for metric in answer]
        for metric in self.own:
            twice = names.count((metric.choice, metric.name)) > 1
            require(not twice, f"Two evaluators report {metric.name!r}; give yours another name.")
        nets = [None if r.net is None else r.net.state_dict() for r in (run, *run.parts.values())]
        digest = hashlib.blake2b(pack([nets, run.scores, *(p.state_dict(run) for p in run.plugins.values())]))
        bits = Metric(name="learnt", value=int(digest.hexdigest()[:12], 16), definition="weights, scores, state")
        # A number that JSON cannot hold is for the check of metrics to report: here it must not stop the run.
        return [*([_without_nan(metric) for metric in answer] for answer in answers), [bits]]


def is_finite(value: float | None) -> bool:
    """Whether JSON can hold a number; None stands for an undefined one."""
    return value is None or math.isfinite(value)


def _without_nan(metric: Metric) -> Metric:
    return metric.model_copy(update={k: None for k in ("value", "low", "high") if not is_finite(getattr(metric, k))})


class Killed(BaseException):
    """The end of a process, inside a test."""


class Killer:
    """Ends a run at one of its steps."""

    def __init__(self, at: int) -> None:
        self.left = at

    @hookimpl
    def progress(self) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


class Forbidden:
    """Stands where the test images were."""

    def __getattr__(self, name: str) -> Any:
        raise Failure("Leave run.data.test alone while searching; evaluators may use it.")

    def __len__(self) -> int:
        raise Failure("Leave run.data.test alone while searching; evaluators may use it.")


class Guard:
    """Takes the test images and the table's test results away while a search runs."""

    @hookimpl(wrapper=True)
    def search(self, run: Run) -> Generator[None, Any, Any]:
        images, run.data.test = run.data.test, Forbidden()  # type: ignore[assignment]
        columns = run.truth.columns if run.truth else {}
        kept = dict(columns)
        for column in kept:
            if "test" in column.split:
                del columns[column]
        try:
            return (yield)
        finally:
            run.data.test = images
            columns.clear()
            columns.update(kept)  # in the old order
