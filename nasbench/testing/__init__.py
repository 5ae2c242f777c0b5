"""The conformance suite: what every plugin must do, ours and yours.

    @pytest.mark.parametrize("check", nasbench.testing.checks("modifier", "warmup"), ids=str)
    def test_warmup(check):
        check()

`nasbench check warmup` does the same on the command line. Everything runs at the preset `test`, in seconds.
"""

from __future__ import annotations

from nasbench.testing.check import Check, Failure
from nasbench.testing.spaces import SpaceSuite
from nasbench.testing.suite import Suite
from nasbench.testing.terms import TermSuite

__all__ = ["SUITES", "Check", "Failure", "checks"]

SUITES: dict[str, type[Suite]] = {
    "method": TermSuite,
    "modifier": TermSuite,
    "space": SpaceSuite,
    "evaluator": Suite,
}


def checks(kind: str, name: str) -> list[Check]:
    """Every check of a registered method, modifier, space or evaluator; nothing is imported before one is called."""
    suite = SUITES[kind](kind, name)
    found = [n for cls in reversed(type(suite).__mro__) for n in vars(cls) if n.startswith("check_")]
    return [Check(n.removeprefix("check_").replace("_", " "), getattr(suite, n)) for n in found]
