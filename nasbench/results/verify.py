"""`nasbench verify`: run a record's recipe again and compare."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nasbench import records
from nasbench.errors import BadInput
from nasbench.harness import execute, prepare
from nasbench.machine import gpus
from nasbench.plugins import validated
from nasbench.recipe import Recipe


def verify(path: Path, runs: Path, observers: Sequence[Any] = (), device: str | None = None) -> list[str]:
    """Run the recipe of a record again, below `runs`, and say what differs; nothing if nothing does.

    One that was interrupted goes on; one that is finished starts over. What stands under `measured` may differ, and a
    later version may add metrics. The device is of the kind that the record was made on, unless another is named.
    Raises BadInput if the recipe cannot be run here, and if the record lies in `runs`.
    """
    before = records.read(path)
    if device is None:
        device = "cpu" if before["measured"].get("bit_exact", True) else "cuda"  # whose sums may come out otherwise
        if device == "cuda" and not gpus():
            raise BadInput(
                f"The record was made on {before['measured'].get('device')}, and there is no CUDA device here; "
                f"--device cpu runs it with other rounding."
            )
    if device == "auto":
        device = "cuda" if gpus() else "cpu"
    recipe = records.recipe_of(before).model_copy(update={"device": device})
    if device == "cpu" and recipe.engine.static == "recorded":  # as only a GPU has it
        recipe = recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"static": "off"})})
        before["recipe"]["engine"]["static"] = "off"
    old = prepare(recipe, runs)[0].folder / "record.json"
    if old.resolve() == path.resolve():
        raise BadInput(f"The new run would take the place of {path}; use another --runs.")
    after, _ = execute(recipe, runs, observers=observers, force=old.exists())
    # A setting that came later has its default in an older record.
    whole = [{**one, "recipe": validated(Recipe, one["recipe"]).model_dump(mode="json")} for one in (before, after)]
    found = list(differences("", *({**one, "measured": None} for one in whole)))
    places = [f"{one['measured'].get('device')}, torch {one['measured'].get('torch')}" for one in (before, after)]
    if found and places[0] != places[1]:
        warnings.warn(f"Other rounding is to be expected: {places[0]} before, {places[1]} now.")
    return found


def differences(place: str, a: Any, b: Any) -> Iterator[str]:
    """Where two nested containers of plain values differ, and how.

    >>> list(differences("", {"tau": [0.5, 0.4]}, {"tau": [0.5, 0.3], "n": 1}))
    ['n: missing before, 1 now', 'tau[1]: 0.4 before, 0.3 now']

    Metrics are compared by name, those that were there before:

    >>> list(differences("metrics", [{"name": "tau", "value": 0.5}], [{"name": "top1"}, {"name": "tau", "value": 0.4}]))
    ['metrics[tau].value: 0.5 before, 0.4 now']
    >>> list(differences("metrics", [{"name": "tau"}], []))
    ["metrics[tau]: {'name': 'tau'} before, missing now"]
    """
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            where = f"{place}.{key}" if place else key
            if key not in a or key not in b:
                yield f"{where}: {a.get(key, 'missing')} before, {b.get(key, 'missing')} now"
            else:
                yield from differences(where, a[key], b[key])
    elif isinstance(a, list) and isinstance(b, list) and _named(a) and _named(b):
        now = {x["name"]: x for x in b}
        for x in a:
            yield from differences(f"{place}[{x['name']}]", x, now.get(x["name"], "missing"))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(f"{place}[{i}]", x, y)
    elif a != b:
        yield f"{place}: {a} before, {b} now"


def _named(values: list[Any]) -> bool:
    return all(isinstance(x, dict) and "name" in x for x in values)
