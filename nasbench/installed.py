"""Which distribution registers what, and what of it cannot be used: `nasbench list plugins`."""

from __future__ import annotations

from collections import defaultdict

from nasbench.errors import BadInput
from nasbench.plugins import GROUPS, load, origin, registered


def by_origin() -> dict[str, dict[str, list[str]]]:
    """For each distribution with its version, and each file of `--plugin`, the names it registers of each kind."""
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for kind in GROUPS:
        for entry in registered(kind):
            found[origin(entry)].setdefault(f"{kind}s", []).append(entry.name)
    return dict(sorted(found.items()))


def problems() -> list[str]:
    """What others register and cannot be used, a sentence each; theirs is imported for that, ours is tested."""
    found = []
    for kind in GROUPS:
        for name in {e.name: None for e in registered(kind) if e.dist is None or e.dist.name != "nasbench"}:
            try:
                load(kind, name)
            except BadInput as error:
                found.append(str(error))
    return found
