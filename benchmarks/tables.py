"""How long a table of all 15,625 architectures of NAS-Bench-201 takes to load and to answer.

    python benchmarks/tables.py

The numbers are random, of the real table's shape: loading and looking up does not depend on what they say.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from nasbench_cells.nb201 import NB201

from nasbench.tables import Column, Table


def milliseconds(call: Callable[[], object]) -> str:
    """Least time of several calls, on the clock and of the processor."""
    times = []
    for _ in range(15):
        wall, processor = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    wall, processor = (1e3 * min(side) for side in zip(*times, strict=True))
    return f"{wall:.1f} ms, {processor:.1f} ms of the processor"


def main() -> None:
    space, rng = NB201(), np.random.default_rng(0)
    numbers = np.arange(15_625)
    names = [(d, split) for d in ("cifar10", "cifar100", "imagenet16-120") for split in ("valid", "test")]
    columns = {Column(d, split, 200, "mean"): rng.uniform(10, 95, len(numbers)) for d, split in names}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nb201.safetensors"
        Table("random", space, numbers, columns).save(path)
        table = Table.load(path, space)
        archs = table.architectures()
        print("load:", milliseconds(lambda: Table.load(path, space)))
        print("all, the first call:", milliseconds(lambda: Table.load(path, space).query(archs, "test", "cifar10")))
        print("all, another call:", milliseconds(lambda: table.query(archs, "test", "cifar10")))
        print("one by one:", milliseconds(lambda: [table.query([arch], "test", "cifar10") for arch in archs]))


if __name__ == "__main__":
    main()
