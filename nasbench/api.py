"""For use from Python: what `nasbench run` does, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasbench.records import Record


def run(
    method: str,
    space: str,
    *,
    dataset: str | None = None,
    target: str | None = None,
    preset: str | None = None,
    seed: int | None = None,
    sets: dict[str, Any] | None = None,
    config: Path | str | None = None,
    device: str = "auto",
    runs: Path | str = "runs",
    force: bool = False,
    observers: Sequence[Any] = (),
) -> Record:
    """Run a method on a search space, or read the record that the same run left before.

    The arguments are those of `nasbench run`, and so are the defaults, the folder and the record: what one began,
    the other goes on with. `sets` maps dotted names to values, as `{"train.epochs": 3}`; `observers` are plugins
    that look on. Raises BadInput, with a sentence and before anything is written, for what cannot run.
    """
    from nasbench import recipe as recipes
    from nasbench.harness import execute
    from nasbench.plugins import validated
    from nasbench.records import Record

    recipe = recipes.resolve(
        method,
        space,
        dataset=dataset,
        target=target,
        preset=preset,
        seed=seed,
        device=device,
        config=recipes.read_config(Path(config)) if config else None,
        sets=recipes.nested(sets or {}),
    )
    record, _ = execute(recipe, Path(runs), observers=observers, force=force)
    found: Record = validated(Record, record)
    return found
