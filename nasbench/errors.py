"""Errors that a user caused and can mend: one clear sentence, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """Something the user named, wrote or combined cannot be used; the message says what would do."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """Says what was not found and the nearest valid choice.

    >>> print(unknown("method", "fairnass", ["spos", "fairnas"]))
    Unknown method 'fairnass'; did you mean 'fairnas'?
    >>> print(unknown("method", "x", ["spos", "fairnas"]))
    Unknown method 'x'; known: fairnas, spos.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}."
    return BadInput(f"Unknown {kind} {name!r}; {hint}")
