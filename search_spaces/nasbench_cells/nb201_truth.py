"""Ground truth of NAS-Bench-201 from a CSV of all 15,625 architectures, verified before it is believed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nasbench import BadInput
from nasbench.tables import Column, Table

if TYPE_CHECKING:
    from nasbench_cells.nb201 import NB201

ROWS, EPOCHS = 15_625, 200
#: Best test accuracy (%) after 200 epochs, mean over seeds, as the benchmark's users know it.
OPTIMA = {"cifar10": 94.37, "cifar100": 73.51, "imagenet16_120": 47.31}
SPLITS = ("valid", "test")


def read_csv(path: Path, space: NB201) -> Table:
    """The table of a CSV with columns arch, base5, `<dataset>_<split>` and, where known, tau_subset_327.

    Raises BadInput unless it has every architecture once, numbered right, with the known optima.
    """
    names = [f"{dataset}_{split}" for dataset in OPTIMA for split in SPLITS]
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
        missing = {"arch", "base5", *names} - set(rows[0] if rows else ())
        if missing:
            raise BadInput(f"{path} has no column {min(missing)!r}; expected arch, base5 and {', '.join(names)}.")
        numbers = np.array([space.number(space.parse(row["arch"])) for row in rows])
        stated = np.array([int(row["base5"]) for row in rows])
        values = {name: np.array([float(row[name]) for row in rows]) for name in names}
        listed = np.array([row.get("tau_subset_327") == "1" for row in rows])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path} is damaged ({error}).") from None
    if len(rows) != ROWS or len(set(numbers.tolist())) != ROWS:
        raise BadInput(f"{path} holds {len(set(numbers.tolist()))} architectures in {len(rows)} rows; expected {ROWS}.")
    if (wrong := np.flatnonzero(numbers != stated)).size:
        raise BadInput(f"{path} numbers {rows[wrong[0]]['arch']} as {stated[wrong[0]]}; expected {numbers[wrong[0]]}.")
    for name, column in values.items():
        if not (np.isfinite(column) & (column >= 0) & (column <= 100)).all():
            raise BadInput(f"{path} has accuracies outside 0..100 in {name}.")
    for dataset, best in OPTIMA.items():
        if round(float(values[f"{dataset}_test"].max()), 2) != best:
            found = values[f"{dataset}_test"].max()
            raise BadInput(f"{path} has {found:.2f} as the best {dataset} test accuracy; the benchmark's is {best}.")
    order = np.argsort(numbers)
    columns = {
        Column(dataset.replace("_", "-"), split, EPOCHS, "mean"): values[f"{dataset}_{split}"][order]
        for dataset in OPTIMA
        for split in SPLITS
    }
    subsets = {"official327": listed[order]} if listed.any() else {}
    network = space.with_(channels=16, cells=5, classes=10, image=(3, 32, 32), allowed={})
    return Table(space.name, network, numbers[order], columns, subsets, source="NAS-Bench-201 (CSV)")
