"""What the pictures are made of: the records below a folder, and the files that runs left beside them."""

from __future__ import annotations

import copy
import json
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from nasbench.errors import BadInput, unknown
from nasbench.results.leaderboard import Key, everywhere, file_name, key_of, read_all, tables


class Options(NamedTuple):
    """What a picture can be asked for."""

    x: str = "madds"
    y: str | None = None
    """By default Kendall's tau where methods are compared and the table has it, else top-1."""
    top: int = 10
    """How many of the best architectures are shown larger."""
    against: str | None = None
    """The method that the others are compared to."""
    width: float = 3.4
    """Inches; 3.4 is a printed column, 7 a page."""


class Found:
    """The runs below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.records = folder, read_all(folder)

    @cached_property
    def every(self) -> list[tuple[str, dict[str, Any]]]:
        """The runs, and each as seen from the other datasets that it was ranked against, as leaderboards take them."""
        return everywhere(self.records)

    @cached_property
    def tables(self) -> dict[Key, list[dict[str, Any]]]:
        """The rows of each table."""
        return tables(self.every)

    @cached_property
    def labels(self) -> dict[Key, dict[str, str]]:
        """For each table the row of each record, by its path: a run stands in several, beside others in each."""
        return {
            key: {path: row["method"] for row in rows for path in row["paths"]} for key, rows in self.tables.items()
        }

    def label(self, path: str, record: dict[str, Any]) -> str:
        """The row of a record in its table."""
        return self.labels[key_of(record)][path]

    def of(self, key: Key) -> list[tuple[str, dict[str, Any]]]:
        """The records of a table with their paths."""
        return [(path, record) for path, record in self.every if key_of(record) == key]

    def only(self, key: Key) -> Found:
        """The runs of one table alone."""
        part = copy.copy(self)
        part.__dict__ |= {"every": self.of(key), "tables": {key: self.tables[key]}, "labels": self.labels}
        return part

    def beside(self, path: str, name: str) -> Path:
        """A file that a run left beside its record."""
        return (self.folder / path).parent / name

    def known(self, name: str) -> None:
        """Raise BadInput, with the nearest there is, for a metric that no record has."""
        metrics = {n for rows in self.tables.values() for row in rows for m in row["metrics"].values() for n in m}
        if name not in metrics:
            raise unknown("metric", name, metrics)


def stem(path: str) -> str:
    """What the pictures of one run are called: as its folder, or as its record's file in a leaderboard."""
    where = Path(path)
    return where.parent.name or "run" if where.name == "record.json" else where.stem


def table_stem(key: Key) -> str:
    """What the pictures of a table are called."""
    return file_name(key).removesuffix(".md")


def place(key: Key) -> str:
    """A table's title over a picture."""
    space, target, dataset, preset, _ = key
    on = dataset if dataset == target else f"{dataset} ({target})"
    return f"{space} on {on}, preset {preset}"


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines. Raises BadInput where one is broken."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as JSON lines ({error}); run its command again with --force.") from None
