"""The tables of papers: the run that each printed number is here, or why there is none (`tables.yaml`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nasbench.errors import BadInput, unknown
from nasbench.plugins import validated
from nasbench.recipe import Settings
from nasbench.results.reported import Entry, Paper, installed, read, read_yaml

Reason = Literal["data", "description", "compute"]
#: Why a number is reported only.
REASONS: dict[Reason, str] = {
    "data": "the images cannot be obtained, or are not here",
    "description": "the paper does not say enough to run it",
    "compute": "it takes more than this project can spend, or a machine it does not have",
}


class RunSpec(Settings):
    """What a number is measured by. Values may name what is printed beside it: `params={params_m}M`."""

    run: str | None = None
    """A method and modifiers; left out, the label of the number itself."""
    space: str | None = None
    """A search space; left out, the number's."""
    dataset: str | None = None
    """What to train on; left out, the number's dataset, and in the preset `quick` what that preset names."""
    target: str | None = None
    """Whose ground truth counts; left out, that of the dataset."""
    set: dict[str, Any] | None = None
    """Settings by dotted name."""
    scenario: dict[str, str] | None = None
    """Which of several choices of a run it is, by budget and superclass."""
    phase: str | None = None
    """Which part of a run it is, where there are several."""
    metric: str | None = None
    """The record's name for it; left out, the number's."""
    reported_only: Reason | None = None
    """Why nothing is run for it."""
    why: str | None = None
    """The reason in words, or what was chosen where the paper leaves a choice."""


class Rule(RunSpec):
    """A run for some numbers of a table. All rules that fit count: a later one adds or changes, null takes back."""

    where: dict[str, Any] = Field({})
    """Which numbers, by method, space, dataset, metric or a switch, and at which preset; a list holds alternatives."""

    def fits(self, entry: Entry, preset: str) -> bool:
        """Whether it is about this number."""
        known = {**entry.setting, **dict(entry), "preset": preset}
        return all(
            known.get(name) in wanted if isinstance(wanted, list) else known.get(name) == wanted
            for name, wanted in self.where.items()
        )


class Table(Settings):
    """A table of a paper."""

    title: str
    """What it shows."""
    source: str
    """Where it is printed, as the numbers say."""
    columns: list[str] = Field([])
    """Switches that tell columns apart; all others tell rows apart. So do space, dataset and metric."""
    note: str = ""
    """What must be known to compare."""
    rules: list[Rule] = Field([])


@dataclass(frozen=True)
class Cell:
    """A printed number, where it stands and what it is measured by."""

    entry: Entry
    row: str
    column: str
    run: RunSpec


@dataclass(frozen=True)
class Printed:
    """A table, and the numbers in it."""

    name: str
    """As it is asked for: `PAPER:TABLE`."""
    key: str
    """Its name in the paper."""
    paper: Paper
    table: Table
    rules: list[Rule]
    entries: list[Entry]

    def cells(self, preset: str) -> list[Cell]:
        """Every number and its run at a preset. Raises BadInput for one that no rule says anything of."""
        return [
            Cell(entry, self._row(entry), self._column(entry), _run(self.rules, entry, preset, self.name))
            for entry in self.entries
        ]

    def _row(self, entry: Entry) -> str:
        """The method and the switches that tell it from its other rows."""
        others = [e.setting for e in self.entries if e.method == entry.method]
        mine = {name: value for name, value in entry.setting.items() if name not in self.table.columns}
        telling = [f"{n}={v}" for n, v in mine.items() if any(other.get(n) != v for other in others)]
        return ", ".join([entry.method, *telling])

    def _column(self, entry: Entry) -> str:
        switches = [f"{name}={entry.setting[name]}" for name in self.table.columns if name in entry.setting]
        unit = f" ({entry.unit})" if entry.unit else ""
        return ", ".join([f"{entry.metric}{unit}", entry.space, entry.dataset, *switches])


def _run(rules: Iterable[Rule], entry: Entry, preset: str, name: str) -> RunSpec:
    found: dict[str, Any] = {"run": entry.label}
    for rule in rules:
        if rule.fits(entry, preset):
            for key in rule.model_fields_set - {"where"}:
                value, before = getattr(rule, key), found.get(key)
                found[key] = {**before, **value} if isinstance(value, dict) and before else value
    if found["run"] is None and found.get("reported_only") is None:
        raise BadInput(f"{name}: nothing says what {entry.method} {entry.setting or ''} is run by; add a rule.")
    words = {**entry.setting, "params_m": entry.params_m, "madds_m": entry.madds_m}
    return RunSpec(**{key: _filled(value, words) for key, value in found.items()})


def _filled(value: Any, words: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, words) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, words) for inner in value]
    if isinstance(value, str) and "{" in value:
        try:
            return value.format_map(words)
        except (KeyError, ValueError):
            raise BadInput(f"Cannot fill in {value!r}; in braces a rule may name {', '.join(words)}.") from None
    return value


def tables(name: str, folder: Path) -> list[Printed]:
    """The tables of a paper, after the rules for all of them. Raises BadInput for a file that does not fit."""
    paper, path = read(folder), folder / "tables.yaml"
    content, where = read_yaml(path), f"{folder.name}/{path.name}: "
    held = content.get("tables") if isinstance(content, dict) and content.keys() <= {"rules", "tables"} else None
    if not isinstance(held, dict) or not held or not all(isinstance(table, dict) for table in held.values()):
        raise BadInput(f"{path} must map tables to what they hold, and may map rules to those for all tables.")
    before = _rules(content.get("rules", []), where)
    found = []
    for key, table in held.items():
        rules = _rules(table.get("rules", []), f"{where}table {key}: ")
        one: Table = validated(Table, {**table, "rules": rules}, prefix=f"{where}table {key}: ")
        entries = [entry for entry in paper.entries if entry.source == one.source]
        if not entries:
            raise BadInput(f"{where}table {key}: no number is printed in {one.source!r}.")
        found.append(Printed(f"{name}:{key}", str(key), paper, one, [*before, *rules], entries))
    return found


def _rules(content: Any, where: str) -> list[Rule]:
    """One by one, so that the sentence about a mistake names the rule."""
    if not isinstance(content, list) or not all(isinstance(rule, dict) for rule in content):
        raise BadInput(f"{where}rules must be a list of what each says.")
    return [validated(Rule, rule, prefix=f"{where}rule {i}: ") for i, rule in enumerate(content, 1)]


def select(names: Iterable[str]) -> list[Printed]:
    """The tables that PAPER:TABLE, or PAPER for all of its, stand for; PAPER is installed or a folder.

    Raises BadInput for what is not known.
    """
    every, found = installed(), []
    for text in names:
        paper, _, key = text.rpartition(":")
        paper, key = (paper, key) if paper else (text, "")
        folder = every.get(paper, Path(paper))
        if not (paper and folder.is_dir()):
            raise unknown("paper", paper, every)
        known = tables(paper, folder)
        mine = [one for one in known if not key or one.key == key]
        if not mine:
            raise unknown("table", text, [one.name for one in known])
        found += mine
    return found
