"""Errors that a user caused and can mend: one clear sentence, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """Something the user named, wrote or combined cannot be used; the message says what would do."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """Says what was not found and the nearest valid choice; of `group.name`, the group is taken as right.

    >>> print(unknown("method", "fairnass", ["spos", "fairnas"]))
    Unknown method 'fairnass'; did you mean 'fairnas'?
    >>> print(unknown("option", "calr.gama", ["calr.g", "calr.gamma_prime"]))
    Unknown option 'calr.gama'; did you mean 'calr.gamma_prime'?
    >>> print(unknown("method", "x", ["spos", "fairnas"]))
    Unknown method 'x'; known: fairnas, spos.
    """
    names, group = sorted(known), name[: name.rfind(".") + 1]
    ends = {choice.removeprefix(group): choice for choice in names}
    near = difflib.get_close_matches(name.removeprefix(group), ends, n=1, cutoff=0.5)
    hint = f"did you mean {ends[near[0]]!r}?" if near else f"known: {', '.join(names) or 'none'}."
    return BadInput(f"Unknown {kind} {name!r}; {hint}")
