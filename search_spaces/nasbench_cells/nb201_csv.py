"""Ground truth of NAS-Bench-201 from a CSV of its 200-epoch means."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nasbench import BadInput
from nasbench.tables import Column, Table

if TYPE_CHECKING:
    from nasbench_cells.nb201 import NB201

DATASETS = ("cifar10", "cifar100", "imagenet16_120")
SPLITS = ("valid", "test")
EPOCHS = 200


def read_csv(path: Path, space: NB201) -> Table:
    """The table of a CSV with columns arch, base5, `<dataset>_<split>` and, where known, tau_subset_327.

    Raises BadInput unless every row is whole and numbered right.
    """
    names = [f"{dataset}_{split}" for dataset in DATASETS for split in SPLITS]
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
    if (wrong := np.flatnonzero(numbers != stated)).size:
        raise BadInput(f"{path} numbers {rows[wrong[0]]['arch']} as {stated[wrong[0]]}; expected {numbers[wrong[0]]}.")
    order = np.argsort(numbers)
    columns = {
        Column(dataset.replace("_", "-"), split, EPOCHS, "mean"): values[f"{dataset}_{split}"][order]
        for dataset in DATASETS
        for split in SPLITS
    }
    subsets = {"official327": listed[order]} if listed.any() else {}
    network = space.with_(channels=16, cells=5, classes=10, image=(3, 32, 32), allowed={})
    return Table(space.name, network, numbers[order], columns, subsets, source="NAS-Bench-201 (CSV)", epochs=EPOCHS)
