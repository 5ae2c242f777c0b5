"""The rules for methods and modifiers."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from pathlib import Path

from nasbench.errors import BadInput
from nasbench.hookspecs import CALLS
from nasbench.plugins import discover
from nasbench.testing.check import Failure, require
from nasbench.testing.observers import Guard, Killed, Killer
from nasbench.testing.suite import Suite


class TermSuite(Suite):
    """The rules for methods, and for modifiers on the first method that composes."""

    def check_another_seed_another_random_stream(self) -> None:
        both = ", ".join(sorted(self.first.streams & self.trial(*self.place, seed=1).streams)[:3])
        require(
            not both, f"Use run.rng(purpose), or name a stream by run.recipe.seed too: every seed draws from {both}."
        )

    def check_killed_and_resumed_same_record(self) -> None:
        place = self.place
        with tempfile.TemporaryDirectory() as runs:
            for at in itertools.count(2):  # each time a step more, so that every run gets further
                with contextlib.suppress(Killed):
                    resumed = self.trial(*place, Killer(at), folder=runs, checkpoint_seconds=0)
                    break
        self.same(
            resumed,
            "Return from state_dict whatever lives from step to step, and take it back in load_state_dict: "
            "a run that was killed and went on gave another record.",
        )

    def check_composes_or_refuses_in_a_sentence(self) -> None:
        from nasbench.harness import prepare
        from nasbench.recipe import resolve

        first = self.first
        labels = [f"{first.label}+{m}" for m in discover("modifier") if m not in first.label.split("+")]
        for label in labels + self.labels():
            try:
                prepare(resolve(label, first.space, preset="test"), Path(tempfile.gettempdir()))
            except BadInput as error:
                sentence = str(error).strip()
                require(sentence and "\n" not in sentence, f"Refuse {label} in one sentence, not with {sentence!r}.")
            except Exception as error:
                how = f"it broke ({type(error).__name__}: {error})"
                raise Failure(f"Answer refuse(run) with a sentence where {label} cannot run; {how}.") from error

    def check_calls_what_it_declares(self) -> None:
        called = self.first.calls & set().union(*CALLS.values())
        for name in sorted(called - self.cls.calls):
            raise Failure(f"Add {name!r} to `calls`: the plugin calls it, so what changes it may be added.")
        for name in sorted(self.cls.calls - called):
            raise Failure(f"Take {name!r} out of `calls`, or call it: what changes it would be added in vain.")

    def check_search_reads_no_test_results(self) -> None:
        place = self.place  # it runs where nothing is guarded
        try:
            self.trial(*place, Guard())
        except Failure:
            raise
        except Exception as error:
            raise Failure(f"Search on training and validation results; without the test's it broke: {error}") from error
