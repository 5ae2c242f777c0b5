"""A paper's table, measured: which records answer for which printed number, and what is still to run."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from nasbench import home, records
from nasbench.budget import Budget
from nasbench.errors import BadInput, unknown
from nasbench.metrics import kendall_tau, mean_interval
from nasbench.plugins import build, discover, load
from nasbench.recipe import Recipe, nested, resolve
from nasbench.results.differences import ENOUGH, LEVEL, holm, paired_p
from nasbench.results.leaderboard import settings
from nasbench.results.papers import Cell, Printed, Reason
from nasbench.sweeps.sweep import Job, jobs_of

Found = dict[int, tuple[Path, dict[str, Any]]]
"""By seed, a record and where it lies."""


@dataclass
class Outcome:
    """A printed number and what was measured for it."""

    cell: Cell
    recipe: Recipe | None = None
    """Of the run that answers for it, with seed 0; None where there is none."""
    reason: Reason | None = None
    """Why it is reported only."""
    why: str = ""
    """The reason in words, or why the run is refused."""
    values: dict[int, float] = field(default_factory=dict)
    """What was measured, by seed."""
    paths: dict[int, Path] = field(default_factory=dict)
    """Where the records are, those without the number too."""

    @property
    def state(self) -> str:
        """measured, open (it can be run), reported only, or refused (something it needs is not installed)."""
        if self.values:
            return "measured"
        if self.recipe:
            return "open"
        return "reported only" if self.reason else "refused"

    @property
    def mean(self) -> float | None:
        """The mean over seeds."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def difference(self) -> float | None:
        """Measured minus reported."""
        reported = self.cell.entry.mean
        return self.mean - reported if self.mean is not None and reported is not None else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % Student interval of the mean; None for fewer than three seeds."""
        return mean_interval(list(self.values.values()), self.cell.entry.metric)


@dataclass(frozen=True)
class Order:
    """Whether the measured rows of a column are ordered as the printed ones."""

    rows: int
    tau: float | None
    """Kendall's tau-b between the reported and the measured means; None where it is undefined."""
    agree: int
    """Pairs of rows that both order the same way; a tie in either counts in neither."""
    against: int
    agree_told: int
    """Of those that agree, pairs that noise does not explain: paired by seed, t-test, Holm, as under a leaderboard."""
    against_told: int


def order(column: list[Outcome]) -> Order | None:
    """The order of a column's rows; None for fewer than two with both numbers."""
    rows = [one for one in column if one.difference is not None]
    if len(rows) < 2:
        return None
    as_printed: dict[bool, int] = {True: 0, False: 0}
    compared: list[tuple[bool, float]] = []
    for a, b in combinations(rows, 2):
        printed = _number(a.cell.entry.mean) - _number(b.cell.entry.mean)
        if sign := printed * (_number(a.mean) - _number(b.mean)):
            as_printed[sign > 0] += 1
        differences = [a.values[seed] - b.values[seed] for seed in sorted(a.values.keys() & b.values.keys())]
        if printed and len(differences) >= ENOUGH:
            compared.append((printed * sum(differences) > 0, paired_p(differences)))
    told = [same for (same, _), p in zip(compared, holm([p for _, p in compared]), strict=True) if p < LEVEL]
    tau = kendall_tau([_number(one.cell.entry.mean) for one in rows], [_number(one.mean) for one in rows])
    return Order(len(rows), tau, as_printed[True], as_printed[False], sum(told), len(told) - sum(told))


def _number(value: float | None) -> float:
    assert value is not None
    return value


# ---------------------------------------------------------------------- from printed to measured


def check_datasets(chosen: list[Printed], preset: str, datasets: dict[str, str]) -> None:
    """Raises BadInput for a replaced dataset that none of these tables has."""
    printed = {cell.run.dataset or cell.entry.dataset for one in chosen for cell in one.cells(preset)}
    for name in datasets:
        if name not in printed:
            raise unknown("dataset of these tables", name, printed)


def measure(printed: Printed, preset: str, datasets: dict[str, str], found: dict[str, Found]) -> list[Outcome]:
    """What each number of a table is measured by at a preset, and what these records say of it.

    `datasets` replaces some by others, as in {"cifar10": "cifar10-jpeg"}; the target stays.
    """
    return [_measured(cell, preset, datasets, found) for cell in printed.cells(preset)]


def _measured(cell: Cell, preset: str, datasets: dict[str, str], found: dict[str, Found]) -> Outcome:
    run, entry = cell.run, cell.entry
    if run.reported_only:
        return Outcome(cell, reason=run.reported_only, why=run.why or "")
    assert run.run is not None
    dataset = None if preset == "quick" and not run.dataset else run.dataset or entry.dataset
    if dataset and dataset not in datasets and dataset not in [*discover("dataset"), *home.stored("datasets")]:
        why = f"{dataset} is not here; `nasbench data add {dataset} FOLDER` adds it."
        return Outcome(cell, reason="data", why=why)
    target = None if dataset is None else run.target or dataset
    try:
        sets = json.dumps(run.set or {}, sort_keys=True)
        recipe = _recipe(run.run, run.space or entry.space, dataset, target, preset, sets)
    except BadInput as error:
        return Outcome(cell, why=str(error))
    if dataset in datasets:
        recipe = recipe.model_copy(update={"dataset": datasets[dataset]})
    mine = found.get(_key(recipe.model_dump(mode="json")), {})
    answers = {seed: _value(record, cell) for seed, (_, record) in sorted(mine.items())}
    values = {seed: value for seed, value in answers.items() if value is not None}
    why = run.why or ""
    if mine and not values:
        why = f"The records of {recipe.method} do not hold one {run.metric or entry.metric} for it."
    return Outcome(cell, recipe, why=why, values=values, paths={seed: mine[seed][0] for seed in answers})


@cache
def _recipe(label: str, space: str, dataset: str | None, target: str | None, preset: str, sets: str) -> Recipe:
    # The target goes by the config, since a space without ground truth accepts no other on the command line.
    given = {"target": target} if target else {}
    return resolve(label, space, dataset=dataset, preset=preset, config=given, sets=nested(json.loads(sets)))


def plan(measured: list[Outcome], seeds: int, runs: Path, device: str) -> list[Job]:
    """The runs that have no record yet, each once, however many numbers it answers for."""
    jobs: list[Job] = []
    for recipe, paths in {
        one.recipe.model_dump_json(): (one.recipe, one.paths) for one in measured if one.recipe
    }.values():
        recipe = recipe.model_copy(update={"device": device, "engine": recipe.engine.model_copy(update={"threads": 1})})
        missing = [seed for seed in range(seeds) if seed not in paths]
        jobs += jobs_of(recipe, recipe.method, f"{recipe.space} {recipe.dataset} {recipe.preset}", missing, runs)
    return jobs


def read_records(folder: Path) -> dict[str, Found]:
    """The records below a folder by all that determines them but the seed; of several with one seed, the last made."""
    found: dict[str, Found] = {}
    for path in records.find(folder):
        record = records.read(path)
        if record["recipe"]["space"] in discover("space"):
            mine, seed = found.setdefault(_key(record["recipe"]), {}), record["recipe"]["seed"]
            if seed not in mine or mine[seed][1]["measured"]["date"] < record["measured"]["date"]:
                mine[seed] = path, record
    return found


def _key(recipe: dict[str, Any]) -> str:
    """All that determines a run but its seed, the machine it ran on, and what its space learns from the images."""
    space = recipe["space"]
    options = {**_defaults(space), **recipe["options"].get(space, {})}
    recipe = {**recipe, "options": {**recipe["options"], space: options}}
    told = {f"options.{space}.classes", f"options.{space}.image"}
    kept = settings({"recipe": recipe, "dataset_hash": ""}).items()
    return json.dumps({k: v for k, v in kept if k not in told and not k.startswith("engine.")}, sort_keys=True)


@cache
def _defaults(space: str) -> dict[str, Any]:
    options: dict[str, Any] = build(load("space", space), space, {}).model_dump(mode="json")
    return options


def _value(record: dict[str, Any], cell: Cell) -> float | None:
    """What a record says: one number, which all choices of that scenario and phase share; else None."""
    wanted = cell.run.metric or cell.entry.metric
    measured = record["measured"]
    if measured.get("peak_memory_of") == "allocator":  # a GPU's; the hours and memory of a CPU answer for no GPU's
        costs = {"gpu_hours": sum(measured["seconds"].values()) / 3600, "gpu_mb": measured["peak_memory_bytes"] / 1e6}
        if wanted in costs:
            return float(costs[wanted])
    scenario = {k: str(Budget.parse(v)) if k == "budget" else v for k, v in (cell.run.scenario or {}).items()}
    phase = cell.run.phase
    values = {
        metric["value"]
        for result in record["results"]
        if scenario.items() <= {k: str(v) for k, v in result["scenario"].items()}.items()
        and phase in (None, result["phase"])
        for metric in result["metrics"]
        if metric["name"] == wanted and metric["value"] is not None
    }
    return float(values.pop()) if len(values) == 1 else None
