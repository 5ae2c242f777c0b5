"""Ground truth of NAS-Bench-201, in whichever form it comes: verified before it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nasbench import BadInput
from nasbench_cells import nb201_csv, nb201_original

if TYPE_CHECKING:
    from nasbench.tables import Table
    from nasbench_cells.nb201 import NB201

ROWS = 15_625
#: Best test accuracy (%) after 200 epochs, mean over seeds, as the benchmark's users know it.
OPTIMA = {"cifar10": 94.37, "cifar100": 73.51, "imagenet16-120": 47.31}


def read(path: Path, space: NB201) -> Table:
    """The table of the official `.pth`, of NATS-Bench's folder, or of a CSV. Raises BadInput if it is not right."""
    if path.is_dir():
        table = nb201_original.read_folder(path, space)
    elif path.suffix == ".pth":
        table = nb201_original.read_pth(path, space)
    else:
        table = nb201_csv.read_csv(path, space)
    verify(table, path)
    return table


def verify(table: Table, path: Path) -> None:
    """Raises BadInput unless the table has every architecture once, with the known optima."""
    if len(table) != ROWS or len(set(table.numbers.tolist())) != ROWS:
        count = len(set(table.numbers.tolist()))
        raise BadInput(f"{path} holds {count} architectures in {len(table)} rows; expected {ROWS}.")
    for column, values in table.columns.items():
        known = values[~np.isnan(values)]  # a seed that an architecture was not trained with is NaN
        if not ((known >= 0) & (known <= 100)).all():
            raise BadInput(f"{path} has accuracies outside 0..100 in {column}.")
    for dataset, best in OPTIMA.items():
        for split in ("valid", "test"):
            if (gaps := np.flatnonzero(np.isnan(table.column(split, dataset)))).size:
                arch = table.space.format(table.space.from_number(int(table.numbers[gaps[0]])))
                raise BadInput(f"{path} has no {split} accuracy of {arch} on {dataset}.")
        found = float(table.column("test", dataset).max())
        if round(found, 2) != best:
            raise BadInput(f"{path} has {found:.2f} as the best {dataset} test accuracy; the benchmark's is {best}.")
