"""Named subsets of a space: which architectures are ranked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nasbench.errors import BadInput, unknown
from nasbench.files import pin, pinned_file
from nasbench.space import Arch, SearchSpace
from nasbench.stages import python_stream

if TYPE_CHECKING:
    from nasbench.tables import Table

#: Spaces up to this size are listed whole where there is no table.
LISTED = 100_000


def pinned(name: str, truth: Table | None) -> str:
    """A subset as a record names it: a file of numbers with a digest of its content, so that another content is
    another subset; any other as it is."""
    own = truth is not None and (name == "table" or name in truth.subsets)
    if own or name == "all" or name.startswith("random:") or not Path(name).is_file():
        return name
    return pin(Path(name))


def resolve_subset(name: str, space: SearchSpace, truth: Table | None) -> list[Arch]:
    """The architectures of `table`, `all`, `random:N`, a subset that the table names, or a file of numbers.

    Where there is a table, only architectures it holds are ranked. `random:N` is the same for every seed.
    """
    named = truth.subsets if truth else {}
    if truth is not None and name == "table":
        return truth.architectures()
    if truth is not None and name in named:
        return [arch for arch, inside in zip(truth.architectures(), named[name], strict=True) if inside]
    kind, _, count = name.partition(":")
    if kind == "random" and not (count.isdecimal() and int(count) >= 2):
        raise BadInput(f"Cannot read the subset {name!r}; write it like random:500, with 2 or more.")
    if name == "all" or kind == "random":
        rng, root = python_stream("subset", count), space.root
        large = truth is None and root.size > LISTED
        if large and name == "all":
            raise BadInput(f"{space.name} has {root.size} architectures, too many to rank all; use random:N.")
        pool = truth.architectures() if truth else [] if large else list(root.architectures())
        if name == "all":
            return pool
        there = root.size if large else len(pool)
        if int(count) > there:
            raise BadInput(f"The subset {name!r} asks for more than the {there} architectures there are.")
        if not large:
            return sorted(rng.sample(pool, int(count)))
        drawn: dict[Arch, None] = {}
        while len(drawn) < int(count):  # one that is drawn twice counts once
            drawn[root.sample(rng)] = None
        return list(drawn)
    if Path(name).is_file():
        return _from_file(Path(name), space, truth)
    if path := pinned_file(name):
        return _from_file(path, space, truth)
    if truth is None:
        raise BadInput(
            f"The subset {name!r} needs ground truth, and {space.name} has none at hand for this target; add it with "
            f"`nasbench data add {space.name} FILE`, or set score.subset to all, random:N or a file of numbers."
        )
    raise unknown("subset", name, ["table", "all", "random:N", *named])


def _from_file(path: Path, space: SearchSpace, truth: Table | None) -> list[Arch]:
    try:
        numbers = [int(word) for word in path.read_text().split()]
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"The subset file {path} must hold architecture numbers, one a line ({error}).") from None
    for number in numbers:
        if not 0 <= number < space.root.size:
            raise BadInput(f"The subset file {path} holds {number}; expected numbers from 0 to {space.root.size - 1}.")
    if len(set(numbers)) < 2:
        raise BadInput(f"The subset file {path} names {len(set(numbers))} architectures; expected two or more.")
    archs = [space.from_number(n) for n in dict.fromkeys(numbers)]
    known = [arch for arch in archs if truth is None or arch in truth]
    if truth is not None and len(known) < 2:
        raise BadInput(f"The table {truth.name} holds {len(known)} of the architectures in the subset file {path}.")
    return known
