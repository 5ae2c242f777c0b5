"""What a rule is: a check that raises an instruction to the plugin's author."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nasbench.errors import BadInput


class Failure(AssertionError):
    """A plugin does not keep a rule; the message tells its author what to do."""


class Check(NamedTuple):
    """One rule for one plugin: call it, and it raises where the rule is not kept."""

    title: str
    run: Callable[[], object]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.title

    def problem(self) -> str | None:
        """What is wrong, or None."""
        try:
            self.run()
        except (Failure, BadInput) as error:
            return str(error)
        except Exception as error:  # a plugin may break in any way
            return f"{type(error).__name__}: {error}"
        return None


def require(condition: object, instruction: str) -> None:
    """Fail with an instruction to the author unless the condition holds."""
    if not condition:
        raise Failure(instruction)
