"""Records as runs would leave them, for what is made of records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasbench import records
from nasbench.recipe import parse_set, resolve
from tests.conftest import Record


def result(scenario: dict[str, str] | None = None, phase: str = "search", **values: float | None) -> dict[str, Any]:
    """One result with these metrics."""
    metrics = [{"name": name, "value": value} for name, value in values.items()]
    return {"scenario": scenario or {}, "phase": phase, "arch": "", "metrics": metrics}


def made(method: str = "spos", tau: float | None = 0.5, *sets: str, seed: int = 0, **more: Any) -> Record:
    """A record as a run would leave it, with these numbers."""
    recipe = resolve(method, "tiny", preset="test", seed=seed, sets=parse_set(list(sets)))
    values = {"kendall_tau": tau, "params_tau": 0.4, "top1": 90.0, "params": 2_000, "accuracy_density": 45_000.0} | more
    exclude: Any = {"device": True, "engine": {"threads", "checkpoint_seconds"}}
    return {
        "format": records.FORMAT,
        "id": records.identity(recipe, "0"),
        "recipe": recipe.model_dump(mode="json", exclude=exclude),
        "dataset_hash": "0",
        "results": [result(**values)],
        "measured": {"seconds": {"train": 60.0, "score": 30.0}, "device": "cpu", "threads": 2, "date": "2026-01-02T03"},
    }


def written(folder: Path, *found: Record) -> Path:
    for i, record in enumerate(found):
        path = folder / f"run{i}" / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(records.dumps(record))
    return folder
