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
    >>> print(unknown("method", "DARTS", ["cdarts", "darts-v1", "darts-v2"]))
    Unknown method 'DARTS'; did you mean 'darts-v1' or 'darts-v2'?
    >>> print(unknown("option", "calr.gama", ["calr.g", "calr.gamma_prime"]))
    Unknown option 'calr.gama'; did you mean 'calr.gamma_prime'?
    >>> print(unknown("method", "x", ["spos", "fairnas"]))
    Unknown method 'x'; known: fairnas, spos.
    """
    names, group = sorted(known), name[: name.rfind(".") + 1]
    ends, end = {choice.removeprefix(group).lower(): choice for choice in names}, name.removeprefix(group).lower()
    near = [e for e in ends if e.startswith(f"{end}-")] or difflib.get_close_matches(end, ends, n=1, cutoff=0.5)
    nearest, everything = " or ".join(repr(ends[e]) for e in near), ", ".join(names) or "none"
    return BadInput(f"Unknown {kind} {name!r}; " + (f"did you mean {nearest}?" if near else f"known: {everything}."))
