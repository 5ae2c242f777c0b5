"""Measured costs: the latency and energy of architectures on real devices. Read, verify, query; torch-free."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nasbench import home
from nasbench.budget import MEASURED
from nasbench.errors import BadInput, unknown
from nasbench.files import write_atomic
from nasbench.plugins import load
from nasbench.space import Arch, SearchSpace


class CostColumn(NamedTuple):
    """What one column holds: a cost of one inference on a device, of the network for a dataset."""

    dataset: str
    cost: str
    """latency or energy"""
    device: str

    def __str__(self) -> str:
        return f"{self.cost}.{self.device}"


@dataclass(frozen=True, eq=False)
class CostTable:
    """Measured costs of architectures of a space.

    `numbers` [R] int64 are the architectures (see `SearchSpace.number`), ascending; `columns` maps a `CostColumn` to
    [R] float64, in the unit that `MEASURED` gives.
    """

    name: str
    space: str
    numbers: np.ndarray
    columns: dict[CostColumn, np.ndarray]
    source: str = ""

    @cached_property
    def _rows(self) -> dict[int, int]:
        return {int(number): row for row, number in enumerate(self.numbers)}

    def value(self, number: int, what: CostColumn) -> float | None:
        """What was measured of the architecture of this number, or None."""
        row = self._rows.get(number)
        return None if row is None else float(self.columns[what][row])

    def everything(self, number: int) -> list[dict[str, Any]]:
        """Every cost of an architecture, each with its labels and its unit."""
        if number not in self._rows:
            return []
        return [
            {"table": self.name, **what._asdict(), "unit": MEASURED[what.cost], "value": self.value(number, what)}
            for what in self.columns
        ]

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        columns = {"/".join(what): values.astype(np.float64) for what, values in self.columns.items()}
        meta = {"name": self.name, "space": self.space, "source": self.source, "columns": json.dumps(list(columns))}
        write_atomic(path, save({"numbers": self.numbers.astype(np.int64), **columns}, meta))

    @classmethod
    def load(cls, path: Path) -> CostTable:
        """Read what `save` wrote. Raises BadInput if the file is damaged or something else."""
        try:
            with safe_open(path, "np") as file:
                meta = file.metadata()
                columns = {CostColumn(*key.split("/")): file.get_tensor(key) for key in json.loads(meta["columns"])}
                return cls(meta["name"], meta["space"], file.get_tensor("numbers"), columns, meta["source"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"The costs {path} cannot be read ({error}); add them again with `nasbench data add {path.stem} FILE`."
            ) from None


def stored(space: SearchSpace) -> list[CostTable]:
    """The cost tables of a space that `nasbench data add` stored."""
    found = [CostTable.load(path) for path in sorted(home.path("costs").glob("*.safetensors"))]
    return [table for table in found if table.space == space.name]


def add_costs(name: str, path: Path) -> str:
    """Verify and store the cost table that a registered reader finds in a file; says what was stored."""
    if not path.is_file():
        raise BadInput(f"{path} is no file; expected the costs {name}.")
    table: CostTable = load("cost", name)(path)
    destination = home.path("costs", f"{name}.safetensors")
    table.save(destination)
    known = ", ".join(dict.fromkeys(map(str, table.columns)))
    datasets = ", ".join(dict.fromkeys(what.dataset for what in table.columns))
    return f"{len(table.numbers):,} architectures of {table.space}, {known} for {datasets} -> {destination}"


def measured(space: SearchSpace, name: str, dataset: str) -> tuple[CostTable, CostColumn]:
    """The table and the column of a cost such as `latency.raspi4`. Raises BadInput where it is not at hand."""
    tables = stored(space)
    if not tables:
        raise BadInput(
            f"{name} is measured, and no measured costs of {space.name} are at hand; add them with `nasbench data add`."
        )
    found = {(what.dataset, str(what)): (table, what) for table in tables for what in table.columns}
    if name not in {cost for _, cost in found}:
        raise unknown("cost", name, {cost for _, cost in found})
    if (dataset, name) not in found:
        have = ", ".join(sorted({d for d, cost in found if cost == name}))
        raise BadInput(f"{name} is not known for {dataset}; it is for {have}.")
    return found[dataset, name]


def describe(space: SearchSpace, arch: Arch) -> list[dict[str, Any]]:
    """Every measured cost of an architecture."""
    return [row for table in stored(space) for row in table.everything(space.number(arch))]
