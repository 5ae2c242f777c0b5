"""Named subsets of a space: which architectures are ranked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nasbench.errors import BadInput, unknown
from nasbench.space import Arch, SearchSpace
from nasbench.stages import python_stream

if TYPE_CHECKING:
    from nasbench.tables import Table


def resolve_subset(name: str, space: SearchSpace, truth: Table | None) -> list[Arch]:
    """The architectures of `table`, `all`, `random:N`, a subset that the table names, or a file of numbers.

    Where there is a table, only architectures it holds are ranked. `random:N` is the same for every seed.
    """
    named = truth.subsets if truth else {}
    if name == "table":
        if truth is None:
            raise BadInput("The subset 'table' needs ground truth; use all, random:N or a file of numbers.")
        return truth.architectures()
    if name in named and truth is not None:
        return [arch for arch, inside in zip(truth.architectures(), named[name], strict=True) if inside]
    kind, colon, count = name.partition(":")
    if name == "all" or (kind == "random" and colon):
        pool = (
            truth.architectures() if truth else list(space.root.architectures()) if space.root.size <= 100_000 else None
        )
        if name == "all":
            if pool is None:
                raise BadInput(f"{space.name} has {space.size} architectures, too many to rank all; use random:N.")
            return pool
        if not count.isdigit() or int(count) < 2:
            raise BadInput(f"Cannot read the subset {name!r}; write it like random:500, with 2 or more.")
        rng = python_stream("subset", count)
        if pool is None:
            return list(dict.fromkeys(space.root.sample(rng) for _ in range(int(count))))
        if int(count) > len(pool):
            raise BadInput(f"The subset {name!r} asks for more than the {len(pool)} architectures there are.")
        return sorted(rng.sample(pool, int(count)))
    if Path(name).is_file():
        return _from_file(Path(name), space)
    raise unknown("subset", name, ["table", "all", "random:N", *named])


def _from_file(path: Path, space: SearchSpace) -> list[Arch]:
    try:
        numbers = [int(word) for word in path.read_text().split()]
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"The subset file {path} must hold architecture numbers, one a line ({error}).") from None
    for number in numbers:
        if not 0 <= number < space.root.size:
            raise BadInput(f"The subset file {path} holds {number}; expected numbers from 0 to {space.root.size - 1}.")
    return [space.from_number(n) for n in numbers]
