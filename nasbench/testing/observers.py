"""What watches, kills or blindfolds a trial run from outside."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

from nasbench import hookimpl
from nasbench.hookspecs import CALLS
from nasbench.plugins import compose
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
    streams: set[str]
    """What the random streams that it drew from are named by."""
    calls: set[str]
    """The hooks that the plugin's own answers called."""

    def __init__(self, plugin: str, label: str, space: str) -> None:
        self.plugin, self.label, self.space = plugin, label, space
        self.streams, self.calls = set(), set()
        self._running: list[str | None] = []  # the hooks being called; None where another plugin answers

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """See what is drawn and called inside the block."""
        from nasbench import stages

        def watched(*args: Any) -> Any:
            manager = compose(*args)
            manager.add_hookcall_monitoring(self._before, self._after)
            return manager

        with (
            mock.patch.object(stages, "stream", wraps=stages.stream) as spy,
            mock.patch("nasbench.running.compose", watched),  # parts of a run compose anew
        ):
            yield
        self.streams = {str(call.args) for call in spy.call_args_list if call.args[0] != "subset"}

    def _before(self, hook_name: str, hook_impls: Any, kwargs: Any) -> None:
        if self._running and self._running[-1] not in (None, hook_name):  # train that calls a part's train hands on
            self.calls.add(hook_name)
        mine = any(i.plugin_name == self.plugin and not i.wrapper for i in hook_impls)
        self._running.append(hook_name if mine and hook_name in CALLS else None)

    def _after(self, *_: Any) -> None:
        self._running.pop()

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
